"""One update of a model: decay, clip, apply; the same on all replicas."""

from typing import NamedTuple

import keras
import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.learners.checks import check_range
from meta_pseudo_labels.models.batch_norm import BatchNorm
from meta_pseudo_labels.optimizers import AdamW, pace, parts_of
from meta_pseudo_labels.utils import compat

_NORMALIZATION_LAYERS = (
    BatchNorm,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
)


def decay_and_clip(gradients, model, *, weight_decay, grad_bound):
    """Adds weight decay, then clips by the norm over the whole model.

    In this order, as in the release (quirks 17 and 18).

    Args:
      gradients: one per trainable weight, the means over all replicas.
      model: the one they belong to.
      weight_decay: adds `weight_decay * w`, except in normalization layers.
      grad_bound: of the norm; None does not clip.

    Returns:
      The gradients to apply, and their norm before clipping.
    """
    if weight_decay:
        decayed = _decayed_ids(model)
        gradients = [
            g + weight_decay * tf.cast(w, g.dtype) if id(w) in decayed else g
            for g, w in zip(gradients, model.trainable_variables, strict=True)
        ]
    # As tf.linalg.global_norm, but with a derivative if all are 0, which
    # feedback through the update needs.
    halves = tf.stack([tf.nn.l2_loss(g) for g in gradients])
    squared = 2.0 * tf.reduce_sum(halves)
    is_zero = tf.equal(squared, 0)
    root = tf.sqrt(tf.where(is_zero, tf.ones_like(squared), squared))
    norm = tf.where(is_zero, tf.zeros_like(root), root)
    if grad_bound is not None:
        bound = tf.cast(grad_bound, root.dtype)
        gradients, _ = tf.clip_by_global_norm(
            gradients, bound, use_norm=tf.where(is_zero, bound, root)
        )
    return gradients, norm


def half_squared_norm(model):
    """Half the sum of the squared weights subject to decay, scalar."""
    decayed = _decayed_ids(model)
    weights = [w for w in model.trainable_variables if id(w) in decayed]
    wide = (
        "float64" if any(w.dtype == "float64" for w in weights) else "float32"
    )
    return tf.add_n([tf.nn.l2_loss(tf.cast(w, wide)) for w in weights])


def set_pace(
    optimizer,
    model,
    *,
    lr_factor,
    layer_decay,
    freeze_steps,
    backbone=None,
):
    """Has the backbone of a model move at another pace than its head.

    Args:
      optimizer: built; it may wrap others, which then own the weights.
      model: the one whose trainable weights the optimizer has.
      lr_factor, freeze_steps: see `pace`.
      layer_decay: ratio of a layer's rate to that of the layer above it, see
        `models.backbone_depths`; in (0, 1].
      backbone: a function from the model to the weights of its backbone; by
        default `models.backbone_weights`.

    Raises:
      ValueError: for a number out of range, a model that has no backbone apart
        from its head, or an optimizer that knows only one rate.
    """
    check_range("backbone_lr_factor", lr_factor, low=0, high=1e9)
    check_range("freeze_backbone_steps", freeze_steps, low=-1, high=2**31)
    check_range("layer_lr_decay", layer_decay, low=1e-6, high=1)
    is_paced = lr_factor != 1 or layer_decay != 1 or freeze_steps
    backbone = backbone or models.backbone_weights
    weights = backbone(model) if is_paced else []
    depths = dict.fromkeys(map(id, weights), 0)
    if weights and layer_decay != 1:
        known = map(id, models.backbone_weights(model))
        found = zip(known, models.backbone_depths(model), strict=True)
        depths |= {key: n for key, n in found if key in depths}
    factors = {key: lr_factor * layer_decay**n for key, n in depths.items()}
    for part in parts_of(optimizer):
        if len(parts_of(part)) == 1:
            own = [v for v in compat.variables_of(part) if id(v) in factors]
            pace(
                part,
                own,
                lr_factor=[factors[id(v)] for v in own],
                freeze_steps=freeze_steps if own else 0,
            )


def spare_normalization(optimizer, model):
    """Has an `AdamW` decay only what weight decay applies to, see above.

    Args:
      optimizer: built with the model's trainable weights; one of another kind
        is left alone.
      model: the one that it moves.
    """
    if isinstance(optimizer, AdamW):
        decayed = _decayed_ids(model)
        optimizer.spare(
            [w for w in model.trainable_variables if id(w) not in decayed]
        )


def _decayed_ids(model):
    """Identities of the trainable weights that weight decay applies to."""
    exempt = {
        id(weight)
        for layer in compat.layers_of(model)
        if isinstance(layer, _NORMALIZATION_LAYERS)
        for weight in layer.weights
    }
    return {id(w) for w in model.trainable_variables} - exempt


def scaled_for(model, optimizer):
    """The optimizer, in a `LossScaleOptimizer` when Keras would wrap it.

    Keras asks the policy of the model that it trains, here a learner's; what
    matters is whether gradients pass through float16.
    """
    half = any(x.compute_dtype == "float16" for x in compat.layers_of(model))
    if not half or isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer
    return keras.optimizers.LossScaleOptimizer(
        optimizer, name="loss_scale_optimizer"
    )


