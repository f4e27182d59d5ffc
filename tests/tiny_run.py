"""A whole run small enough for a test, and what it leaves."""

import json

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.metrics_log import TIMES


def tiny(folder, **settings):
    """Four steps with everything in them that a step can draw on."""
    defaults = dict(
        output_dir=str(folder),
        model_type="mlp",
        num_train_steps=4,
        save_every=2,
        log_every=1,
        train_batch_size=4,
        eval_batch_size=250,
        uda_data=2,
        uda_steps=2,
        uda_threshold=0.0,
        dense_dropout_rate=0.3,
        ema_decay=0.9,
        mpl_student_lr=1.0,
        mpl_student_lr_wait_steps=1,
        mpl_student_lr_warmup_steps=1,
        mpl_teacher_lr=1.0,
        mpl_teacher_lr_warmup_steps=1,
        finetune_steps=2,
        finetune_lr=0.1,
        progress=False,
    )
    return Config(**defaults | settings)


def rows(config):
    with open(f"{config.output_dir}/metrics.jsonl") as file:
        return untimed(json.loads(line) for line in file)


def untimed(rows):
    """Rows of metrics.jsonl without what differs however equal two runs are."""
    return [
        {name: value for name, value in row.items() if name not in TIMES}
        for row in rows
    ]


def weights(config):
    """Every tensor of the latest checkpoint, by its name there."""
    folder = f"{config.output_dir}/checkpoints"
    saved = tf.train.load_checkpoint(folder)
    return {
        name: saved.get_tensor(name)
        for name in saved.get_variable_to_shape_map()
        if "save_counter" not in name and "OBJECT_GRAPH" not in name
    }


def assert_same_weights(config, other):
    """The latest checkpoints of two runs hold the same, to the last bit."""
    got, want = weights(config), weights(other)
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
