"""A run is the same whatever the number of replicas."""

import contextlib
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import (
    UDA,
    MetaPseudoLabels,
    PseudoLabels,
    ReducedMPL,
    Supervised,
    UDASettings,
)
from meta_pseudo_labels.learners.feedback import ESTIMATORS
from meta_pseudo_labels.models.batch_norm import BatchNorm
from meta_pseudo_labels.models.dropout import Dropout
from meta_pseudo_labels.optimizers import LARS, AdamW, Momentum, RMSProp
from tests.learners.helpers import CLASSES, assert_equal, batch

STEPS = 20
UDA_SETTINGS = UDASettings(weight=2.0, ramp_steps=5, threshold=0.3)


def conv_net(name):
    """Smooth, with all that replicas must share: batch norm and dropout."""
    dtype = "float64"
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, activation="tanh", dtype=dtype),
            BatchNorm(dtype=dtype, momentum=0.9),
            keras.layers.Conv2D(4, 3, activation="tanh", dtype=dtype),
            BatchNorm(dtype=dtype, momentum=0.9),
            keras.layers.GlobalAveragePooling2D(dtype=dtype),
            Dropout(0.3, seed=5, dtype=dtype),
            keras.layers.Dense(CLASSES, dtype=dtype),
        ],
        name=name,
    )


def keras_conv_net(name):
    """With Keras's batch norm."""
    layers = [
        keras.Input((6, 6, 2)),
        keras.layers.Conv2D(4, 3, activation="tanh", dtype="float64"),
        keras.layers.BatchNormalization(dtype="float64", momentum=0.9),
        keras.layers.Activation("tanh", dtype="float64"),
        keras.layers.GlobalAveragePooling2D(dtype="float64"),
        keras.layers.Dense(CLASSES, dtype="float64"),
    ]
    return keras.Sequential(layers, name=name)


def reduced_teacher():
    return keras.Sequential(
        [
            keras.Input((CLASSES,)),
            keras.layers.Dense(8, activation="tanh", dtype="float64"),
            keras.layers.Dense(CLASSES, dtype="float64"),
        ],
        name="teacher",
    )


def mpl(feedback, net=conv_net):
    return lambda: MetaPseudoLabels(
        net("student"),
        net("teacher"),
        feedback=feedback,
        feedback_weight=5.0,
        uda=UDA_SETTINGS,
        log_every=2,  # So one branch of two is taken, and then the other.
        **COMMON,
    )


COMMON = dict(label_smoothing=0.1, ema_decay=0.9, seed=7)
LEARNERS = {
    "supervised": lambda: Supervised(conv_net("student"), **COMMON),
    "pseudo labels": lambda: PseudoLabels(
        conv_net("student"), pseudo_labels="sampled", **COMMON
    ),
    "uda": lambda: UDA(conv_net("student"), uda=UDA_SETTINGS, **COMMON),
    "reduced": lambda: ReducedMPL(
        conv_net("student"), reduced_teacher(), feedback_weight=5.0, **COMMON
    ),
    **{name: mpl(name) for name in ESTIMATORS},
}
KERAS_BATCH_NORM = {
    "supervised": lambda: Supervised(keras_conv_net("student"), **COMMON),
    "exact": mpl("exact", keras_conv_net),
}


def dataset(labeled=8, unlabeled=12, steps=STEPS):
    """The same global batches, of all that any learner needs."""
    batches = []
    for seed in range(steps):
        part = batch(labeled=labeled, unlabeled=unlabeled, seed=seed)
        held_out = batch(labeled=labeled, unlabeled=1, seed=seed + 100)
        random = np.random.default_rng(seed)
        part |= {
            "feedback": held_out["labeled"],
            "feedback_labels": held_out["labels"],
            "labeled_distributions": random.dirichlet(
                np.ones(CLASSES), size=labeled
            ),
            "unlabeled_distributions": random.dirichlet(
                np.ones(CLASSES), size=unlabeled
            ),
            "unlabeled_indices": random.integers(20, size=unlabeled),
        }
        batches.append(part)
    stacked = {key: np.stack([b[key] for b in batches]) for key in batches[0]}
    return tf.data.Dataset.from_tensor_slices(stacked)


