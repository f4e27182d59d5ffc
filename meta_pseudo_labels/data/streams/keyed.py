"""The keys of every random choice, and the order of the examples.

Data in memory and in files have the same order for the same seed and number of
examples.
"""

import numpy as np
import tensorflow as tf

# Streams of one seed that must not be correlated.
LABELED, UNLABELED, FINETUNING, FEEDBACK = range(4)
# Purposes within a stream.
ORDER, WEAK, STRONG, CROP, FLIP, CLASSES = range(6)

# Up to this many examples, an epoch's order comes from sorting: the cipher for
# larger sets tries its smallest block, 65,536, until it hits one of them.
_SORTED = 1_024


def key(seed, *data):
    """A [2] int64 seed for stateless operations."""
    folded = tf.constant([seed, 0], tf.int64)
    for value in data:
        folded = tf.random.fold_in(folded, tf.cast(value, tf.int64))
    return folded


def positions(step, *, batch_size, rows=None):
    """The positions of a step's batch in its stream, [batch_size] int64.

    Args:
      step: [] int64.
      batch_size: examples in the whole batch.
      rows: the `shares.Rows` of it to return; None for all.
    """
    places = tf.range(rows.count if rows else batch_size, dtype=tf.int64)
    if rows:
        places += rows.begin
    return step * batch_size + places


def examples(step, *, batch_size, total, seed, stream, rows=None):
    """Which examples a step's batch holds: [batch_size] int64.

    Position p of a stream shows example shuffle(p mod total) of epoch p div
    total; each epoch has a true permutation of its own.

    Args:
      step, batch_size, rows: see `positions`.
      total: examples in the data set.
      seed, stream: keys of the permutations, in addition to the epoch.
    """
    position = positions(step, batch_size=batch_size, rows=rows)
    return _shuffled(position, total, key(seed, stream, ORDER))


def balanced_examples(step, *, batch_size, labels, seed, stream, rows=None):
    """Which examples a batch holds if every class comes equally often.

    C consecutive positions are a round, which shows each of the C classes that
    occur once, shuffled. In round r, a class with n examples shows its example
    d mod n. The draws d are the round numbers, shuffled within epochs of as
    many rounds as the largest class has examples. So after every epoch, the
    numbers of times that the examples of a class were shown differ by one at
    most.

    Args:
      step, batch_size, rows: see `positions`.
      labels: the classes of the data set's examples, [total] integers.
      seed, stream: keys of all draws, in addition to the epoch.

    Returns:
      Two tensors, [batch_size] int64: the examples; and d div n, which
      distinguishes the times that the same example is shown.
    """
    _, counts = np.unique(labels, return_counts=True)
    classes, most = len(counts), int(counts.max())
    by_class = np.argsort(labels, kind="stable")
    begin = np.cumsum(counts) - counts
    position = positions(step, batch_size=batch_size, rows=rows)
    kind = _shuffled(position, classes, key(seed, stream, CLASSES))
    turn = position // classes
    place = _shuffled(
        turn, most, key(seed, stream, ORDER), kind=kind, kinds=classes
    )
    draw, count = turn // most * most + place, tf.gather(counts, kind)
    examples = tf.gather(by_class, tf.gather(begin, kind) + draw % count)
    return examples, draw // count


def _shuffled(position, total, stream_key, *, kind=None, kinds=1):
    """Maps positions to shuffled places within their epoch of `total`.

    Args:
      position: [n] int64, ascending.
      total: positions in an epoch; each epoch has its own permutation.
      stream_key: key of the permutations, in addition to the epoch.
      kind: which of the epoch's permutations applies to each position, [n]
        int64; None if there is only one.
      kinds: number of permutations per epoch.
    """
    epoch, index = position // total, position % total
    first = epoch[0]  # A batch may span the end of an epoch, or of several.
    kind = tf.zeros_like(epoch) if kind is None else kind

    def of_each_epoch(function, count):
        """Stacks a function of an epoch's key and [kinds, count]."""
        return tf.map_fn(
            lambda number: function(
                tf.random.fold_in(stream_key, number), [kinds, count]
            ),
            tf.range(first, epoch[-1] + 1),
        )

    if total <= _SORTED:
        orders = of_each_epoch(_orders, total)
        return tf.gather_nd(
            orders, tf.stack([epoch - first, kind, index], axis=1)
        )
    words = of_each_epoch(_cipher_keys, 3)
    # The raw operation, as tf.random.experimental.index_shuffle pads a batch of
    # seeds along the wrong axis. It truncates each word of its key to as few as
    # 8 bits, so all three are hashed anew for each epoch; with 4 rounds, its
    # default, the places of an example are not quite evenly distributed.
    return tf.raw_ops.RandomIndexShuffle(
        index=index,
        seed=tf.gather_nd(words, tf.stack([epoch - first, kind], axis=1)),
        max_index=tf.constant(total - 1, tf.int64),
        rounds=8,
    )


def _orders(epoch_key, shape):
    """Permutations of few examples, by sorting, which costs next to nothing."""
    draws = tf.random.stateless_uniform(shape, epoch_key, dtype=tf.float64)
    return tf.cast(tf.argsort(draws), tf.int64)


def _cipher_keys(epoch_key, shape):
    return tf.random.stateless_uniform(
        shape, epoch_key, minval=None, maxval=None, dtype=tf.int64
    )


def check_stream(*, batch_size, start_step):
    """Raises ValueError for numbers that no stream can have."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give an integer >= 1.")
    if start_step < 0:
        raise ValueError(f"start_step is {start_step}; give an integer >= 0.")
