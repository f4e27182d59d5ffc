"""A network's pass over a batch in slices, to fit it into memory."""

import functools

import tensorflow as tf

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.models.stateless import move_state
from meta_pseudo_labels.utils import compat


def forward_in_slices(model, views, *, slices, update_moments=True):
    """Training-mode logits of several batches, cut into slices.

    Slice k of K has rows k * n / K to (k + 1) * n / K of every view, in one
    joint batch, and is computed after slice k - 1. No activations are kept: the
    gradient computes each slice again, one after the other too.

    All is as for the whole batch except batch norm: each slice is normalized by
    its own moments, and moving averages move once, by the mean of the slices'
    moments. Our dropout and stochastic depth draw for each image what they draw
    for it in the whole batch; random layers of Keras draw the same for every
    slice.

    Args:
      model: returns logits, [batch, classes].
      views: list of batches of inputs, which may be nested; of fixed size.
      slices: number of slices, K.
      update_moments: see `passes.forward`.

    Returns:
      The logits of each view, a list of [.., classes] of the model's type.

    Raises:
      ValueError: if the number of slices does not divide a view's rows, and as
        for `call_again`.
    """
    from meta_pseudo_labels.models.recompute import call_again

    sizes = [_rows_of_slice(view, slices) for view in views]
    outputs, states = call_again(
        model,
        [
            tf.nest.map_structure(
                lambda *parts: tf.concat(parts, axis=0),
                *(
                    _slice(view, size, number)
                    for view, size in zip(views, sizes, strict=True)
                ),
            )
            for number in range(slices)
        ],
        [
            functools.partial(
                replicas.joint_batch, *sizes, number=number, slices=slices
            )
            for number in range(slices)
        ],
    )
    _move_states(model, states, update_moments=update_moments)
    split = [tf.split(output, sizes) for output in outputs]
    return [tf.concat(parts, axis=0) for parts in zip(*split, strict=True)]


def _rows_of_slice(view, slices):
    rows = tf.nest.flatten(view)[0].shape[0]
    if rows is None or rows % slices:
        raise ValueError(
            f"A batch of {rows} rows cannot be cut into batch_slices={slices}; "
            "use batches of a fixed number of rows (on each replica) that the "
            "slices divide."
        )
    return rows // slices


def _slice(view, size, number):
    return tf.nest.map_structure(
        lambda x: x[number * size : (number + 1) * size], view
    )


def _move_states(model, states, *, update_moments):
    """Moves seeds and counts once, moving averages by the mean of all slices.

    Without `update_moments` seeds alone.
    """
    seeds = compat.seed_states(model)
    for variable, *values in zip(
        model.non_trainable_variables, *states, strict=True
    ):
        if not update_moments and id(variable) not in seeds:
            continue
        if "float" in variable.dtype:
            move_state(variable, tf.add_n(values) / len(values))
        else:
            variable.assign(values[0])
