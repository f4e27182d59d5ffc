"""Passes through a model: inputs, logits, labels and gradients."""

import contextlib
import math
import re
from typing import NamedTuple

import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.learners.slices import forward_in_slices
from meta_pseudo_labels.models.stateless import LossScope, call_with
from meta_pseudo_labels.utils import compat

LABEL_ERROR = "Labels: "  # How assertions about them begin.
WEAK_PASSES = ("joint", "apart")


def forward_together(model, *views, update_moments=True, slices=1, dtype=None):
    """Training-mode logits of several batches in one call (quirk 1).

    So batch norm sees them as one batch.

    Args:
      model: see `forward`.
      *views: batches of inputs, which may be nested.
      update_moments: see `forward`.
      slices: number of joint batches; see `forward_in_slices`.
      dtype: float type of the logits; by default `float_type`.

    Returns:
      The logits of each batch, a list of [.., classes].
    """
    dtype = dtype or float_type(model)
    if slices > 1:
        logits = forward_in_slices(
            model, views, slices=slices, update_moments=update_moments
        )
        _keep_losses(model, [])
        return [tf.cast(part, dtype) for part in logits]
    sizes = [_batch_size(view) for view in views]
    inputs = tf.nest.map_structure(lambda *x: tf.concat(x, axis=0), *views)
    with replicas.joint_batch(*sizes):
        logits = forward(model, inputs, update_moments=update_moments)
    return tf.split(tf.cast(logits, dtype), sizes)


class ViewLogits(NamedTuple):
    """Logits of the views, each [.., classes]; weak is None if unused."""

    labeled: tf.Tensor
    weak: tf.Tensor | None
    strong: tf.Tensor


def forward_views(model, batch, *, weak_pass="joint", **settings):
    """Training-mode logits of labeled, weak and strong views (quirk 1).

    Args:
      model: see `forward`.
      batch: see `Learner`.
      weak_pass: "joint", or "apart": weak views pass first and alone, with
        moments of their own, and no gradient goes back through them.
      **settings: of `forward_together`.
    """
    views = (batch["labeled"], batch["weak"], batch["strong"])
    if weak_pass == "joint":
        return ViewLogits(*forward_together(model, *views, **settings))
    labeled, weak, strong = views
    (weak,) = forward_together(model, weak, **settings)
    labeled, strong = forward_together(model, labeled, strong, **settings)
    return ViewLogits(labeled, tf.stop_gradient(weak), strong)


def view_passes(settings, *, apart):
    """The passes of `forward_views`, see `Method.passes`."""
    if not apart:
        return {1 + 2 * settings.uda_data}
    return {1 + settings.uda_data, settings.uda_data}


def check_weak_pass(weak_pass):
    """Raises ValueError for a name that `forward_views` does not know."""
    if weak_pass not in WEAK_PASSES:
        raise ValueError(
            f"weak_pass is {weak_pass!r}; choose one of "
            f"{', '.join(WEAK_PASSES)}."
        )


def _batch_size(inputs):
    first = tf.nest.flatten(inputs)[0]
    return first.shape[0] or tf.shape(first)[0]


def forward(model, inputs, *, update_moments=True, slices=1):
    """Training-mode logits, at least float32 whatever the model's policy.

    Args:
      model: returns logits, [batch, classes].
      inputs: of the model.
      update_moments: whether batch norm's moving averages move, and other
        states of layers. Those of random seeds always do, so that dropout stays
        random.
      slices: number of slices of the batch; see `forward_in_slices`.
    """
    if slices > 1:
        (logits,) = forward_together(
            model, inputs, update_moments=update_moments, slices=slices
        )
        return logits
    if update_moments:
        with LossScope() as scope:
            outputs = model(inputs, training=True)
        _keep_losses(model, scope.losses)
    else:
        _keep_losses(model, [])
        outputs, states, _ = call_with(model, {}, inputs, training=True)
        seeds = compat.seed_states(model)
        for variable, state in zip(
            model.non_trainable_variables, states, strict=True
        ):
            if id(variable) in seeds:
                variable.assign(state)
    models.check_logits(
        outputs,
        owner=f"The model {model.name!r}",
        rows=tf.nest.flatten(inputs)[0].shape[0],
    )
    return tf.cast(outputs, float_type(model))


