"""Networks: builders from numbers, and a table of names.

    student = models.build("wrn-28-2", input_shape=(32, 32, 3), num_classes=10)

Every model is a functional `keras.Model` that gives logits, not probabilities.
"""

import difflib
import re

from meta_pseudo_labels.models.applications import (
    application,
    application_names,
)
from meta_pseudo_labels.models.batch_norm import BatchNorm
from meta_pseudo_labels.models.efficientnet import efficientnet
from meta_pseudo_labels.models.layers import release_variable_name
from meta_pseudo_labels.models.mlp import mlp
from meta_pseudo_labels.models.reduced_teacher import reduced_teacher
from meta_pseudo_labels.models.remat import Rematerialized, rematerialized
from meta_pseudo_labels.models.resnet import resnet
from meta_pseudo_labels.models.stochastic_depth import StochasticDepth
from meta_pseudo_labels.models.wide_resnet import (
    blocks_per_stage,
    first_stage_filters,
    wide_resnet,
)

__all__ = [
    "EFFICIENTNETS",
    "REDUCED_TEACHER",
    "RESNETS",
    "WIDE_RESNETS",
    "BatchNorm",
    "Rematerialized",
    "StochasticDepth",
    "application",
    "application_names",
    "build",
    "check_model_type",
    "efficientnet",
    "has_blocks",
    "mlp",
    "mlp_hidden_sizes",
    "reduced_teacher",
    "release_scope",
    "release_variable_name",
    "rematerialized",
    "resnet",
    "wide_resnet",
]

# Those that the pattern wrn-<depth>-<k> does not cover (quirk 23).
WIDE_RESNETS = {
    "wrn-28-large": dict(depth=28, width=135 / 16, stem_filters=16),
}

# Of the patterns, for who is near to one.
_EXAMPLES = (
    "mlp",
    "mlp-5-128",
    "wrn-10-1",
    "wrn-16-8",
    "wrn-28-2",
    "wrn-28-10",
    "wrn-40-2",
    *WIDE_RESNETS,
)

# Five layers (Reduced MPL); the name of the teacher where none is given.
REDUCED_TEACHER = "mlp-5-128"

RESNETS = {"resnet-50": dict(blocks_per_stage=(3, 4, 6, 3))}

EFFICIENTNETS = {
    "efficientnet-bs": dict(width=0.5, depth=1.0),
    "efficientnet-b0": dict(width=1.0, depth=1.0),
    "efficientnet-b1": dict(width=1.0, depth=1.1),
    "efficientnet-b2": dict(width=1.1, depth=1.2),
    "efficientnet-b3": dict(width=1.2, depth=1.4),
    "efficientnet-b4": dict(width=1.4, depth=1.8),
    "efficientnet-b5": dict(width=1.6, depth=2.2),
    "efficientnet-b6": dict(width=1.8, depth=2.6),
    "efficientnet-b7": dict(width=2.0, depth=3.1),
    "efficientnet-b8": dict(width=2.2, depth=3.6),
    "efficientnet-l2": dict(width=4.3, depth=5.3),
    "efficientnet-b5-mpl": dict(width=5.0, depth=2.2),
    "efficientnet-b6-mpl": dict(width=5.0, depth=2.6),
}


