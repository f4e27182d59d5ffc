"""Small learners, and their variables under the names of the release."""

import functools

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data import DATASETS
from meta_pseudo_labels.learners.build import build_learner
from meta_pseudo_labels.release import release_variables
from meta_pseudo_labels.run.config import Config

SPEC = DATASETS["digits"]

SMALL = dict(
    model_type="wrn-10-1",
    ema_decay=0.9,
    dense_dropout_rate=0.2,
    mpl_student_lr_wait_steps=0,
)


def learner(seed=0, spec=SPEC, **settings):
    return build_learner(Config(seed=seed, **SMALL | settings), spec)


def trained(steps=2, **settings):
    """A learner some steps on, so that no variable is at its start.

    The same one for all who ask: it is to be read, not to be changed.
    """
    return _trained(steps, Config(seed=0, **SMALL | settings))


@functools.cache
def _trained(steps, config):
    return train(build_learner(config, SPEC), steps)


def train(learner, steps):
    rng = np.random.default_rng(5)
    batch = {
        "labeled": rng.normal(size=(4, 8, 8, 3)).astype("float32"),
        "labels": rng.integers(10, size=4),
        "weak": rng.normal(size=(8, 8, 8, 3)).astype("float32"),
        "strong": rng.normal(size=(8, 8, 8, 3)).astype("float32"),
    }
    step = tf.function(learner.train_step, autograph=False)
    for _ in range(steps):
        step(batch)
    return learner


def arrays(of, scope="wrn-10-1", **scopes):
    named = release_variables(of, scope=scope, **scopes)
    return {name: variable.numpy() for name, variable in named.items()}


def assert_same(actual, desired):
    assert list(actual) == list(desired)
    for name, value in desired.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)
