"""Puts numbered batches back in order and fills gaps."""

import numpy as np
import tensorflow as tf


def in_order(arrivals, batch, *, start_step, window):
    """The batches of all steps from `start_step` on, each one once.

    A batch that arrives early is held until its turn. A step that is still
    missing when a batch from `window` steps later arrives counts as lost: its
    batch is made here, as a batch is a function of its step. If it arrives
    after all, it is dropped.

    Args:
      arrivals: endless tf.data.Dataset of (step, batch(step)), step [] int64,
        in any order, any of them missing or repeated.
      batch: a function from a step, [] int64, to a structure of tensors.
      start_step: the first step to return, [] int64.
      window: largest number of batches held, >= 1.

    Returns:
      tf.data.Dataset of batch(start_step), batch(start_step + 1), ...
    """
    _, spec = arrivals.element_spec
    dtypes = [leaf.dtype for leaf in tf.nest.flatten(spec)]
    state = (
        tf.constant(start_step, tf.int64),  # The next step to hand out.
        tf.constant(np.full(window, -1), tf.int64),  # Steps that are held.
        tuple(_empty(dtype, window) for dtype in dtypes),
    )

    def hold(state, arrival):
        first, steps, held = state
        step, leaves = arrival[0], tf.nest.flatten(arrival[1])
        is_late = step < first
        steps, held = tf.cond(
            is_late,
            lambda: (steps, held),
            lambda: _put(steps, held, step=step, leaves=leaves),
        )
        # Steps before this one are not waited for any longer.
        reached = tf.maximum(first, step - window + 1)
        reached = tf.while_loop(
            lambda x: steps[x % window] == x, lambda x: [x + 1], [reached]
        )[0]
        turn = (first, reached, steps, held)
        kept = _forget(steps, held, dtypes, before=reached)
        return (reached, *kept), turn

    def hand_out(first, reached, steps, held):
        def pick(step):
            slot = step % window
            return tf.cond(
                steps[slot] == step,
                lambda: _get(held, slot, spec),
                lambda: batch(step),
            )

        return tf.data.Dataset.range(first, reached).map(_plain(pick))

    turns = arrivals.scan(state, _plain(hold))
    return turns.flat_map(_plain(hand_out))


def _put(steps, held, *, step, leaves):
    """Holds a batch. What was in its slot must have been handed out.

    A batch that would push out another is from beyond the window: then the
    steps before the new window, the other's among them, are handed out this
    turn, and the other batch is made anew.
    """
    slot = step % steps.shape[0]
    steps = tf.tensor_scatter_nd_update(steps, [[slot]], [step])
    return steps, tuple(
        tf.raw_ops.TensorListSetItem(
            input_handle=handle, index=tf.cast(slot, tf.int32), item=leaf
        )
        for handle, leaf in zip(held, leaves, strict=True)
    )


def _forget(steps, held, dtypes, *, before):
    """Frees the memory of batches that have been handed out."""

    def free(slot, steps, held):
        def drop():
            return tf.tensor_scatter_nd_update(steps, [[slot]], [-1]), tuple(
                tf.raw_ops.TensorListSetItem(
                    input_handle=handle,
                    index=slot,
                    item=tf.zeros([0], dtype),
                )
                for handle, dtype in zip(held, dtypes, strict=True)
            )

        is_done = (steps[slot] >= 0) & (steps[slot] < before)
        steps, held = tf.cond(is_done, drop, lambda: (steps, held))
        return slot + 1, steps, held

    _, steps, held = tf.while_loop(
        lambda slot, *_: slot < steps.shape[0], free, (0, steps, held)
    )
    return steps, held


def _get(held, slot, spec):
    """The batch in a slot."""
    leaves = [
        tf.raw_ops.TensorListGetItem(
            input_handle=handle,
            index=tf.cast(slot, tf.int32),
            element_shape=leaf.shape,
            element_dtype=leaf.dtype,
        )
        for handle, leaf in zip(held, tf.nest.flatten(spec), strict=True)
    ]
    return tf.nest.pack_sequence_as(spec, leaves)


def _empty(dtype, length):
    """A list with room for `length` tensors of any shape, still empty."""
    with tf.device("CPU:0"):
        return tf.raw_ops.TensorListReserve(
            element_shape=tf.constant(-1),
            num_elements=length,
            element_dtype=dtype,
        )


def _plain(function):
    """Without AutoGraph, which makes tracing much slower and is not needed."""
    return tf.autograph.experimental.do_not_convert(function)