def _keep_losses(model, losses):
    """Keeps the losses of a pass of this replica, hidden from Keras."""
    vars(model).setdefault("_kept_losses", {})[replicas.number()] = losses


def own_losses(model, dtype=None):
    """Regularizers and `add_loss` of a model's last forward pass, scalar."""
    dtype = dtype or float_type(model)
    kept = vars(model).get("_kept_losses", {}).get(replicas.number(), [])
    losses = [tf.cast(loss, dtype) for loss in (*kept, *model.losses)]
    return tf.add_n(losses) if losses else tf.zeros([], dtype)


def float_type(model):
    """Type of a model's losses: float64 if a weight is, otherwise float32."""
    types = {variable.dtype for variable in model.trainable_variables}
    return "float64" if "float64" in types else "float32"


def label_probabilities(labels, logits):
    """Labels as probabilities of the type of the logits, [batch, classes].

    If a label is invalid, an assertion fails; XLA leaves assertions out, so
    there the row is NaN, and no step is taken on it.

    Args:
      labels: class numbers, [batch] or [batch, 1] integers, or probabilities,
        [batch, classes] floats.
      logits: [batch, classes].

    Raises:
      ValueError: for labels of another shape.
    """
    labels, classes = tf.convert_to_tensor(labels), logits.shape[-1]
    rows, wanted = labels.shape[:1], logits.shape[:1]
    if not rows.is_compatible_with(wanted):
        raise ValueError(
            "There must be a label for each input; got labels of shape "
            f"{labels.shape} for {wanted[0]} inputs."
        )
    if labels.dtype.is_floating and labels.shape[1:] == [classes]:
        targets = _sound_probabilities(tf.cast(labels, logits.dtype))
    elif _is_number(labels) and labels.shape[1:] in ([], [1]):
        numbers = tf.cast(tf.reshape(labels, [-1]), tf.int64)
        targets = _sound_one_hot(numbers, classes, logits.dtype)
    else:
        raise ValueError(
            f"labels must be integers, [batch], or floats, [batch, {classes}]; "
            f"got {labels.dtype.name} of shape {labels.shape}."
        )
    if rows.is_fully_defined() and wanted.is_fully_defined():
        return targets
    counts = tf.stack([tf.shape(labels)[0], tf.shape(logits)[0]])
    return _where_sound(  # A single row would broadcast to all.
        tf.equal(counts[:1], counts[1]),
        targets,
        "There must be a label for each input; the numbers of both:",
        counts,
    )


def _is_number(labels):
    return labels.dtype.is_integer or labels.dtype.is_bool


def _sound_one_hot(numbers, classes, dtype):
    """[batch, classes] of a float type, from [batch] int64."""
    # For others, one-hot would give no class at all, and the loss 0.
    return _where_sound(
        (numbers >= 0) & (numbers < classes),
        tf.one_hot(numbers, classes, dtype=dtype),
        f"A label is not among the {classes} classes of the model; the least "
        "and the greatest:",
        tf.stack([tf.reduce_min(numbers), tf.reduce_max(numbers)]),
    )


def _sound_probabilities(targets):
    """The rows of [batch, classes] that are distributions."""
    least, sums = tf.reduce_min(targets, -1), tf.reduce_sum(targets, -1)
    limits = [tf.reduce_min(least), tf.reduce_min(sums), tf.reduce_max(sums)]
    return _where_sound(
        # With room for rounding to 16 bits.
        tf.maximum(tf.abs(sums - 1.0), -least) <= 0.02,
        targets,
        "Labels that are probabilities must not be negative, and must sum to "
        "1; the least, and the least and the greatest sum:",
        tf.stack(limits),
    )


def _where_sound(sound, targets, why, got):
    """The targets; a failed assertion, or nan, where they are not sound.

    Args:
      sound: booleans, [batch] or [1].
      targets: [batch, classes].
      why, got: text and numbers of the assertion.
    """
    if tf.executing_eagerly():
        if not tf.reduce_all(sound):
            words = ", ".join(f"{number:g}" for number in got.numpy())
            raise ValueError(f"{why} {words}.")
        return targets
    check = tf.debugging.Assert(
        tf.reduce_all(sound), [f"{LABEL_ERROR}{why}", got], summarize=8
    )
    with tf.control_dependencies([check]):
        unknown = tf.constant(math.nan, targets.dtype)
        return tf.where(sound[:, tf.newaxis], targets, unknown)


