"""Any optimizer of Keras trains as in Keras's own `fit`, or is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import MetaPseudoLabels, Supervised
from meta_pseudo_labels.learners.student_step import take_student_step
from tests.learners.helpers import CLASSES, values

O = keras.optimizers  # noqa: E741
STEPS = 4


class Doubled(O.Optimizer):
    """One of a user's own around another: twice the gradient."""

    def __init__(self, inner):
        super().__init__(learning_rate=0.0)
        self.inner = inner

    def build(self, variables):
        self.inner.build(variables)
        super().build(variables)

    def apply(self, grads, trainable_variables=None):
        self.inner.apply([2.0 * g for g in grads], trainable_variables)
        self.iterations.assign_add(1)


class EveryOther(Doubled):
    """Of a user's own: the second of two gradients alone is applied."""

    def apply(self, grads, trainable_variables=None):
        odd = tf.equal(self.iterations % 2, 1)
        tf.cond(
            odd,
            lambda: self.inner.apply(list(grads), trainable_variables),
            lambda: None,
        )
        self.iterations.assign_add(1)


class ByName:
    """Chooses an optimizer for a variable."""

    def __init__(self):
        self.kernels, self.rest = O.SGD(0.05), O.Adam(0.01)

    def __call__(self, variable):
        return self.kernels if "kernel" in variable.path else self.rest


def by_pattern():
    rest = O.SGD(0.05)
    return O.MultiOptimizer(O.OptimizerMap(rest, {".*kernel": O.Adam(0.01)}))


def scaled(**settings):
    return O.LossScaleOptimizer(O.SGD(0.05, **settings), dynamic_growth_steps=2)


OPTIMIZERS = {
    "scaled": scaled,
    "scaled, average": lambda: scaled(use_ema=True),
    "scaled, two": lambda: O.LossScaleOptimizer(O.MultiOptimizer(ByName())),
    "fixed scale": lambda: O.SGD(0.05, loss_scale_factor=8.0),
    "two": by_pattern,
    "own": lambda: Doubled(O.SGD(0.05)),
    "own, scaled": lambda: O.LossScaleOptimizer(Doubled(O.SGD(0.05))),
    "every other": lambda: EveryOther(O.SGD(0.05)),
    "clipnorm": lambda: O.SGD(0.05, clipnorm=0.1),
    "global_clipnorm": lambda: O.SGD(0.05, global_clipnorm=0.1),
    "clipvalue": lambda: scaled(clipvalue=0.05),
    "average": lambda: O.Adam(0.05, use_ema=True, ema_momentum=0.5),
    "weight decay": lambda: O.AdamW(0.05),
}
ONE_DEVICE = {
    "accumulated": lambda: O.SGD(0.05, gradient_accumulation_steps=3),
    "accumulated, scaled": lambda: scaled(gradient_accumulation_steps=2),
    "overwritten": lambda: O.SGD(0.05, use_ema=True, ema_overwrite_frequency=2),
}
ALL = OPTIMIZERS | ONE_DEVICE


def net(name="net", dtype="float32"):
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(4, activation="tanh", dtype=dtype),
        keras.layers.Dense(CLASSES, dtype=dtype),
    ]
    return keras.Sequential([keras.Input((4,)), *layers], name=name)


def batches():
    random = np.random.default_rng(0)
    images = random.normal(size=(STEPS, 8, 4)).astype("float32")
    labels = random.integers(CLASSES, size=(STEPS, 8))
    return tf.data.Dataset.from_tensor_slices((images, labels))


def dicts():
    return batches().map(lambda x, y: dict(labeled=x, labels=y, strong=x[::-1]))


def by_keras(optimizer, *, eager=True):
    model = net()
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=eager,
        jit_compile=False,
    )
    model.fit(batches(), verbose=0, shuffle=False)
    return model.get_weights()


def supervised(make, **settings):
    learner = Supervised(net())
    learner.compile(make(), **settings)
    learner.fit(dicts(), verbose=0)
    return learner.student.get_weights()


