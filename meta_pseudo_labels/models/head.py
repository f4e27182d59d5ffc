"""What every classifier ends with: dropout, then one dense layer."""

import keras

from meta_pseudo_labels.models import initializers
from meta_pseudo_labels.models.dropout import Dropout


def classification_head(
    features,
    *,
    num_classes,
    dropout_rate=0.0,
    kernel_initializer=None,
    dtype=None,
):
    """Logits of flat features, never in less than float32.

    Args:
      features: [batch, channels] symbolic Keras tensor.
      num_classes: number of logits, 2 or more.
      dropout_rate: share of the features set to 0 in training, in [0, 1).
        With 0 there is no dropout layer.
      kernel_initializer: default: the release's (quirk 24).
      dtype: dtype or policy of the network; None is the global policy.

    Returns:
      [batch, num_classes] symbolic tensor: float64 if the network computes in
      float64, otherwise float32.

    Raises:
      ValueError: for a number of classes or a rate out of range.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be 2 or more, got {num_classes}.")
    if not 0 <= dropout_rate < 1:
        raise ValueError(f"dropout_rate must be in [0, 1), got {dropout_rate}.")
    policy = keras.dtype_policies.get(dtype)
    if dropout_rate > 0:
        features = Dropout(dropout_rate, name="head.dropout", dtype=policy)(
            features
        )
    return keras.layers.Dense(
        num_classes,
        kernel_initializer=kernel_initializer or initializers.dense_kernel(),
        name="head.dense",
        dtype="float64" if policy.compute_dtype == "float64" else "float32",
    )(features)