@contextlib.contextmanager
def label_errors():
    """Turns a failed assertion of `label_probabilities` into a ValueError."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        said = rf"\[{LABEL_ERROR}(.*?)\] \[(.*?)\]"
        found = re.search(said, str(error), re.S)
        if not found:
            raise
        raise ValueError(
            f"{found[1]} {', '.join(found[2].split())}."
        ) from error


@contextlib.contextmanager
def derivative_errors(model):
    """Turns TensorFlow's lack of a gradient into a ValueError naming a layer.

    Args:
      model: the one whose gradient is computed within.
    """
    try:
        yield
    except LookupError as error:
        from meta_pseudo_labels.models import second_derivative

        mended = second_derivative.underived(error, model)
        if mended is error:  # Another error: of a user's data, say.
            raise
        raise mended from None


def class_numbers(labels, logits, *, ignored=None):
    """The same labels, after a check that they are class numbers.

    For the losses of Keras, which raise an error or return nan for others.

    Args:
      labels: [batch] or [batch, 1]; may be floats if they are whole.
      logits: [batch, classes].
      ignored: a number that is allowed besides, such as the `ignore_class` of
        a loss of Keras.

    Raises:
      ValueError, tf.errors.InvalidArgumentError: see `label_probabilities`.
    """
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank is not None and labels.shape[1:] not in ([], [1]):
        raise ValueError(
            f"labels must be class numbers, [batch]; got {labels.dtype.name} "
            f"of shape {labels.shape}."
        )
    numbers = tf.reshape(labels, [-1])
    if labels.dtype.is_floating:
        none = tf.constant(-1, labels.dtype)
        whole = tf.where(numbers == tf.floor(numbers), numbers, none)
        numbers = tf.cast(whole, tf.int64)
    if ignored is not None:
        is_ignored = tf.equal(numbers, tf.cast(ignored, numbers.dtype))
        numbers = tf.where(is_ignored, tf.zeros_like(numbers), numbers)
    with tf.control_dependencies([label_probabilities(numbers, logits)]):
        return tf.identity(labels)


_INPUTS = {"labels": "labeled", "feedback_labels": "feedback"}


def with_checked_labels(batch, classes):
    """The same batch, after a check of its labels; for a `tf.data` map.

    A step compiled by XLA cannot check them; see `label_probabilities`.

    Raises:
      ValueError: see `label_probabilities`.
      tf.errors.InvalidArgumentError: by the data set, for an invalid label.
    """
    checked = {}
    for key in sorted(_INPUTS.keys() & batch):
        labels = tf.convert_to_tensor(batch[key])
        inputs = tf.nest.flatten(batch.get(_INPUTS[key], labels))[0]
        logits = tf.zeros([inputs.shape[0] or tf.shape(inputs)[0], classes])
        with tf.control_dependencies([label_probabilities(labels, logits)]):
            checked[key] = tf.identity(labels)
    return {**batch, **checked}


def gradients_of(tape, loss, model, *, scale=None):
    """Dense gradients for every trainable weight, zero where unused.

    All have the model's `float_type`, so that they can be added up; an
    optimizer rounds them to the type of each weight.

    Args:
      tape: the one that recorded the loss.
      loss: scalar.
      model: the one whose weights they belong to.
      scale: factor of the loss on its way through 16-bit floats, by which the
        gradients are then divided; see `updates.loss_scale`.

    Raises:
      ValueError: if an operation on the way has no derivative.
    """
    scaled = None if scale is None else tf.cast(scale, loss.dtype)
    with derivative_errors(model):
        gradients = tape.gradient(
            loss,
            [v.value for v in model.trainable_variables],
            output_gradients=scaled,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
    dtype = float_type(model)
    gradients = [tf.cast(tf.convert_to_tensor(g), dtype) for g in gradients]
    if scale is None:
        return gradients
    return [g / tf.cast(scale, dtype) for g in gradients]
