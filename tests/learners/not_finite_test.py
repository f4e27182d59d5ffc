"""A batch that gives no finite gradient leaves nothing behind."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import MetaPseudoLabels, Supervised
from meta_pseudo_labels.optimizers import Momentum
from tests.learners.float32_learners import batches, build_learner
from tests.learners.helpers import CLASSES, batch, conv_net, values

# What such a batch may move. Dropout counts how often it drew; what else is
# drawn, and every schedule, follows the step, which stands still.
COUNTERS = ("position", "skipped_steps", "seed_generator_state")
PARTS = {"labeled": ("labeled",), "unlabeled": ("weak", "strong")}
LEARNERS = (
    "supervised",
    "uda",
    "pseudo labels",
    "reduced",
    "release",
    "exact",
    "reinforce",
    "off",
)


def make(name):
    learner = build_learner(name)
    learner.compile(Momentum(0.2), weight_decay=0.01, grad_bound=0.5)
    return learner


def good_batches(name, count=2):
    return [dict(part) for part in batches(name, steps=count)]


def with_nan(part, spoiled, row=0):
    """The batch with an image that is not a number in some of its parts."""
    part = {key: np.array(value) for key, value in part.items()}
    for key in PARTS[spoiled]:
        part[key][row] = np.nan
    return part


def state(learner):
    """Every variable by its number and name, on every replica."""
    variables = learner.variables + learner.optimizer.variables
    if hasattr(learner, "teacher_optimizer"):
        variables += learner.teacher_optimizer.variables
    strategy = learner.distribute_strategy
    return {
        f"{number} {variable.name}": [
            value.numpy()
            for value in strategy.experimental_local_results(variable.value)
        ]
        for number, variable in enumerate(variables)
    }


def assert_same(one, two):
    """To the bit, but for the counters."""
    kept = [path for path in one if not path.endswith(COUNTERS)]
    assert len(kept) > 10 and list(one) == list(two)
    for path in kept:
        np.testing.assert_array_equal(one[path], two[path], err_msg=path)


def counts(learner):
    """(position, step, skipped steps)."""
    return tuple(
        int(v.numpy())
        for v in (learner.position, learner.step, learner.skipped_steps)
    )


@pytest.mark.fast("uda")
@pytest.mark.parametrize("name", LEARNERS)
def test_bad_batches_leave_no_trace(name):
    """The step after them is what it is for a learner that never saw them."""
    first, second = good_batches(name)
    spoiled = ["labeled"] if name == "supervised" else list(PARTS)
    keras.backend.clear_session()  # So that names of layers repeat.
    learner = make(name)
    keras.backend.clear_session()
    other = make(name)
    for each in (learner, other):
        logs = each.train_step(first)
        assert float(logs["skipped_steps"]) == 0
    before = state(learner)
    for number, part in enumerate(spoiled, start=1):
        logs = learner.train_step(with_nan(second, part))
        assert float(logs["skipped_steps"]) == number
        assert_same(before, state(learner))
        assert counts(learner) == (1 + number, 1, number)
    for ours, theirs in zip(learner.variables, other.variables, strict=True):
        if ours.path.endswith("seed_generator_state"):
            theirs.assign(ours)
    for each in (learner, other):
        logs = each.train_step(second)
    assert_same(state(learner), state(other))
    assert counts(learner) == (2 + len(spoiled), 2, len(spoiled))
    assert counts(other) == (2, 2, 0)
    assert any(
        np.any(old != new)
        for old, new in zip(
            before.values(), state(learner).values(), strict=True
        )
    )


def keras_net(name):
    """With Keras's batch norm, as most networks that users bring."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ],
        name=name,
    )


@pytest.mark.parametrize("slices", [1, 2])
def test_averages_of_keras_outlive_an_image_that_is_not_a_number(slices):
    learner = MetaPseudoLabels(keras_net("student"), keras_net("teacher"))
    learner.compile(Momentum(0.1), batch_slices=slices)
    learner.train_step(batch())
    before = state(learner)
    for part in PARTS:
        learner.train_step(with_nan(batch(seed=1), part))
    assert_same(before, state(learner))
    learner.train_step(batch(seed=1))
    moved = learner.student.layers[0].moving_mean.numpy()
    assert np.isfinite(moved).all()


class Fault(keras.layers.Layer):
    """Passes its inputs on, and adds their mean times a factor to the loss."""

    def __init__(self):
        super().__init__(dtype="float64")
        self.factor = self.add_weight(shape=(), trainable=False)

    def call(self, inputs):
        self.add_loss(self.factor * tf.reduce_mean(inputs))
        return inputs


