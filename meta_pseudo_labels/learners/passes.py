"""Passes through a model: inputs, logits, labels and gradients."""

import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.learners.slices import forward_in_slices
from meta_pseudo_labels.models.stateless import call_with


def forward_together(model, *views, update_moments=True, slices=1):
    """Training-mode logits of several batches in one call (quirk 1).

    So batch norm sees them as one batch.

    Args:
      model: see `forward`.
      *views: batches of inputs, which may be nested.
      update_moments: see `forward`.
      slices: of how many joint batches; see `forward_in_slices`.

    Returns:
      The logits of each batch, a list of [.., classes].
    """
    if slices > 1:
        logits = forward_in_slices(
            model, views, slices=slices, update_moments=update_moments
        )
        return [tf.cast(part, float_type(model)) for part in logits]
    sizes = [_batch_size(view) for view in views]
    inputs = tf.nest.map_structure(lambda *x: tf.concat(x, axis=0), *views)
    with replicas.joint_batch(*sizes):
        logits = forward(model, inputs, update_moments=update_moments)
    return tf.split(logits, sizes)


def _batch_size(inputs):
    first = tf.nest.flatten(inputs)[0]
    return first.shape[0] or tf.shape(first)[0]


def forward(model, inputs, *, update_moments=True, slices=1):
    """Training-mode logits, at least float32 whatever the model's policy.

    Args:
      model: returns logits, [batch, classes].
      inputs: of the model.
      update_moments: whether batch norm's moving averages move. The states of
        random seeds always do, so that dropout stays random.
      slices: into which the batch is cut; see `forward_in_slices`.
    """
    if slices > 1:
        (logits,) = forward_together(
            model, inputs, update_moments=update_moments, slices=slices
        )
        return logits
    if update_moments:
        outputs = model(inputs, training=True)
    else:
        outputs, states, _ = call_with(model, {}, inputs, training=True)
        for variable, state in zip(
            model.non_trainable_variables, states, strict=True
        ):
            if "float" not in variable.dtype:
                variable.assign(state)
    models.check_logits(outputs, owner=f"The model {model.name!r}")
    return tf.cast(outputs, float_type(model))


def own_losses(model):
    """Regularizers and `add_loss` of a model's last forward pass, scalar."""
    losses = [tf.cast(loss, float_type(model)) for loss in model.losses]
    return tf.add_n(losses) if losses else tf.zeros([], float_type(model))


def float_type(model):
    """Type of a model's losses: float64 where its weights are, else float32."""
    weights = model.trainable_variables[0].dtype
    return "float64" if weights == "float64" else "float32"


def label_probabilities(labels, logits):
    """Labels as probabilities of the type of the logits, [batch, classes].

    Args:
      labels: class numbers, [batch] or [batch, 1] integers, or probabilities,
        [batch, classes] floats.
      logits: [batch, classes].

    Raises:
      ValueError: for labels of another shape.
    """
    labels, classes = tf.convert_to_tensor(labels), logits.shape[-1]
    if labels.dtype.is_floating and labels.shape[1:] == [classes]:
        return tf.cast(labels, logits.dtype)
    if labels.dtype.is_integer and labels.shape[1:] in ([], [1]):
        labels = tf.reshape(labels, [-1])
        numbers = tf.cast(labels, tf.int64)
        why = f"A label is not among the {classes} classes of the model."
        checks = [
            tf.debugging.assert_less(
                numbers, tf.constant(classes, tf.int64), why
            ),
            # One-hot would take it for no class at all, and the loss for 0.
            tf.debugging.assert_non_negative(numbers, why),
        ]
        with tf.control_dependencies([c for c in checks if c is not None]):
            return tf.one_hot(labels, classes, dtype=logits.dtype)
    raise ValueError(
        f"labels must be integers, [batch], or floats, [batch, {classes}]; "
        f"got {labels.dtype.name} of shape {labels.shape}."
    )


def gradients_of(tape, loss, model):
    """Dense gradients for every trainable weight, zero where unused."""
    gradients = tape.gradient(
        loss,
        [v.value for v in model.trainable_variables],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return [tf.convert_to_tensor(g) for g in gradients]
