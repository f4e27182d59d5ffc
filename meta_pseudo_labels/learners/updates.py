"""One update of a model: decay, clip, apply; the same on all replicas."""

import keras
import tensorflow as tf

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.models.batch_norm import BatchNorm
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
      model: whose gradients they are.
      weight_decay: adds `weight_decay * w`, not in normalization layers.
      grad_bound: of the norm; None does not clip.

    Returns:
      The gradients to apply, and their norm before clipping.
    """
    if weight_decay:
        decayed = _decayed_ids(model)
        gradients = [
            g + weight_decay * w if id(w) in decayed else g
            for g, w in zip(gradients, model.trainable_variables, strict=True)
        ]
    # As tf.linalg.global_norm, but with a derivative where all are 0: feedback
    # through the update takes it.
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
    """Half the sum of the squared weights under decay, scalar."""
    decayed = _decayed_ids(model)
    weights = [w for w in model.trainable_variables if id(w) in decayed]
    return tf.add_n([tf.nn.l2_loss(w) for w in weights])


def _decayed_ids(model):
    """Identities of the trainable weights that weight decay applies to."""
    exempt = {
        id(weight)
        for layer in compat.layers_of(model)
        if isinstance(layer, _NORMALIZATION_LAYERS)
        for weight in layer.weights
    }
    return {id(w) for w in model.trainable_variables} - exempt


def apply_gradients(optimizer, gradients, variables, *, condition):
    """Applies gradients that all replicas share.

    Args:
      optimizer: after `compat.take_reduced`.
      gradients: one per variable.
      variables: trainable.
      condition: scalar, the same on all replicas; where it is false nothing
        moves.
    """

    def apply(*gradients):
        optimizer.apply(list(gradients), variables)

    if not replicas.merges():
        tf.cond(condition, lambda: apply(*gradients), lambda: None)
    else:  # Replicas cannot meet within a branch; all take it together.
        replicas.merge(_apply_where, apply, condition, *gradients)


def _apply_where(strategy, apply, condition, *gradients):
    (apply, *_) = strategy.experimental_local_results(apply)
    (condition, *_) = strategy.experimental_local_results(condition)

    def apply_on_all():
        strategy.extended.call_for_each_replica(apply, args=gradients)

    tf.cond(condition, apply_on_all, lambda: None)
