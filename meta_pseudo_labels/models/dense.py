"""Dense layers: hidden ones, and the one that every classifier ends with."""

import keras
import tensorflow as tf

from meta_pseudo_labels.models import initializers
from meta_pseudo_labels.models.dropout import Dropout, check_rate
from meta_pseudo_labels.utils import compat


def hidden_layers(x, *, hidden_sizes, activation, kernel_initializer, dtype):
    """Dense layers one after another.

    Args:
      x: [batch, features] symbolic Keras tensor.
      hidden_sizes: units of each layer, first to last; may be empty.
      activation: a Keras name or function.
      kernel_initializer: a Keras name or initializer.
      dtype: dtype or policy of the layers.

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
            kernel_initializer=initializers.fresh(kernel_initializer),
            name=f"hidden_{number}.dense",
            dtype=dtype,
        )(x)
    return x


def classification_head(
    features,
    *,
    num_classes,
    dropout_rate=0.0,
    kernel_initializer=None,
    use_bias=True,
    dtype=None,
):
    """Dropout, then logits of flat features, never in less than float32.

    Args:
      features: [batch, channels] symbolic Keras tensor.
      num_classes: number of logits, 2 or more.
      dropout_rate: share of the features set to 0 in training, in [0, 1).
        With 0 there is no dropout layer.
      kernel_initializer: default: the release's (quirk 24).
      use_bias: whether each logit has a bias.
      dtype: dtype or policy of the network; None is the global policy.

    Returns:
      [batch, num_classes] symbolic tensor: float64 if the network computes in
      float64, otherwise float32.

    Raises:
      ValueError: for a number of classes or a rate out of range.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be 2 or more, got {num_classes}.")
    policy = keras.dtype_policies.get(dtype)
    if check_rate("dropout_rate", dropout_rate):
        features = Dropout(dropout_rate, name="head.dropout", dtype=policy)(
            features
        )
    return keras.layers.Dense(
        num_classes,
        kernel_initializer=kernel_initializer or initializers.dense_kernel(),
        use_bias=use_bias,
        name="head.dense",
        dtype="float64" if policy.compute_dtype == "float64" else "float32",
    )(features)


def backbone_weights(model):
    """The trainable weights of a classifier, except those of its head.

    The head is the last layers with weights on the way to the logits: usually
    a Dense layer, also inside a model that is the last layer of another.

    Args:
      model: a built Keras model that returns logits, [batch, classes].

    Raises:
      ValueError: if it cannot be told which layer makes the logits, or there
        is nothing before it.
    """
    heads = _heads(model)
    in_head = {id(w) for layer in heads for w in layer.weights}
    classes = getattr(model, "output_shape", (None,))[-1]
    found = [w for w in model.trainable_variables if id(w) not in in_head]
    makes_logits = heads and all(
        classes in (None, layer.weights[0].shape[-1]) for layer in heads
    )
    if not makes_logits or not found:
        raise ValueError(
            f"The network {model.name!r} has no backbone apart from its head: "
            + (
                "all its weights are in the layer that makes the logits."
                if makes_logits
                else "it cannot be told which layer makes the logits. End it "
                "with a Dense layer."
            )
        )
    return found


def _heads(model):
    """The last layers with weights, by the graph or else by their order."""
    outputs = getattr(model, "outputs", None)
    if outputs:
        return [x for output in outputs for x in _makers(output)]
    for layer in reversed(model.layers):
        if layer.weights:
            inner = getattr(layer, "layers", None)
            return _heads(layer) if inner else [layer]
    return []


def _makers(tensor):
    """The nearest layers with weights that a symbolic tensor comes from."""
    layer, index = compat.producer(tensor)
    if isinstance(layer, keras.Model) and getattr(layer, "outputs", None):
        return _makers(layer.outputs[index])
    if getattr(layer, "weights", None):
        return _heads(layer) if isinstance(layer, keras.Model) else [layer]
    if isinstance(layer, keras.layers.InputLayer):
        return []
    inputs = tf.nest.flatten(layer.input)
    return [maker for x in inputs for maker in _makers(x)]