def build(
    model_type,
    *,
    input_shape,
    num_classes,
    dropout_rate=0.0,
    batch_norm_decay=0.99,
    batch_norm_epsilon=1e-3,
    batch_norm_batch_size=None,
    stochastic_depth_drop_rate=0.0,
    small_images=False,
    name=None,
    dtype=None,
):
    """Builds a network by name.

    A setting that a network does not have is passed over, as in the release.

    Args:
      model_type: "wrn-<depth>-<k>" such as "wrn-28-2", a name in WIDE_RESNETS,
        RESNETS or EFFICIENTNETS, "mlp" (two hidden layers of 128 units),
        "mlp-<layers>-<width>" (the last of the layers gives the logits), or a
        network of `keras.applications` by its class, such as "MobileNetV2".
      input_shape: shape of one example, (height, width, channels) for images.
      num_classes: number of logits, 2 or more.
      dropout_rate: before the last layer, in [0, 1).
      batch_norm_decay: of the moving averages. This and the next two: not for
        "mlp...", which have no batch norm, nor for `keras.applications`.
      batch_norm_epsilon: added to the variance.
      batch_norm_batch_size: images that share their statistics, over more
        than 8 replicas; see `BatchNorm`.
      stochastic_depth_drop_rate: for EFFICIENTNETS; see `efficientnet`.
      small_images: for EFFICIENTNETS; see `efficientnet`.
      name: of the model; default: `model_type`.
      dtype: dtype or policy of the layers; None is the global policy.

    Returns:
      A functional `keras.Model` from [batch, *input_shape] to logits
      [batch, num_classes].

    Raises:
      ValueError: for an unknown name or a number out of range.
    """
    settings = dict(
        input_shape=input_shape,
        num_classes=num_classes,
        dropout_rate=dropout_rate,
        name=name or model_type,
        dtype=dtype,
    )
    hidden_sizes = mlp_hidden_sizes(model_type)
    if hidden_sizes is not None:
        return mlp(hidden_sizes=hidden_sizes, **settings)
    if model_type in application_names():
        return application(model_type, **settings)
    settings.update(
        batch_norm_decay=batch_norm_decay,
        batch_norm_epsilon=batch_norm_epsilon,
        batch_norm_batch_size=batch_norm_batch_size,
    )
    if model_type in RESNETS:
        return resnet(**RESNETS[model_type], **settings)
    if model_type in EFFICIENTNETS:
        return efficientnet(
            **EFFICIENTNETS[model_type],
            stochastic_depth_drop_rate=stochastic_depth_drop_rate,
            small_images=small_images,
            **settings,
        )
    return wide_resnet(**_wide_resnet_sizes(model_type), **settings)


def check_model_type(model_type):
    """Raises ValueError for a name that `build` would refuse."""
    others = (*RESNETS, *EFFICIENTNETS, *application_names())
    if model_type not in others and mlp_hidden_sizes(model_type) is None:
        sizes = _wide_resnet_sizes(model_type)
        blocks_per_stage(sizes["depth"])
        first_stage_filters(sizes["width"])


def has_blocks(model_type):
    """Whether `rematerialized` takes what `build` makes of a name."""
    return (
        mlp_hidden_sizes(model_type) is None
        and model_type not in application_names()
    )


def mlp_hidden_sizes(model_type):
    """Units of each hidden layer of a perceptron's name; None for others.

    >>> mlp_hidden_sizes("mlp-5-128")
    (128, 128, 128, 128)
    """
    if model_type == "mlp":
        return (128, 128)
    sizes = re.fullmatch(r"mlp-([1-9]\d?)-([1-9]\d*)", model_type)
    return sizes and (int(sizes[2]),) * (int(sizes[1]) - 1)


def release_scope(model_type):
    """The first part of a network's variable names in the release.

    >>> release_scope("wrn-28-large")
    'wrn-28-135'

    All others are called by their own names.
    """
    return "wrn-28-135" if model_type == "wrn-28-large" else model_type


def _wide_resnet_sizes(model_type):
    """Depth and width, as keyword arguments, of a wide ResNet's name."""
    if model_type in WIDE_RESNETS:
        return WIDE_RESNETS[model_type]
    sizes = re.fullmatch(r"wrn-(\d+)-(\d+)", model_type)
    if not sizes:
        raise ValueError(_what_is_known(model_type))
    return dict(depth=int(sizes[1]), width=int(sizes[2]))


def _what_is_known(model_type):
    """What to tell of an unknown name: the nearest ones, and the families."""
    names = {name.lower(): name for name in application_names()}
    names |= {name: name for name in (*RESNETS, *EFFICIENTNETS, *_EXAMPLES)}
    near = difflib.get_close_matches(model_type.lower(), names, n=3)
    meant = ", ".join(names[name] for name in near)
    return (
        f"Unknown model_type {model_type!r}."
        + (f" Did you mean one of: {meant}?" if meant else "")
        + " Known: mlp, mlp-<layers>-<width>, wrn-<depth>-<k>, resnet-50, "
        "efficientnet-<bs, b0 to b8, l2>, and the networks of "
        "keras.applications by their classes, such as MobileNetV2."
    )