def taught(make, **settings):
    """The teacher's weights; without feedback it learns labels alone."""
    learner = mpl("off")
    learner.compile(make(), make(), **settings)
    learner.fit(dicts(), verbose=0)
    return learner.teacher.get_weights()


def mpl(feedback, **settings):
    settings = dict(uda=None, log_every=1) | settings
    return MetaPseudoLabels(
        net("student"), net("teacher"), feedback=feedback, **settings
    )


def assert_close(got, want):
    for one, two in zip(got, want, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=2e-6)


@pytest.mark.fast("scaled, average")
@pytest.mark.parametrize("name", ALL)
def test_trains_as_in_fit_of_keras(name):
    want = by_keras(ALL[name]())
    before = net().get_weights()
    moved = [np.abs(a - b).max() for a, b in zip(before, want, strict=True)]
    assert max(moved) > 1e-5
    assert_close(supervised(ALL[name], run_eagerly=True), want)
    assert_close(taught(ALL[name], run_eagerly=True), want)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "replicas"),
    [("accumulated, scaled", 1), ("scaled, average", 2), ("own, scaled", 2)],
)
def test_trains_as_in_fit_when_traced(name, replicas, mirrored):
    strategy = mirrored(2) if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        got = (taught if replicas == 1 else supervised)(ALL[name])
    assert_close(got, by_keras(ALL[name]()))


@pytest.mark.parametrize("name", ONE_DEVICE)
def test_what_works_on_one_device_alone_is_refused(name, mirrored):
    with mirrored(2).scope():
        learner = Supervised(net())
        with pytest.raises(ValueError, match="on one device; there are 2"):
            learner.compile(ONE_DEVICE[name]())


def test_an_optimizer_of_another_scope_is_refused(mirrored):
    with mirrored(2).scope():
        learner = Supervised(net())
    with pytest.raises(ValueError, match="Adam was made outside of the scope"):
        learner.compile(O.Adam())


def half_net(dtype):
    """Layers of a policy, whatever the global one is."""
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Conv2D(4, 3, activation="tanh", dtype=dtype),
        keras.layers.BatchNormalization(dtype=dtype),
        keras.layers.GlobalAveragePooling2D(dtype=dtype),
        keras.layers.Dense(CLASSES, dtype="float32"),
    ]
    return keras.Sequential([keras.Input((6, 6, 2)), *layers])


def half_learner(dtype, feedback="exact"):
    learner = MetaPseudoLabels(
        half_net(dtype), half_net(dtype), feedback=feedback, uda=None
    )
    learner.compile(O.SGD(1e-3), O.SGD(0.1))
    return learner


def half_batch():
    random = np.random.default_rng(0)
    return {
        "labeled": random.normal(size=(4, 6, 6, 2)).astype("float32"),
        "labels": np.arange(4) % CLASSES,
        "strong": random.normal(size=(6, 6, 6, 2)).astype("float32"),
    }


@pytest.fixture(scope="module")
def half():
    return half_learner("mixed_float16"), half_learner("float32")


def test_float16_has_its_loss_scaled(half):
    """By the layers' policy: here the model's own is float32."""
    kind = keras.optimizers.LossScaleOptimizer
    for learner, want in zip(half, (True, False), strict=True):
        assert isinstance(learner.optimizer, kind) == want
        assert isinstance(learner.teacher_optimizer, kind) == want
    learner = Supervised(half_net("mixed_float16"))
    learner.compile(O.SGD(0.1), auto_scale_loss=False)
    assert isinstance(learner.optimizer, O.SGD)
    learner = Supervised(half_net("mixed_bfloat16"))
    learner.compile(O.SGD(0.1))
    assert isinstance(learner.optimizer, O.SGD)


