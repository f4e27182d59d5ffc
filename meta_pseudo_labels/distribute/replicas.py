"""What replicas share under a `tf.distribute` strategy: means, state, draws.

Replica r of R sees rows r * n / R to (r + 1) * n / R of every part of the
global batch. Code written with these functions gives the same results for any
R; outside a strategy they cost nothing.
"""

import contextlib
import functools
import threading

import keras
import tensorflow as tf

from meta_pseudo_labels.utils import compat

_PHILOX = 1  # The algorithm that gives the same numbers on every device.
_WORDS = 4  # 32-bit numbers that it makes at a time.

# Replicas are traced in threads of their own.
_local = threading.local()


def count():
    """The number of replicas in sync; 1 outside a strategy's step."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def number():
    """Index of the replica traced here, from 0; 0 if all are one program."""
    context = tf.distribute.get_replica_context()
    if context is None or not merges():
        return 0
    return int(tf.get_static_value(context.replica_id_in_sync_group))


def mean(values):
    """The means over all replicas, with a gradient.

    A loss is the mean over a replica's images. As all have the same number,
    the mean over replicas is the mean over the global batch.

    Args:
      values: a tensor, or a list or dict of them.
    """
    if count() == 1:
        return values
    context = tf.distribute.get_replica_context()
    reduced = context.all_reduce(
        tf.distribute.ReduceOp.MEAN, tf.nest.flatten(values)
    )
    return tf.nest.pack_sequence_as(values, reduced)


def all_rows(rows):
    """The rows of the global batch, on every replica; without a gradient.

    Args:
      rows: integers of this replica's batch, [batch].

    Returns:
      [global batch] of the same type.
    """
    if count() == 1:
        return rows
    context = tf.distribute.get_replica_context()
    # A sum, which every strategy supports; each replica adds its own rows.
    place = tf.one_hot(
        context.replica_id_in_sync_group, count(), dtype=rows.dtype
    )
    return tf.reshape(
        context.all_reduce(
            tf.distribute.ReduceOp.SUM, place[:, tf.newaxis] * rows
        ),
        [-1],
    )


def global_sum(values):
    """A loss that is a sum over images, not a mean.

    Args:
      values: [batch, ...] of this replica.

    Returns:
      A scalar whose mean over replicas, all that matters of a loss, is the sum
      over the global batch.
    """
    return count() * tf.reduce_sum(values)


def merges():
    """Whether replicas must meet outside all branches and loops of a step.

    They must if each is traced in a thread of its own; on TPUs all are one
    program. Call this within the scope of a strategy or one of its steps.
    """
    # TensorFlow's own answer is yes for these two.
    one_program = (tf.distribute.OneDeviceStrategy, tf.distribute.TPUStrategy)
    if isinstance(tf.distribute.get_strategy(), one_program):
        return False
    return compat.replicas_are_threads()


def merge(function, *arguments):
    """Calls a function once for all replicas, in cross-replica context.

    Args:
      function: takes a strategy, and the arguments as values per replica.
      *arguments: of this replica.
    """
    context = tf.distribute.get_replica_context()
    return context.merge_call(function, args=arguments)


class SeedGenerator(keras.random.SeedGenerator):
    """Keras's, but with one state under a strategy of several replicas."""

    def __init__(self, seed=None, **kwargs):
        super().__init__(seed, **kwargs)
        first = self.state
        self.state = keras.Variable(
            lambda shape, dtype: tf.cast(first.value, dtype),
            shape=(2,),
            dtype="int64",
            trainable=False,
            aggregation="only_first_replica",
            name="seed_generator_state",
        )


def joint_batch(*sizes, number=0, slices=1):
    """Declares that a network's batch is made of parts of the global batch.

    Args:
      *sizes: rows of each part in this batch, in order.
      number: index of the slice that this batch is, from 0.
      slices: how many this replica's batch was cut into; 1 is all of it.

    Returns:
      A context manager for the calls that this applies to.
    """
    return _told((sizes, number, slices))


def present_layout():
    """A function that returns a context manager: the present `joint_batch`."""
    return functools.partial(_told, getattr(_local, "layout", None))


@contextlib.contextmanager
def _told(layout):
    before = getattr(_local, "layout", None)
    _local.layout = layout
    try:
        yield
    finally:
        _local.layout = before


def uniform(seed, *, rows, width):
    """Random numbers that belong to rows of the global batch.

    A replica draws for its rows what a single device would draw for them.

    Args:
      seed: two integers for the draw; the same on all replicas.
      rows: number of rows of this replica's batch; see `joint_batch` for parts.
      width: numbers for each row.

    Returns:
      [rows, width] float32, in [0, 1).
    """
    # Not StatelessRandomGetKeyCounter, whose result depends on the device.
    seed = tf.cast(seed, tf.int64)
    key, stream = tf.unstack(tf.bitcast(seed, tf.uint64))
    # Words for each row, rounded up so that each row begins a block of words.
    blocks = -(-width // _WORDS)
    parts = [
        tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[size, blocks * _WORDS],
            key=key[tf.newaxis],
            counter=tf.stack([tf.cast(first * blocks, tf.uint64), stream]),
            alg=_PHILOX,
            dtype=tf.uint32,
        )
        for first, size in _parts(rows)
    ]
    words = tf.concat(parts, axis=0)[:, :width]
    # The 24 high bits, as many as float32 can represent.
    return tf.cast(tf.bitwise.right_shift(words, 8), tf.float32) * 2.0**-24


def _parts(rows):
    """(first row in the global batch, number of rows) of each part."""
    layout = getattr(_local, "layout", None)
    sizes, number, slices = layout or ((rows,), 0, 1)
    context = tf.distribute.get_replica_context()
    replica, replicas = 0, count()
    if replicas > 1:
        replica = context.replica_id_in_sync_group
    before, parts = 0, []
    for size in sizes:
        first = before * replicas * slices + (replica * slices + number) * size
        parts.append((first, size))
        before += size
    return parts
