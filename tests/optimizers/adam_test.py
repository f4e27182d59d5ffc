"""AdamW, against Keras's own and hand numbers."""

import keras
import numpy as np
import pytest

from meta_pseudo_labels.optimizers import AdamW
from tests.optimizers.helpers import (
    RATES,
    Rate,
    random_gradients,
    trajectory,
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_equals_kerass_to_the_last_bit(dtype, amsgrad):
    gradients = random_gradients(dtype)
    settings = dict(
        weight_decay=0.1, beta_1=0.8, beta_2=0.7, epsilon=1e-3, amsgrad=amsgrad
    )
    ours, kerass = (
        trajectory(kind(Rate(*RATES), **settings), gradients, dtype)
        for kind in (AdamW, keras.optimizers.AdamW)
    )
    np.testing.assert_array_equal(ours, kerass)


def test_spares_what_it_is_told():
    """By hand: without a gradient a step of rate 0.5 takes 0.5 * 0.1 of w."""
    kernel, gamma = (keras.Variable([2.0], name=n) for n in ("kernel", "gamma"))
    optimizer = AdamW(0.5, weight_decay=0.1)
    optimizer.build([kernel, gamma])
    optimizer.spare([gamma])
    for _ in range(2):
        optimizer.apply([np.zeros([1], "float32")] * 2, [kernel, gamma])
    np.testing.assert_allclose(kernel, [2 * 0.95**2], rtol=1e-6)
    np.testing.assert_array_equal(gamma, [2.0])


def test_a_negative_decay_is_refused():
    with pytest.raises(ValueError, match="got -0.1"):
        AdamW(weight_decay=-0.1)