@pytest.mark.parametrize("scale", [1.0, 2.0**14])
def test_feedback_passes_through_float16_whole(half, scale):
    """It is some 1e-8, which float16 rounds to 0."""

    def slopes(learner):
        before = values(learner.variables)
        labels = tf.nn.softmax(tf.random.stateless_normal((6, CLASSES), (1, 2)))
        step, _ = take_student_step(learner, half_batch(), pseudo_labels=labels)
        found = step.label_gradient(), step.first_order_change()
        for variable, value in zip(learner.variables, before, strict=True):
            variable.assign(value)
        return found

    half[0].optimizer.dynamic_scale.assign(scale)
    (got, change), (want, exact_change) = map(slopes, half)
    assert 1e-9 < np.abs(want).max() < 1e-4
    error = np.abs(got - want).max() / np.abs(want).max()
    assert error < (0.1 if scale == 1.0 else 0.01)
    np.testing.assert_allclose(change, exact_change, rtol=0.05)


@pytest.mark.parametrize("feedback", ["exact", "reinforce"])
def test_a_step_that_overflows_moves_nothing_but_the_scale(feedback):
    learner = half_learner("mixed_float16", feedback)
    learner.optimizer.dynamic_scale.assign(2.0**100)
    networks = learner.student, learner.teacher
    before = [values(n.trainable_variables) for n in networks]
    logs = learner.train_step(half_batch())
    for network, old in zip(networks, before, strict=True):
        np.testing.assert_equal(values(network.trainable_variables), old)
    assert float(logs["skipped_steps"]) == 1 and int(learner.step) == 0
    assert float(learner.optimizer.dynamic_scale) == 2.0**99
    assert float(learner.teacher_optimizer.dynamic_scale) == 2.0**15
    assert float(learner.baseline.average) == 0


def test_a_feedback_that_overflows_lowers_the_scale_of_the_student():
    """Its own gradient may pass where that of the labels does not."""

    def overflowing(student_step, logits):
        return tf.reduce_sum(logits) * float("inf")

    learner = half_learner("mixed_float16", overflowing)
    before = values(learner.teacher.trainable_variables)
    logs = learner.train_step(half_batch())
    np.testing.assert_equal(values(learner.teacher.trainable_variables), before)
    assert float(logs["skipped_steps"]) == 1 and int(learner.step) == 1
    assert float(learner.optimizer.dynamic_scale) == 2.0**14
    assert float(learner.teacher_optimizer.dynamic_scale) == 2.0**15


def loud(student_step, logits):
    """A feedback whatever the student does."""
    return 100.0 * tf.reduce_sum(tf.nn.log_softmax(logits)[:, 0])


WAITING = {
    "accumulated": lambda: O.SGD(0.05, gradient_accumulation_steps=2),
    "own": lambda: EveryOther(O.SGD(0.05)),
    "rate 0": lambda: O.SGD(
        O.schedules.PiecewiseConstantDecay([0], [0.0, 0.05]), momentum=0.9
    ),
}


@pytest.mark.fast("loud-own", "reinforce-own", "reinforce_cosine-own")
@pytest.mark.parametrize("name", WAITING)
@pytest.mark.parametrize("feedback", ["reinforce", "reinforce_cosine", loud])
def test_a_student_that_stands_still_teaches_nothing(name, feedback):
    """The first step is that of a teacher without feedback, the second not."""
    learners = [mpl(feedback), mpl("off", pseudo_labels="sampled")]
    if feedback is loud:
        learners[0].label_kind = "sampled"
    for learner in learners:
        learner.compile(WAITING[name](), O.SGD(0.1))
    for number, batch in enumerate(dicts().take(2)):
        logs = [learner.train_step(batch) for learner in learners]
        one, two = (values(x.teacher.trainable_variables) for x in learners)
        same = all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
        assert same == (number == 0)
    assert float(logs[0]["mpl/feedback_grad_ratio"]) > 0
    assert [int(x.step) for x in learners] == [2, 2]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_step_that_16_bits_round_away_teaches_nothing(dtype):
    """Batch norm moves the student's loss all the same."""
    keras.utils.set_random_seed(0)

    def network():
        layers = keras.layers.BatchNormalization, keras.layers.Dense
        made = [layers[0](dtype=dtype), layers[1](CLASSES, dtype=dtype)]
        return keras.Sequential([keras.Input((4,)), *made])

    student = network()
    for weight in student.trainable_variables:
        weight.assign(weight + 4)
    learner = MetaPseudoLabels(
        student, network(), uda=None, feedback="reinforce"
    )
    learner.compile(O.SGD(1e-6), O.SGD(0.1))
    before = values(student.trainable_variables)
    batch = next(iter(dicts()))
    logs = learner.train_step({**batch, "strong": 2 * batch["strong"]})
    np.testing.assert_equal(values(student.trainable_variables), before)
    assert np.isnan(logs["mpl/feedback_grad_ratio"])
    assert float(learner.baseline.average) == 0
    assert not np.array_equal(logs["mpl/dot_product"], 0)


