"""A small multi-layer perceptron, for points, toy images and tests."""

import keras

from meta_pseudo_labels.models.head import classification_head


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
    x = keras.layers.Flatten(name="flatten", dtype=policy)(inputs)
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
        kernel_initializer=_fresh(kernel_initializer),
        dtype=policy,
    )
    return keras.Model(inputs, logits, name=name)


def hidden_layers(x, *, hidden_sizes, activation, kernel_initializer, dtype):
    """Dense layers one after another; see `mlp` for the arguments.

    Args:
      x: [batch, features] symbolic Keras tensor.

    Returns:
      [batch, hidden_sizes[-1]] symbolic tensor.

    Raises:
      ValueError: for a size that is not positive.
    """
    if any(size < 1 for size in hidden_sizes):
        raise ValueError(
            f"hidden_sizes must be positive, got {tuple(hidden_sizes)}."
        )
    for number, size in enumerate(hidden_sizes, start=1):
        x = keras.layers.Dense(
            size,
            activation=activation,
            kernel_initializer=_fresh(kernel_initializer),
            name=f"hidden_{number}.dense",
            dtype=dtype,
        )(x)
    return x


def _fresh(initializer):
    """A new copy, because one unseeded instance repeats its numbers."""
    return keras.initializers.get(initializer).clone()
