"""Learners of every method in float32, with all that a step may contain."""

import keras
import numpy as np
import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.learners import (
    UDA,
    MetaPseudoLabels,
    PseudoLabels,
    ReducedMPL,
    Supervised,
    UDASettings,
)
from meta_pseudo_labels.learners.feedback import ESTIMATORS
from meta_pseudo_labels.models.batch_norm import BatchNorm
from meta_pseudo_labels.models.dropout import Dropout
from tests.learners.helpers import CLASSES, batch

UDA_SETTINGS = UDASettings(
    weight=2.0, ramp_steps=2, threshold=0.3, num_train_steps=10
)
COMMON = dict(label_smoothing=0.1, ema_decay=0.9, log_every=1, seed=7)


def conv_net(name, dtype):
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, use_bias=False, dtype=dtype),
            BatchNorm(momentum=0.9, dtype=dtype),
            keras.layers.Activation("tanh", dtype=dtype),
            keras.layers.GlobalAveragePooling2D(dtype=dtype),
            Dropout(0.3, seed=5, dtype=dtype),
            keras.layers.Dense(CLASSES, dtype="float32"),
        ],
        name=name,
    )


def built(model_type, **settings):
    """A function like `conv_net`, to a network by its name."""
    return lambda name, dtype: models.build(
        model_type,
        input_shape=(6, 6, 2),
        num_classes=CLASSES,
        name=name,
        dtype=dtype,
        **settings,
    )


NETWORKS = {
    "conv net": conv_net,
    "wrn-10-1": built("wrn-10-1", dropout_rate=0.3),
    "efficientnet": built(
        "efficientnet-bs", small_images=True, stochastic_depth_drop_rate=0.3
    ),
}


def meta(feedback, **settings):
    """A function from two networks to Meta Pseudo Labels with an estimator."""
    settings = dict(uda=UDA_SETTINGS, feedback_weight=5.0) | settings
    return lambda student, teacher: MetaPseudoLabels(
        student(), teacher(), feedback=feedback, **settings, **COMMON
    )


# Functions of two functions that make a network, student and teacher.
BUILDERS = {
    "supervised": lambda student, _: Supervised(student(), **COMMON),
    "pseudo labels": lambda student, _: PseudoLabels(
        student(), pseudo_labels="sampled", **COMMON
    ),
    "uda": lambda student, _: UDA(student(), uda=UDA_SETTINGS, **COMMON),
    "reduced": lambda student, _: ReducedMPL(
        student(),
        models.reduced_teacher(num_classes=CLASSES, hidden_sizes=(8,)),
        **COMMON,
    ),
    **{name: meta(name) for name in ESTIMATORS},
    "hard labels, quirks": meta(
        "reinforce",
        pseudo_labels="hard",
        uda=None,
        update_teacher_moments=False,
    ),
}


def build_learner(name, *, network="conv net", dtype="float32"):
    """A learner by its name, not compiled, always the same one."""
    build = BUILDERS[name] if isinstance(name, str) else name
    keras.utils.set_random_seed(3)
    return build(
        *[
            lambda role=role: NETWORKS[network](role, dtype)
            for role in ("student", "teacher")
        ]
    )


def batches(name, *, steps, labeled=4, unlabeled=6):
    """Global batches with all that a learner by its name may need."""
    parts = []
    for seed in range(steps):
        random = np.random.default_rng(seed)
        part = batch(
            labeled=labeled, unlabeled=unlabeled, dtype="float32", seed=seed
        )
        for kind, count in (("labeled", labeled), ("unlabeled", unlabeled)):
            rows = random.dirichlet(np.ones(CLASSES), size=count)
            part[f"{kind}_distributions"] = rows.astype("float32")
        if name == "reinforce_cosine":  # One that is judged on other images.
            held_out = batch(labeled=3, unlabeled=1, dtype="float32", seed=9)
            part["feedback"] = held_out["labeled"]
            part["feedback_labels"] = held_out["labels"]
        parts.append(part)
    stacked = {key: np.stack([p[key] for p in parts]) for key in parts[0]}
    return tf.data.Dataset.from_tensor_slices(stacked)
