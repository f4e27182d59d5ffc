"""The finetuning of a run that was never trained, in a second."""

import contextlib
import functools
import json
import os
import pathlib
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.data import load_data
from meta_pseudo_labels.run.stages import finetune
from tests.tiny_run import untimed

VALIDATION = 20
# One that is best at step 8 and ends at 12; and one that takes all its steps.
EARLY = dict(
    num_validation=VALIDATION,
    finetune_steps=19,
    finetune_lr=0.4,
    finetune_patience=2,
    finetune_eval_every=2,
)
WHOLE = dict(finetune_steps=5, save_every=100)


def network():
    """The smallest with all that finetuning can go wrong on."""
    return keras.Sequential(
        [
            keras.Input([8, 8, 3]),
            keras.layers.Flatten(),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Dropout(0.3, seed=0),
            keras.layers.Dense(
                10, kernel_initializer=keras.initializers.GlorotUniform(0)
            ),
        ]
    )


@functools.cache
def images():
    return load_data(Config(num_validation=VALIDATION))


def learner(student=None):
    """As a checkpoint of step 4 has it; with a new network by default."""
    student = student or network()
    return types.SimpleNamespace(
        step=tf.constant(4),
        finished_student=lambda: student,
        averaged_student=lambda: contextlib.nullcontext(student),
    )


def run(config, **settings):
    """Whether there was anything left to finetune."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            finetune, "build_model", lambda *args, **kwargs: network()
        )
        return finetune.finetune_run(learner(), config, images(), **settings)


def weights_path(config):
    return pathlib.Path(finetune.finetuned_path(learner(), config))


def weights(config):
    student = network()
    student.load_weights(weights_path(config))
    return student.get_weights()


def rows(config):
    log = weights_path(config).with_name("metrics.jsonl")
    return untimed(json.loads(line) for line in log.read_text().splitlines())


def evaluations(config):
    return [row for row in rows(config) if "eval/accuracy" in row]


def assert_same(config, other):
    """The same log and weights, and nothing left over."""
    assert rows(config) == rows(other)
    for one, two in zip(weights(config), weights(other), strict=True):
        np.testing.assert_array_equal(one, two)
    path = weights_path(config)
    left = {"events", "metrics.jsonl", path.name, f"{path.name}.json"}
    assert set(os.listdir(path.parent)) == left
