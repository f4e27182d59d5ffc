"""The small teacher of Reduced Meta Pseudo Labels."""

import math

import keras

from meta_pseudo_labels.models.dense import classification_head, hidden_layers

# Five layers (Reduced MPL); the teacher's name if none is given.
REDUCED_TEACHER = "mlp-5-128"

# Least probability that is distinguished from 0.
_FLOOR = 1e-8


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class LogProbabilities(keras.layers.Layer):
    """Logarithms of probabilities; of `floor` for those below it."""

    def __init__(self, floor=_FLOOR, **kwargs):
        super().__init__(**kwargs)
        self.floor = floor

    def call(self, inputs):
        return keras.ops.log(keras.ops.maximum(inputs, self.floor))

    def get_config(self):
        return {**super().get_config(), "floor": self.floor}


def reduced_teacher(
    *,
    num_classes,
    hidden_sizes=(128, 128, 128, 128),
    dropout_rate=0.0,
    name=None,
    dtype=None,
):
    """Builds a multi-layer perceptron that adjusts class distributions.

    Its logits are the logarithms of the distribution plus the perceptron's
    output. The last layer starts at zero, so that at first the answer is the
    large teacher's own: most of what a reduced teacher does is close to the
    identity (Pham et al. 2021, Reduced Meta Pseudo Labels). Weight decay then
    pulls it back towards that teacher.

    The perceptron also sees logarithms, scaled from 0 (floor) to 1 (certain):
    probabilities themselves hardly differ when a teacher is sure.

    Args:
      num_classes: entries of a distribution, 2 or more.
      hidden_sizes: units of each hidden layer, at least one.
      dropout_rate: before the last layer, in [0, 1).
      name: of the model.
      dtype: of the layers, float32 or float64; None is the global policy.

    Returns:
      A functional `keras.Model` from distributions, [batch, num_classes], to
      logits, [batch, num_classes].

    Raises:
      ValueError: for a size, a number of classes or a rate out of range.
    """
    if not hidden_sizes:
        raise ValueError("hidden_sizes is empty; give one size or more.")
    policy = keras.dtype_policies.get(dtype)
    inputs = keras.Input(
        [num_classes], dtype=policy.variable_dtype, name="distribution"
    )
    logits = LogProbabilities(name="log", dtype=policy)(inputs)
    x = keras.layers.Rescaling(
        -1 / math.log(_FLOOR), offset=1.0, name="scale", dtype=policy
    )(logits)
    x = hidden_layers(
        x,
        hidden_sizes=hidden_sizes,
        activation="relu",
        kernel_initializer="he_normal",
        dtype=policy,
    )
    adjustment = classification_head(
        x,
        num_classes=num_classes,
        dropout_rate=dropout_rate,
        kernel_initializer="zeros",
        dtype=policy,
    )
    logits = keras.layers.Add(name="adjust", dtype=policy)([logits, adjustment])
    return keras.Model(inputs, logits, name=name)
