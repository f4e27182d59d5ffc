"""What `fit` counts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import MetaPseudoLabels, Supervised
from tests.learners.helpers import CLASSES

pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")


def net():
    layers = [keras.layers.Dropout(0.5, seed=3), keras.layers.Dense(CLASSES)]
    return keras.Sequential([keras.Input((4,)), *layers])


def batches(steps):
    """Batches of which nobody knows beforehand how many there are."""
    images = np.random.default_rng(0).normal(size=(steps, 4, 4))
    part = dict(labeled=images.astype("float32"), labels=np.zeros((steps, 4)))
    part["labels"] = part["labels"].astype("int32")
    part["strong"] = part["labeled"]
    return tf.data.Dataset.from_tensor_slices(part).filter(lambda part: True)


def seeds(learner):
    return [v.numpy()[1] for v in learner.variables if "seed" in v.path]


@pytest.mark.fast("1-3-4")
@pytest.mark.parametrize(
    ("replicas", "at_once", "steps"), [(1, 1, 4), (1, 3, 4), (2, 1, 4)]
)
def test_nothing_moves_where_the_data_end(replicas, at_once, steps, mirrored):
    """Neither counters nor the states of random layers, at each of two ends."""
    strategy = mirrored(2) if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        learner = Supervised(net())
        learner.compile(steps_per_execution=at_once)
    learner.fit(batches(steps), epochs=2, verbose=0)
    assert int(learner.position.numpy()) == int(learner.step.numpy())
    assert int(learner.position.numpy()) == 2 * steps
    assert seeds(learner) == [2 * steps]


def test_nor_does_a_teacher():
    learner = MetaPseudoLabels(net(), net(), feedback="off", uda=None)
    learner.compile()
    learner.fit(batches(3), epochs=2, verbose=0)
    assert int(learner.position.numpy()) == 6
    assert seeds(learner) == [12, 6]  # The student looks twice.
