"""A small multi-layer perceptron, for points, toy images and tests."""

import itertools
import math
import re

import keras

from meta_pseudo_labels.models import initializers
from meta_pseudo_labels.models.dense import classification_head, hidden_layers
from meta_pseudo_labels.models.families import FAMILIES, Family
from meta_pseudo_labels.models.layers import CHANNELS_LAST

_DIGITS = 6  # At most, in the units of a layer.


def mlp(
    *,
    input_shape,
    num_classes,
    hidden_sizes=(128, 128),
    activation="relu",
    kernel_initializer="he_normal",
    dropout_rate=0.0,
    name=None,
    dtype=None,
):
    """Builds dense layers on flattened input.

    Args:
      input_shape: shape of one example, such as (2,) or (32, 32, 3).
      num_classes: number of logits, 2 or more.
      hidden_sizes: units of each hidden layer, first to last; may be empty.
      activation: of the hidden layers; a Keras name or function.
      kernel_initializer: of all layers; a Keras name or initializer.
      dropout_rate: before the last layer, in [0, 1).
      name: of the model.
      dtype: dtype or policy of the layers; None is the global policy.

    Returns:
      A functional `keras.Model` from [batch, *input_shape] to logits
      [batch, num_classes].

    Raises:
      ValueError: for a size, a number of classes or a rate out of range.
    """
    policy = keras.dtype_policies.get(dtype)
    inputs = keras.Input(input_shape, dtype=policy.variable_dtype, name="input")
    x = keras.layers.Flatten(
        name="flatten", data_format=CHANNELS_LAST, dtype=policy
    )(inputs)
    x = hidden_layers(
        x,
        hidden_sizes=hidden_sizes,
        activation=activation,
        kernel_initializer=kernel_initializer,
        dtype=policy,
    )
    logits = classification_head(
        x,
        num_classes=num_classes,
        dropout_rate=dropout_rate,
        kernel_initializer=initializers.fresh(kernel_initializer),
        dtype=policy,
    )
    return keras.Model(inputs, logits, name=name)


def mlp_hidden_sizes(model_type):
    """Units of each hidden layer in a perceptron's name; None for others.

    >>> mlp_hidden_sizes("mlp-5-128")
    (128, 128, 128, 128)
    """
    if model_type == "mlp":
        return (128, 128)
    sizes = re.fullmatch(r"mlp-([1-9]\d?)-([1-9]\d*)", model_type)
    if sizes and len(sizes[2]) > _DIGITS:
        raise ValueError(
            f"{model_type[:40]}: a layer must have fewer than {10**_DIGITS} "
            "units."
        )
    return sizes and (int(sizes[2]),) * (int(sizes[1]) - 1)


@FAMILIES.register("mlp")
class Perceptrons(Family):
    known = "mlp, mlp-<layers>-<width>"
    examples = ("mlp", "mlp-5-128")
    builder = staticmethod(mlp)

    @staticmethod
    def sizes(model_type):
        hidden_sizes = mlp_hidden_sizes(model_type)
        return None if hidden_sizes is None else dict(hidden_sizes=hidden_sizes)

    @staticmethod
    def weights(sizes, *, input_shape, num_classes):
        units = (math.prod(input_shape), *sizes["hidden_sizes"], num_classes)
        return sum(a * b for a, b in itertools.pairwise(units))
