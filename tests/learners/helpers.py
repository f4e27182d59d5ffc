"""Small models and batches for the learners' tests."""

import keras
import numpy as np
import tensorflow as tf

from meta_pseudo_labels.learners import MetaPseudoLabels
from meta_pseudo_labels.optimizers import Momentum

CLASSES = 3


def conv_net(name, *, dtype="float64", dropout_rate=0.0):
    """A small smooth conv net with batch norm; tanh keeps differences exact."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, activation="tanh", dtype=dtype),
            keras.layers.BatchNormalization(dtype=dtype),
            keras.layers.Conv2D(4, 3, activation="tanh", dtype=dtype),
            keras.layers.BatchNormalization(dtype=dtype),
            keras.layers.GlobalAveragePooling2D(dtype=dtype),
            keras.layers.Dropout(dropout_rate, dtype=dtype),
            keras.layers.Dense(CLASSES, dtype=dtype),
        ],
        name=name,
    )


def batch(*, labeled=4, unlabeled=6, dtype="float64", seed=0):
    """One random batch for `conv_net`."""
    random = np.random.default_rng(seed)

    def images(count):
        return random.normal(size=(count, 6, 6, 2)).astype(dtype)

    return {
        "labeled": images(labeled),
        "labels": random.integers(CLASSES, size=labeled).astype("int32"),
        "weak": images(unlabeled),
        "strong": images(unlabeled),
    }


def values(variables):
    """Copies of the values of variables."""
    return [variable.numpy().copy() for variable in variables]


def all_of(learner):
    """The variables of an MPL learner and of its two optimizers."""
    optimizers = learner.optimizer, learner.teacher_optimizer
    return [*learner.variables, *(v for o in optimizers for v in o.variables)]


def assert_equal(one, other, tolerance=0.0):
    """Compares variables or values in pairs."""
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def make(method, *, dtype="float32", **settings):
    """A learner of any method on `conv_net`s with dropout."""
    student = conv_net("student", dtype=dtype, dropout_rate=0.2)
    if method is MetaPseudoLabels:
        teacher = conv_net("teacher", dtype=dtype, dropout_rate=0.2)
        return MetaPseudoLabels(student, teacher, **settings)
    return method(student, **settings)


def dataset(steps=None, dtype="float32"):
    """Batches by step, endless unless `steps` is given."""
    batches = [batch(seed=seed, dtype=dtype) for seed in range(4)]
    stacked = {k: np.stack([b[k] for b in batches]) for k in batches[0]}
    endless = tf.data.Dataset.from_tensor_slices(stacked).repeat()
    return endless if steps is None else endless.take(steps)


class Sequence(keras.utils.PyDataset):
    """A data set of Keras's own kind, with a single batch."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.batch


def compiled(method, *, rate=0.1, weight_decay=0.0, **settings):
    """A compiled float64 learner without dropout, always the same one."""
    keras.utils.set_random_seed(3)
    networks = [conv_net("student")]
    if method is MetaPseudoLabels:
        networks.append(conv_net("teacher"))
    learner = method(*networks, **settings)
    learner.compile(Momentum(rate), weight_decay=weight_decay)
    return learner