@pytest.mark.fast("reinforce-not a number")
@pytest.mark.parametrize(
    "factor",
    [
        pytest.param(np.nan, id="not a number"),
        # Its loss and its gradients are finite, but not their norm.
        pytest.param(1e300, id="too large"),
    ],
)
@pytest.mark.parametrize("feedback", ["exact", "reinforce"])
def test_a_teacher_may_stand_still_alone(feedback, factor):
    fault = Fault()
    teacher = keras.Sequential([keras.Input((6, 6, 2)), conv_net("net"), fault])
    learner = MetaPseudoLabels(
        conv_net("student"), teacher, feedback=feedback, ema_decay=0.9
    )
    learner.compile(Momentum(0.1))
    still = teacher.trainable_variables + learner.teacher_optimizer.variables
    moving = learner.student.trainable_variables + learner.student_ema.averages
    before, start = values(still), values(moving)
    fault.factor.assign(factor)
    logs = learner.train_step(batch())
    assert counts(learner) == (1, 1, 1)
    assert int(learner.optimizer.iterations) == 1
    assert np.isfinite(logs["cross_entropy/student_on_u"])
    for variable, old in zip(still, before, strict=True):
        np.testing.assert_array_equal(variable, old)
    assert any(
        np.any(v.numpy() != old) for v, old in zip(moving, start, strict=True)
    )
    fault.factor.assign(0.0)
    learner.train_step(batch(seed=1))
    assert counts(learner) == (2, 2, 1)
    assert int(learner.teacher_optimizer.iterations) == 1


def test_a_finite_loss_may_have_too_large_a_gradient():
    """By hand: logits of 0, a loss of log 3, a gradient of 1e200 (1/3 - y)."""
    student = keras.Sequential(
        [
            keras.Input((2,), dtype="float64"),
            keras.layers.Dense(
                CLASSES, kernel_initializer="zeros", dtype="float64"
            ),
        ]
    )
    learner = Supervised(student)
    learner.compile(Momentum(0.1), grad_bound=1.0)
    labels = np.int32([1])
    bad = {"labeled": np.full([1, 2], 1e200), "labels": labels}
    logs = learner.train_step(bad)
    assert float(logs["loss/total"]) == pytest.approx(np.log(3))
    assert float(logs["loss/grad_norm"]) == np.inf
    for variable in student.variables + learner.optimizer.variables[:1]:
        np.testing.assert_array_equal(variable, np.zeros(variable.shape))
    assert counts(learner) == (1, 0, 1)
    learner.train_step({"labeled": np.ones([1, 2]), "labels": labels})
    assert np.all(student.get_weights()[0] != 0)
    assert counts(learner) == (2, 1, 1)


@pytest.mark.long
@pytest.mark.parametrize("name", ["exact", "uda", "reinforce"])
def test_no_replica_moves_where_one_saw_what_is_bad(name, mirrored):
    with mirrored(2).scope():
        learner = make(name)
    good, other = good_batches(name)
    bad = with_nan(other, "unlabeled", row=-1)  # Of the second replica.

    def fit(part):
        learner.fit(tf.data.Dataset.from_tensors(part), verbose=0)

    fit(good)
    before = state(learner)
    fit(bad)
    assert_same(before, state(learner))
    assert counts(learner) == (2, 1, 1)
    fit(other)
    assert counts(learner) == (3, 2, 1)
    after = state(learner)
    assert all(np.isfinite(parts).all() for parts in after.values())
    kernel = next(path for path in after if path.endswith("kernel"))
    assert np.all(after[kernel][0] != before[kernel][0])


@pytest.mark.long
def test_a_step_that_xla_compiles_skips_too():
    learner = make("exact")
    step = tf.function(learner.train_step, autograph=False, jit_compile=True)
    good, other = good_batches("exact")
    step(good)
    before = state(learner)
    logs = step(with_nan(other, "labeled"))
    assert float(logs["skipped_steps"]) == 1
    assert_same(before, state(learner))
    assert counts(learner) == (2, 1, 1)


def test_counting_on_from_a_step_keeps_what_was_skipped():
    learner = make("off")
    (good,) = good_batches("off", count=1)
    learner.train_step(with_nan(good, "labeled"))
    learner.set_step(7)
    assert counts(learner) == (7, 7, 1)
    assert int(learner.optimizer.iterations) == 7
    assert int(learner.teacher_optimizer.iterations) == 7
