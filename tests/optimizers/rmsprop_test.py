"""The release's RMSProp, against hand numbers and TensorFlow 1's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.optimizers import RMSProp
from tests.optimizers.helpers import (
    RATES,
    Rate,
    random_gradients,
    same_slots,
    tensorflow_1,
    trajectory,
)


def test_two_steps_by_hand():
    """The mean square starts at 1: 0.75 + 2.5**2 / 4 is 2.3125.

    With epsilon 0.1875 inside, the root of 2.5 and the next of 0.75 * 2.3125 +
    0.1875, at gradient 0, when half of the slot is left.
    """
    optimizer = RMSProp(0.5, rho=0.75, momentum=0.5, epsilon=0.1875)
    path = trajectory(optimizer, [[2.5], [0.0]])
    slot = 0.5 * 2.5 / np.sqrt(2.5)
    np.testing.assert_allclose(path, [[1 - slot], [1 - 1.5 * slot]], rtol=1e-7)
    np.testing.assert_allclose(optimizer.mean_squares[0], [1.734375])
    np.testing.assert_allclose(optimizer.slots[0], [slot / 2], rtol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "settings",
    [
        dict(rho=0.9, momentum=0.9, epsilon=1e-3),
        dict(rho=0.7, momentum=0.0, epsilon=0.1),
    ],
)
def test_equals_tensorflow_1(settings, dtype):
    gradients = random_gradients(dtype)
    want, slots = tensorflow_1(
        lambda rate: tf.compat.v1.train.RMSPropOptimizer(
            rate,
            decay=settings["rho"],
            momentum=settings["momentum"],
            epsilon=settings["epsilon"],
        ),
        gradients,
        RATES,
        dtype,
    )
    optimizer = RMSProp(Rate(*RATES), **settings)
    ours = trajectory(optimizer, gradients, dtype)
    np.testing.assert_array_equal(ours, want)
    assert list(optimizer.release_slots) == ["RMSProp", "RMSProp_1"]
    same_slots(optimizer, slots)


def test_differs_from_keras_in_the_first_steps():
    """Why it exists: from a mean square of 0, a first step of 1 / sqrt(0.1)."""
    settings = dict(learning_rate=0.1, rho=0.9, momentum=0.0, epsilon=1e-12)
    ours = trajectory(RMSProp(**settings), [[1.0]])
    kerass = trajectory(keras.optimizers.RMSprop(**settings), [[1.0]])
    np.testing.assert_allclose(ours, [[0.9]], rtol=1e-6)
    np.testing.assert_allclose(kerass, [[1 - 0.1 / np.sqrt(0.1)]], rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(rho=1.0), r"rho must be in \[0, 1\); got 1.0"),
        (dict(rho=-0.5), "rho.*got -0.5"),
        (dict(momentum=1.5), "momentum.*got 1.5"),
        (dict(epsilon=-1e-3), "epsilon.*got -0.001"),
        (dict(epsilon=float("nan")), "epsilon.*got nan"),
    ],
)
def test_numbers_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        RMSProp(0.1, **settings)