@pytest.mark.parametrize("name", ["accumulated", "own"])
def test_averages_move_where_the_student_does(name):
    learner = Supervised(net(), ema_decay=0.5)
    learner.compile(WAITING[name]())
    paths = []
    for batch in dicts().take(2):
        learner.train_step(batch)
        paths.append(values(learner.student_ema.averages))
    np.testing.assert_equal(paths[0], net().get_weights())
    assert not np.array_equal(paths[1][0], paths[0][0])


def needs_a_derivative(student_step, logits):
    return tf.reduce_sum(student_step.label_gradient())


def test_an_estimator_of_one_s_own_is_looked_at_in_compile():
    name = "needs_a_derivative"
    with pytest.raises(ValueError, match=f"{name}. supports Momentum.*Nadam"):
        mpl(needs_a_derivative).compile(O.Nadam(0.1))


def test_exact_refuses_accumulation():
    with pytest.raises(ValueError, match="gradient_accumulation_steps"):
        mpl("exact").compile(WAITING["accumulated"]())


def rates(learner):
    optimizers = learner.optimizer, learner.teacher_optimizer
    return [float(tf.convert_to_tensor(o.learning_rate)) for o in optimizers]


class Unregistered(O.schedules.LearningRateSchedule):
    """Without a configuration."""

    def __call__(self, step):
        return 0.25


@pytest.mark.fast("SGD-<lambda>")
@pytest.mark.parametrize("rate", [lambda: 0.25, Unregistered()])
@pytest.mark.parametrize(
    "make", [O.SGD, lambda rate: O.LossScaleOptimizer(O.Adam(rate))]
)
def test_the_teacher_has_an_optimizer_like_the_student_s(rate, make):
    learner = mpl("off")
    learner.compile(make(rate), run_eagerly=True)
    assert type(learner.teacher_optimizer) is type(learner.optimizer)
    assert rates(learner) == [0.25, 0.25]
    learner.fit(dicts().take(1), verbose=0)
    assert int(learner.teacher_optimizer.iterations) == 1


def test_what_cannot_be_copied_is_asked_for():
    with pytest.raises(ValueError, match="Doubled cannot .* teacher_optimizer"):
        mpl("off").compile(Doubled(O.SGD(0.1)))


def test_two_that_wrap_one_optimizer_are_refused():
    inner = O.SGD(0.1)
    with pytest.raises(ValueError, match="share one optimizer object"):
        mpl("off").compile(Doubled(inner), Doubled(inner))


@pytest.mark.parametrize("name", ["accumulated, scaled", "scaled, two"])
def test_a_step_is_set_in_all_that_an_optimizer_wraps(name):
    learner = mpl("off")
    learner.compile(ALL[name](), ALL[name]())
    learner.set_step(6)
    for optimizer, _ in learner.optimized():
        inner = optimizer.inner_optimizer
        parts = getattr(inner, "optimizers", [inner])
        accumulated = inner.gradient_accumulation_steps or 1
        assert [int(p.iterations) for p in parts] == [
            6 // accumulated for _ in parts
        ]
