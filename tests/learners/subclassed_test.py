"""Networks written as classes learn as the same layers in a row do."""

import keras
import numpy as np
import pytest

from meta_pseudo_labels.learners import MetaPseudoLabels
from meta_pseudo_labels.optimizers import Momentum
from tests.learners.helpers import CLASSES, batch, values


class Net(keras.Model):
    """Leaves it to Keras to tell its layers that it is training."""

    def __init__(self, name):
        super().__init__(name=name, dtype="float64")
        self.parts = layers()
        self(np.zeros([1, 6, 6, 2]))

    def call(self, inputs, training=None):
        for part in self.parts:
            inputs = part(inputs)
        return inputs


class NetWithoutTraining(Net):
    """Has no such argument at all."""

    def call(self, inputs):
        return super().call(inputs)


def in_a_row(name):
    inputs = keras.Input((6, 6, 2), dtype="float64")
    return keras.Sequential([inputs, *layers()], name=name)


def layers():
    kinds = keras.layers
    return [
        kinds.Conv2D(4, 3, activation="tanh", dtype="float64"),
        kinds.BatchNormalization(dtype="float64"),
        kinds.Dropout(0.3, seed=7, dtype="float64"),
        kinds.GlobalAveragePooling2D(dtype="float64"),
        kinds.Dense(CLASSES, dtype="float64"),
    ]


def outcome(net, **compiled):
    """Logs of three steps, predictions of the average, and all weights."""
    keras.utils.set_random_seed(3)
    learner = MetaPseudoLabels(
        net("student"),
        net("teacher"),
        ema_decay=0.9,
        # The teacher's pass then goes the way of the student's second.
        update_teacher_moments=False,
    )
    learner.compile(Momentum(0.1), **compiled)
    logs = [learner.train_step(batch(seed=seed)) for seed in range(3)]
    images = batch()["labeled"]
    return (
        [float(value) for row in logs for value in row.values()],
        learner.predict(images, verbose=0),
        values(learner.student.weights),
    )


@pytest.mark.fast("Net-1")
@pytest.mark.parametrize(
    ("net", "slices"), [(Net, 1), (Net, 2), (NetWithoutTraining, 1)]
)
def test_a_subclassed_model_is_its_layers(net, slices):
    """In training mode where they should be, and in inference mode after."""
    got = outcome(net, batch_slices=slices)
    want = outcome(in_a_row, batch_slices=slices)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-9)
    for one, other in zip(got[2], want[2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
