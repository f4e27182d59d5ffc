"""Networks: builders from numbers, and a table of names.

    student = models.build("wrn-28-2", input_shape=(32, 32, 3), num_classes=10)

Every model is a functional `keras.Model` that gives logits, not probabilities.
"""

import re

from meta_pseudo_labels.models.mlp import mlp
from meta_pseudo_labels.models.wide_resnet import (
    blocks_per_stage,
    first_stage_filters,
    release_variable_name,
    wide_resnet,
)

__all__ = [
    "WIDE_RESNETS",
    "build",
    "check_model_type",
    "mlp",
    "release_variable_name",
    "wide_resnet",
]

# Those that the pattern wrn-<depth>-<k> does not cover (quirk 23).
WIDE_RESNETS = {
    "wrn-28-large": dict(depth=28, width=135 / 16, stem_filters=16),
}


def build(
    model_type,
    *,
    input_shape,
    num_classes,
    dropout_rate=0.0,
    batch_norm_decay=0.99,
    batch_norm_epsilon=1e-3,
    name=None,
    dtype=None,
):
    """Builds a network by name.

    Args:
      model_type: "wrn-<depth>-<k>" such as "wrn-28-2", "wrn-28-large", or
        "mlp" (two hidden layers of 128 units).
      input_shape: shape of one example, (height, width, channels) for images.
      num_classes: number of logits, 2 or more.
      dropout_rate: before the last layer, in [0, 1).
      batch_norm_decay: of the moving averages; "mlp" has none.
      batch_norm_epsilon: added to the variance; "mlp" has none.
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
    if model_type == "mlp":
        return mlp(**settings)
    return wide_resnet(
        **_wide_resnet_sizes(model_type),
        batch_norm_decay=batch_norm_decay,
        batch_norm_epsilon=batch_norm_epsilon,
        **settings,
    )


def check_model_type(model_type):
    """Raises ValueError for a name that `build` would refuse."""
    if model_type != "mlp":
        sizes = _wide_resnet_sizes(model_type)
        blocks_per_stage(sizes["depth"])
        first_stage_filters(sizes["width"])


def _wide_resnet_sizes(model_type):
    """Depth and width, as keyword arguments, of a wide ResNet's name."""
    if model_type in WIDE_RESNETS:
        return WIDE_RESNETS[model_type]
    sizes = re.fullmatch(r"wrn-(\d+)-(\d+)", model_type)
    if not sizes:
        known = ", ".join(["mlp", "wrn-<depth>-<k>", *WIDE_RESNETS])
        raise ValueError(
            f"Unknown model_type {model_type!r}. Known: {known} "
            "(for example wrn-28-2)."
        )
    return dict(depth=int(sizes[1]), width=int(sizes[2]))