class Logs(keras.callbacks.Callback):
    """Keeps what every step logged."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def on_train_batch_end(self, batch, logs=None):
        self.rows.append({name: float(value) for name, value in logs.items()})


def train(
    build,
    strategy=None,
    *,
    optimizer=None,
    drop=("feedback",),
    steps_per_execution=1,
    steps=STEPS,
    **settings,
):
    """Logs of all steps, and the variables at the end."""
    keras.utils.set_random_seed(3)
    with strategy.scope() if strategy else contextlib.nullcontext():
        learner = build()
        learner.compile(
            optimizer() if optimizer else Momentum(0.2, nesterov=True),
            weight_decay=0.01,
            grad_bound=0.5,  # Below some norms, so that clipping counts.
            steps_per_execution=steps_per_execution,
            **settings,
        )
    data = dataset(steps=steps).map(
        lambda x: {k: v for k, v in x.items() if not k.startswith(drop)}
    )
    logs = Logs()
    learner.fit(data, verbose=0, callbacks=[logs])
    assert learner.step.numpy() == steps
    variables = learner.variables + learner.optimizer.variables
    if hasattr(learner, "teacher_optimizer"):
        variables += learner.teacher_optimizer.variables
    return logs.rows, variables


def assert_same(one, several, tolerance=1e-7):
    """Logs and variables agree; in float64, so up to the order of sums."""
    for name in one[0][0]:
        first, second = (
            [row[name] for row in rows] for rows in (one[0], several[0])
        )
        _assert_near(second, first, tolerance, name)
    for a, b in zip(one[1], several[1], strict=True):
        _assert_near(b.numpy(), a.numpy(), tolerance, a.path)


def logs_of_one_and_two(two, *, steps, **attributes):
    """The logs of MPL on one device, which those on two replicas equal.

    Args:
      two: a strategy of two replicas.
      steps: how many.
      **attributes: of the learner, set before it is compiled.
    """

    def build():
        learner = mpl("exact")()
        for name, value in attributes.items():
            setattr(learner, name, value)
        return learner

    (logs, one), (logs_of_two, variables) = (
        train(build, strategy, steps=steps) for strategy in (None, two)
    )
    for row, row_of_two in zip(logs, logs_of_two, strict=True):
        for name, value in row.items():
            np.testing.assert_allclose(row_of_two[name], value, rtol=1e-6)
    assert_equal(one, variables, 1e-7)
    return logs


def _assert_near(actual, wanted, tolerance, name):
    scale = max(np.abs(wanted).max(), 1e-6)
    np.testing.assert_allclose(
        actual, wanted, rtol=0, atol=tolerance * scale, err_msg=name
    )


# The others take as long, and are much like this one.
@pytest.mark.fast("exact")
@pytest.mark.parametrize("name", LEARNERS)
def test_two_replicas_are_as_good_as_one(name, mirrored):
    one = train(LEARNERS[name])
    assert_same(one, train(LEARNERS[name], mirrored(2)))


@pytest.mark.long
@pytest.mark.parametrize("name", ["supervised", "exact"])
def test_a_strategy_of_one_replica_is_no_different(name, mirrored):
    one = train(LEARNERS[name])
    assert_same(one, train(LEARNERS[name], mirrored(1)))
    alone = tf.distribute.OneDeviceStrategy("CPU:0")
    assert_same(one, train(LEARNERS[name], alone))


@pytest.mark.long
@pytest.mark.parametrize("name", LEARNERS)
def test_four_replicas_are_as_good_as_one(name, mirrored):
    one = train(LEARNERS[name])
    assert_same(one, train(LEARNERS[name], mirrored(4)))


@pytest.mark.long
@pytest.mark.parametrize("feedback", ["exact", "reinforce_dot_product"])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: RMSProp(0.02),
        lambda: LARS(5.0),
        lambda: keras.optimizers.SGD(0.2, momentum=0.5),
        lambda: AdamW(0.01, weight_decay=0.3, epsilon=1e-3),
    ],
    ids=["rmsprop", "lars", "sgd", "adamw"],
)
def test_so_are_they_with_every_optimizer(optimizer, feedback, mirrored):
    one = train(mpl(feedback), optimizer=optimizer)
    several = train(mpl(feedback), mirrored(2), optimizer=optimizer)
    assert_same(one, several)


@pytest.mark.long
@pytest.mark.parametrize("name", ["supervised", "exact"])
def test_so_are_they_where_the_backbone_has_its_own_pace(name, mirrored):
    settings = dict(
        steps=4,
        optimizer=lambda: AdamW(0.01, weight_decay=0.3, epsilon=1e-3),
        freeze_backbone_steps=2,
        backbone_lr_factor=0.1,
    )
    one = train(LEARNERS[name], **settings)
    assert_same(one, train(LEARNERS[name], mirrored(2), **settings))


@pytest.mark.long
@pytest.mark.parametrize("feedback", ["exact", "reinforce_per_example"])
def test_so_are_they_on_a_held_out_split(feedback, mirrored):
    one = train(mpl(feedback), drop=("none",))
    assert_same(one, train(mpl(feedback), mirrored(2), drop=("none",)))


@pytest.mark.long
def test_an_optimizer_of_kerass_own_does_not_sum_again(mirrored):
    """Adam alone: its state tells how often a gradient was counted."""
    build = LEARNERS["supervised"]
    adam = functools.partial(keras.optimizers.Adam, 0.01)
    one = train(build, optimizer=adam)
    assert_same(one, train(build, mirrored(2), optimizer=adam))


@pytest.mark.fast("supervised")
@pytest.mark.parametrize("name", ["supervised", "exact"])
def test_batch_norm_of_kerass_own_is_synchronized(name, mirrored):
    """Its halves of a batch would have moments of their own.

    That Keras holds the mean fixed in its variance is nothing to `exact`,
    whose outer derivative is one by the labels.
    """
    build = KERAS_BATCH_NORM[name]
    one = train(build, steps=4)
    assert_same(one, train(build, mirrored(2), steps=4))


def penalized(name):
    """Its layers add to the loss before and after replicas meet in it."""
    penalty = keras.regularizers.L2(0.5)
    layers = [
        keras.Input((6, 6, 2)),
        keras.layers.Conv2D(
            4, 3, activity_regularizer=penalty, dtype="float64"
        ),
        keras.layers.BatchNormalization(dtype="float64"),
        keras.layers.ActivityRegularization(l1=0.1, dtype="float64"),
        keras.layers.GlobalAveragePooling2D(dtype="float64"),
        keras.layers.Dense(
            CLASSES, kernel_regularizer=penalty, dtype="float64"
        ),
    ]
    return keras.Sequential(layers, name=name)


@pytest.mark.long
@pytest.mark.parametrize(
    "build",
    [
        lambda: UDA(penalized("student"), uda=UDA_SETTINGS, **COMMON),
        mpl("exact", penalized),
        mpl("off", penalized),
    ],
    ids=["uda", "exact", "off"],
)
def test_what_layers_add_to_the_loss_is_each_replicas_own(build, mirrored):
    one = train(build, steps=2)
    assert one[0][0].get("loss/total", 9) > 1
    assert_same(one, train(build, mirrored(2), steps=2))
