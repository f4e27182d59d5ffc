"""What a call of a model leaves behind, and what it does not."""

import keras
import numpy as np

from meta_pseudo_labels.models.stateless import LossScope


def test_a_loss_scope_collects_losses_and_lets_variables_move():
    norm = keras.layers.BatchNormalization(momentum=0.5)
    add = keras.layers.ActivityRegularization(l1=1.0)
    model = keras.Sequential([keras.Input((2,)), norm, add])
    with LossScope() as scope:
        model(np.float32([[1, 2], [3, 6]]), training=True)
    np.testing.assert_allclose(norm.moving_mean, [1.0, 2.0])
    (loss,) = scope.losses
    np.testing.assert_allclose(loss, 2.0, rtol=1e-2)  # All are 1 or -1.
    assert model.losses == []
