"""Rows of arrays in memory, in the keyed order."""

import tensorflow as tf

from meta_pseudo_labels.data.images.operations import mirror_where
from meta_pseudo_labels.data.streams import keyed


def array_rows(
    arrays,
    count,
    *,
    batch_size,
    seed,
    stream,
    alternate_flips=False,
    classes=None,
):
    """A function from a turn to the rows for that turn.

    Args:
      arrays: a nest of arrays of `count` rows each; the result is like it.
      count: examples in the data set.
      batch_size: rows of the whole batch.
      seed, stream: keys of the order, see keyed.py.
      alternate_flips: whether "inputs" are images that are mirrored in every
        other epoch: a random half of them in the first, the others in the
        second, and so on (arXiv 2404.00498, section 3.6).
      classes: [count] integers, if every class is to come equally often, see
        `keyed.balanced_examples`; None if every row is.
    """
    # Once in host memory, and captured: a constant of the graph would hold them
    # again, and is limited to 2 GB.
    with tf.device("CPU:0"):
        arrays = tf.nest.map_structure(tf.convert_to_tensor, arrays)
        if alternate_flips:
            begin_mirrored = tf.random.stateless_uniform(
                [count], keyed.key(seed, stream, keyed.FLIP), 0, 2, tf.int64
            )

    def read(turn):
        batch = dict(batch_size=batch_size, rows=turn.rows(batch_size))
        keys = dict(seed=seed, stream=stream)
        if classes is None:
            times = keyed.positions(turn.step, **batch) // count
            examples = keyed.examples(turn.step, total=count, **keys, **batch)
        else:
            examples, times = keyed.balanced_examples(
                turn.step, labels=classes, **keys, **batch
            )
        rows = tf.nest.map_structure(
            lambda array: tf.gather(array, examples), arrays
        )
        if alternate_flips:
            turns = times + tf.gather(begin_mirrored, examples)
            rows["inputs"] = mirror_where(turns % 2 == 1, rows["inputs"])
        return rows

    return read
