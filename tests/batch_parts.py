"""Batches, and the parts of them that replicas are to see."""

import itertools

import numpy as np
import tensorflow as tf


def take(dataset, count):
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def part(batch, replica, replicas):
    """Rows r * B/R to (r + 1) * B/R - 1 of everything in a batch."""

    def rows(whole):
        count = len(whole) // replicas
        assert count * replicas == len(whole)
        return whole[replica * count : (replica + 1) * count]

    return tf.nest.map_structure(rows, batch)


def assert_equal(got, want):
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        tf.nest.assert_same_structure(one, other)
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)
