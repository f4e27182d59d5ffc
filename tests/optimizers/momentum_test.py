"""The release's momentum, against hand numbers and TensorFlow 1's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.optimizers import Momentum
from meta_pseudo_labels.optimizers.schedules import WaitWarmupDecay
from tests.optimizers.helpers import (
    RATES,
    Rate,
    random_gradients,
    same_slots,
    tensorflow_1,
    trajectory,
)

GRADIENTS = [[1.0, -2.0], [0.5, 0.0], [-1.0, 4.0]]


def test_three_steps_by_hand():
    """Slots 1, 1, -0.5 and -2, -1, 3.5; each weight falls by slot / 10."""
    path = trajectory(Momentum(0.1, momentum=0.5, nesterov=False), GRADIENTS)
    np.testing.assert_allclose(
        path, [[0.9, 1.2], [0.8, 1.3], [0.85, 0.95]], rtol=1e-7
    )


def test_three_nesterov_steps_by_hand():
    """The same slots; each weight falls by (gradient + slot / 2) / 10."""
    path = trajectory(Momentum(0.1, momentum=0.5, nesterov=True), GRADIENTS)
    np.testing.assert_allclose(
        path, [[0.85, 1.3], [0.75, 1.35], [0.875, 0.775]], rtol=1e-7
    )


def test_slot_fills_while_the_rate_is_zero():
    """Two waiting steps, then a step that moves by all three gradients."""
    optimizer = Momentum(Rate(0.0, 0.0, 0.1), momentum=0.5, nesterov=False)
    path = trajectory(optimizer, GRADIENTS)
    np.testing.assert_array_equal(path[:2], np.ones([2, 2]))
    np.testing.assert_allclose(optimizer.slots[0], [-0.5, 3.5])
    np.testing.assert_allclose(path[2], [1.05, 0.65], rtol=1e-7)


def test_learning_rate_may_be_a_schedule_read_before_the_step():
    schedule = WaitWarmupDecay(0.2, decay="constant", warmup_steps=2)
    optimizer = Momentum(schedule, momentum=0.0, nesterov=False)
    path = trajectory(optimizer, GRADIENTS)
    np.testing.assert_allclose(path[0], [0.9, 1.2], rtol=1e-7)
    np.testing.assert_allclose(path[1], [0.8, 1.2], rtol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_equals_tensorflow_1(nesterov, dtype):
    gradients = random_gradients(dtype)
    want, slots = tensorflow_1(
        lambda rate: tf.compat.v1.train.MomentumOptimizer(
            rate, 0.9, use_nesterov=nesterov
        ),
        gradients,
        RATES,
        dtype,
    )
    optimizer = Momentum(Rate(*RATES), momentum=0.9, nesterov=nesterov)
    ours = trajectory(optimizer, gradients, dtype)
    np.testing.assert_array_equal(ours, want)
    same_slots(optimizer, slots)


def test_equals_keras_at_a_fixed_rate():
    for nesterov in (False, True):
        settings = dict(learning_rate=0.1, momentum=0.9, nesterov=nesterov)
        np.testing.assert_allclose(
            trajectory(Momentum(**settings), GRADIENTS),
            trajectory(keras.optimizers.SGD(**settings), GRADIENTS),
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


@pytest.mark.parametrize("momentum", [-0.1, 1.0, 9.0, float("nan")])
def test_momentum_out_of_range_is_named(momentum):
    with pytest.raises(ValueError, match=rf"\[0, 1\); got {momentum}"):
        Momentum(0.1, momentum=momentum)
