"""The keys of every random choice, and the order that examples come in.

Shared by data in memory (pipeline.py) and in files (streaming.py), so that
both give the same order for the same seed and number of examples.
"""

import tensorflow as tf

# Streams of one seed that must not be correlated.
LABELED, UNLABELED, FINETUNING = range(3)
# Purposes within a stream.
ORDER, WEAK, STRONG, CROP = range(4)


def key(seed, *data):
    """A [2] int64 seed for stateless operations."""
    folded = tf.constant([seed, 0], tf.int64)
    for value in data:
        folded = tf.random.fold_in(folded, tf.cast(value, tf.int64))
    return folded


def examples(step, *, batch_size, total, seed, stream):
    """Which examples the batch of a step holds: [batch_size] int64.

    Position p of a stream shows example shuffle(p mod total) of epoch p div
    total; each epoch has a true permutation of its own.

    Args:
      step: [] int64.
      batch_size, total: examples in the batch and in the data set.
      seed, stream: what the permutations are keyed by, beside the epoch.
    """
    position = step * batch_size + tf.range(batch_size, dtype=tf.int64)
    epoch, index = position // total, position % total
    # A key per example, as a batch may reach over the end of an epoch. (The
    # raw operation, as tf.random.experimental.index_shuffle pads a batch of
    # seeds along the wrong axis.)
    stream_key = tf.tile(key(seed, stream, ORDER)[tf.newaxis], [batch_size, 1])
    return tf.raw_ops.RandomIndexShuffle(
        index=index,
        seed=tf.concat([stream_key, epoch[:, tf.newaxis]], axis=1),
        max_index=tf.constant(total - 1, tf.int64),
        rounds=4,
    )


def check_stream(*, batch_size, start_step):
    """Raises ValueError for numbers that no stream can have."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give an integer >= 1.")
    if start_step < 0:
        raise ValueError(f"start_step is {start_step}; give an integer >= 0.")