def loss_scale(optimizer):
    """Factor that an optimizer wants for the loss, scalar; None for 1."""
    one = tf.ones([])
    scaled = optimizer.scale_loss(one)
    return None if scaled is one else scaled


def lower_scale(optimizer, used, condition):
    """Halves the scale that was used, if a scalar boolean is true."""
    for part in parts_of(optimizer):
        if isinstance(part, keras.optimizers.LossScaleOptimizer):
            scale, counter = part.dynamic_scale, part.step_counter
            scale.assign(tf.where(condition, 0.5 * used, scale))
            counter.assign(tf.where(condition, tf.zeros_like(counter), counter))


def like(optimizer):
    """An optimizer for the teacher like the student's."""
    try:
        return compat.copy_of(optimizer)
    except ValueError as error:
        raise ValueError(
            f"The teacher cannot have an optimizer like the student's: {error} "
            "Give teacher_optimizer."
        ) from error


def check_apart(one, two):
    """Refuses optimizers that are one object, or wrap the same one."""
    parts = {id(part) for part in parts_of(one)}
    if any(id(part) in parts for part in parts_of(two)):
        raise ValueError(
            "The student and the teacher share one optimizer object; give "
            "teacher_optimizer a second one."
        )


class Applied(NamedTuple):
    """What became of an update; scalar booleans.

    Attributes:
      taken: whether the optimizer took the gradients.
      moved: whether the weights moved by them; they need not if gradients are
        accumulated first.
    """

    taken: tf.Tensor
    moved: tf.Tensor


def move(moves, taken):
    """Gives variables their next values, if a step is taken.

    Args:
      moves: pairs of a variable and a value.
      taken: scalar boolean, see `Applied`.
    """
    for variable, value in moves:
        variable.assign(tf.where(taken, value, variable))


def apply_gradients(optimizer, gradients, variables, *, norm, condition=True):
    """Applies gradients that all replicas share, if they are finite.

    Args:
      optimizer: after `compat.take_reduced`; one that scales the loss gets the
        gradients of the scaled loss, as from Keras's `fit`.
      gradients: one per variable, of the unscaled loss.
      variables: trainable.
      norm: of the gradients; it tells whether they are finite.
      condition: scalar, the same on all replicas; if it is false, nothing moves
        either.

    Returns:
      `Applied`.
    """
    scale = loss_scale(optimizer)
    finite = tf.math.is_finite(norm)
    if scale is not None:
        finite &= tf.math.is_finite(norm * tf.cast(scale, norm.dtype))
        gradients = [g * tf.cast(scale, g.dtype) for g in gradients]
    taken = called = finite & condition
    if _lowers_scale(optimizer):  # On gradients that are not finite.
        called = condition
        gradients = [
            tf.where(finite, g, tf.constant(float("nan"), g.dtype))
            for g in gradients
        ]
    before = _values_before(optimizer, variables)

    # Keras's accumulators have the weights' types, and add no others.
    gradients = [
        tf.cast(g, v.dtype) for g, v in zip(gradients, variables, strict=True)
    ]

    def apply(*gradients):
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    if called is True:
        apply(*gradients)
    elif not replicas.merges():
        tf.cond(called, lambda: apply(*gradients), lambda: None)
    else:  # Replicas cannot meet within a branch; all take it together.
        replicas.merge(_apply_where, apply, called, *gradients)
    if before is None:
        return Applied(taken, taken)
    changes = [
        tf.reduce_any(old != v.value)
        for old, v in zip(before, variables, strict=True)
    ]
    return Applied(taken, taken & tf.reduce_any(tf.stack(changes)))


def count_call(optimizer):
    """Counts a call that was not made, so that the rate's schedule goes on."""
    for part in parts_of(optimizer):
        compat.count_of(part).assign_add(1)


def _lowers_scale(optimizer):
    return any(
        isinstance(part, keras.optimizers.LossScaleOptimizer)
        for part in parts_of(optimizer)
    )


def _values_before(optimizer, variables):
    """The weights, to see whether they move; None if they always do."""
    known = ("keras.", __name__.partition(".")[0] + ".")
    wide = all(v.dtype in ("float32", "float64") for v in variables)
    if wide and all(  # Small moves of 16-bit weights are rounded away.
        type(part).__module__.startswith(known)
        and not part.gradient_accumulation_steps
        for part in parts_of(optimizer)
    ):
        return None
    return [tf.identity(v.value) for v in variables]


def _apply_where(strategy, apply, condition, *gradients):
    (apply, *_) = strategy.experimental_local_results(apply)
    (condition, *_) = strategy.experimental_local_results(condition)

    def apply_on_all():
        strategy.extended.call_for_each_replica(apply, args=gradients)

    tf.cond(condition, apply_on_all, lambda: None)
