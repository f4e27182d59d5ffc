"""Rows of arrays in memory, in the keyed order."""

import tensorflow as tf

from meta_pseudo_labels.data.streams import keyed


def array_rows(arrays, count, *, batch_size, seed, stream):
    """A function from a turn to the rows whose turn it is.

    Args:
      arrays: a nest of arrays of `count` rows each; the result is like it.
      count: examples in the data set.
      batch_size: rows of the whole batch.
      seed, stream: what the order is keyed by, see keyed.py.
    """
    # In host memory once, and captured: a constant of the graph, which is
    # limited to 2 GB, would hold them again.
    with tf.device("CPU:0"):
        arrays = tf.nest.map_structure(tf.convert_to_tensor, arrays)

    def read(turn):
        examples = keyed.examples(
            turn.step,
            batch_size=batch_size,
            total=count,
            seed=seed,
            stream=stream,
            rows=turn.rows(batch_size),
        )
        return tf.nest.map_structure(
            lambda array: tf.gather(array, examples), arrays
        )

    return read
