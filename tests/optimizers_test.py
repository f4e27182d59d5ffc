"""The release's optimizer, against hand numbers and TensorFlow 1's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.optimizers import Momentum, update_slope
from meta_pseudo_labels.schedules import WaitWarmupDecay

GRADIENTS = [[1.0, -2.0], [0.5, 0.0], [-1.0, 4.0]]


def trajectory(optimizer, gradients=GRADIENTS):
    """The weights after each step, from [1, 1], float64."""
    weights = keras.Variable([1.0, 1.0], dtype="float64")
    optimizer.build([weights])
    path = []
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient, tf.float64)], [weights])
        path.append(weights.numpy().copy())
    return np.array(path)


class Rate(keras.optimizers.schedules.LearningRateSchedule):
    """A rate for each step, from a list."""

    def __init__(self, *rates):
        self.rates = rates

    def __call__(self, step):
        return tf.gather(tf.constant(self.rates), tf.cast(step, "int32"))


def test_three_steps_by_hand():
    """Slots 1, 1, -0.5 and -2, -1, 3.5; each weight falls by slot / 10."""
    path = trajectory(Momentum(0.1, momentum=0.5, nesterov=False))
    np.testing.assert_allclose(
        path, [[0.9, 1.2], [0.8, 1.3], [0.85, 0.95]], rtol=1e-7
    )


def test_three_nesterov_steps_by_hand():
    """The same slots; each weight falls by (gradient + slot / 2) / 10."""
    path = trajectory(Momentum(0.1, momentum=0.5, nesterov=True))
    np.testing.assert_allclose(
        path, [[0.85, 1.3], [0.75, 1.35], [0.875, 0.775]], rtol=1e-7
    )


def test_slot_fills_while_the_rate_is_zero():
    """Two waiting steps, then a step that moves by all three gradients."""
    optimizer = Momentum(Rate(0.0, 0.0, 0.1), momentum=0.5, nesterov=False)
    path = trajectory(optimizer)
    np.testing.assert_array_equal(path[:2], np.ones([2, 2]))
    np.testing.assert_allclose(optimizer.slots[0], [-0.5, 3.5])
    np.testing.assert_allclose(path[2], [1.05, 0.65], rtol=1e-7)


def test_learning_rate_may_be_a_schedule_read_before_the_step():
    schedule = WaitWarmupDecay(0.2, decay="constant", warmup_steps=2)
    path = trajectory(Momentum(schedule, momentum=0.0, nesterov=False))
    np.testing.assert_allclose(path[0], [0.9, 1.2], rtol=1e-7)
    np.testing.assert_allclose(path[1], [0.8, 1.2], rtol=1e-7)


@pytest.mark.parametrize("nesterov", [False, True])
def test_equals_tensorflow_1(nesterov):
    rates = [0.1, 0.0, 0.3, 0.05, 0.2]
    gradients = np.random.default_rng(0).normal(size=(5, 2))
    with tf.Graph().as_default():
        weights = tf.compat.v1.Variable([1.0, 1.0], dtype=tf.float64)
        gradient = tf.compat.v1.placeholder(tf.float64, [2])
        rate = tf.compat.v1.placeholder(tf.float32, [])
        step = tf.compat.v1.train.MomentumOptimizer(
            rate, 0.9, use_nesterov=nesterov
        ).apply_gradients([(gradient, weights)])
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            want = []
            for feed in zip(gradients, rates, strict=True):
                session.run(
                    step, dict(zip((gradient, rate), feed, strict=True))
                )
                want.append(session.run(weights))

    ours = trajectory(Momentum(Rate(*rates), nesterov=nesterov), gradients)

    np.testing.assert_allclose(ours, want, rtol=1e-12)


def test_equals_keras_at_a_fixed_rate():
    for nesterov in (False, True):
        settings = dict(learning_rate=0.1, momentum=0.9, nesterov=nesterov)
        np.testing.assert_allclose(
            trajectory(Momentum(**settings)),
            trajectory(keras.optimizers.SGD(**settings)),
            rtol=1e-6,
        )


def test_differs_from_keras_when_the_rate_changes():
    """Why it exists: Keras's slot keeps the rate of the step that filled it.

    The rate falls from 1 to 0 after a step with gradient 1. TensorFlow 1
    stands still; Keras glides on by half its velocity.
    """
    settings = dict(momentum=0.5, nesterov=False)
    gradients = [[1.0, 1.0], [0.0, 0.0]]
    ours = trajectory(Momentum(Rate(1.0, 0.0), **settings), gradients)
    kerass = trajectory(
        keras.optimizers.SGD(Rate(1.0, 0.0), **settings), gradients
    )
    np.testing.assert_allclose(ours[:, 0], [0.0, 0.0])
    np.testing.assert_allclose(kerass[:, 0], [0.0, -0.5])


def test_survives_saving():
    optimizer = Momentum(0.3, momentum=0.7, nesterov=False)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(copy, Momentum)
    np.testing.assert_array_equal(trajectory(copy), trajectory(optimizer))


@pytest.mark.parametrize("momentum", [-0.1, 1.0, 9.0, float("nan")])
def test_momentum_out_of_range_is_named(momentum):
    with pytest.raises(ValueError, match=rf"\[0, 1\); got {momentum}"):
        Momentum(0.1, momentum=momentum)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: Momentum(0.2, momentum=0.9, nesterov=True),
        lambda: Momentum(0.2, momentum=0.9, nesterov=False),
        lambda: keras.optimizers.SGD(0.2),
        lambda: keras.optimizers.SGD(0.2, momentum=0.9),
        lambda: keras.optimizers.SGD(0.2, momentum=0.9, nesterov=True),
    ],
)
def test_slope_is_the_derivative_of_the_update(optimizer):
    """Of the third step, when the slot is not empty."""
    changed = [*GRADIENTS[:2], [GRADIENTS[2][0] + 0.5, GRADIENTS[2][1]]]
    before, after = (
        trajectory(optimizer(), gradients)[-1, 0]
        for gradients in (GRADIENTS, changed)
    )
    slope = update_slope(optimizer(), learning_rate=0.2)
    np.testing.assert_allclose(slope, (before - after) / 0.5, rtol=1e-6)


def test_slope_follows_the_rate_it_is_given():
    optimizer = Momentum(Rate(0.0, 1.0), momentum=0.9)
    assert update_slope(optimizer, learning_rate=0.0) == 0.0
    assert update_slope(optimizer, learning_rate=2.0) == pytest.approx(3.8)


def test_slope_of_a_nonlinear_update_is_refused():
    with pytest.raises(ValueError, match="got Adam.*reinforce"):
        update_slope(keras.optimizers.Adam(), learning_rate=0.1)


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm", "clipvalue"])
@pytest.mark.parametrize("kind", [Momentum, keras.optimizers.SGD])
def test_slope_with_clipping_is_refused(kind, clip):
    with pytest.raises(ValueError, match="grad_bound"):
        update_slope(kind(0.1, **{clip: 1.0}), learning_rate=0.1)


@pytest.mark.parametrize(
    "hidden",
    [
        dict(weight_decay=0.1),
        dict(gradient_accumulation_steps=2),
        dict(loss_scale_factor=4.0),
    ],
)
@pytest.mark.parametrize("kind", [Momentum, keras.optimizers.SGD])
def test_slope_with_other_hidden_work_is_right_or_refused(kind, hidden):
    """The change of a single step by its gradient, or a clear error."""
    try:
        slope = update_slope(
            kind(0.2, momentum=0.0, **hidden), learning_rate=0.2
        )
    except ValueError as error:
        assert next(iter(hidden)) in str(error)
        return
    before, after = (
        trajectory(kind(0.2, momentum=0.0, **hidden), [[gradient, 0.0]])[-1, 0]
        for gradient in (1.0, 1.5)
    )
    np.testing.assert_allclose(slope, (before - after) / 0.5, rtol=1e-6)
