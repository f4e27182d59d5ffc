"""Sums and products per channel, against plain operations in float64."""

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.models import channels


def images(seed, shape=(6, 5, 4, 3)):
    return np.random.default_rng(seed).normal(0.3, 1, shape).astype("float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_worked_by_hand(dtype):
    x = tf.reshape(tf.constant([1, 10, 3, 20], dtype), [1, 2, 1, 2])
    mean, mean_square = channels.mean_and_mean_square(x)
    np.testing.assert_array_equal(mean, [2, 15])
    np.testing.assert_array_equal(mean_square, [5, 250])
    y = channels.scale_and_shift(
        x,
        scale=tf.constant([2, -1], dtype),
        shift=tf.constant([0.5, 1], dtype),
    )
    np.testing.assert_array_equal(tf.reshape(y, [-1]), [2.5, -9, 6.5, -19])


@pytest.mark.parametrize("compiled", [False, True])
def test_two_derivatives_are_those_of_plain_operations(compiled):
    def derivatives(dtype):
        x, w, v = (tf.constant(images(seed), dtype) for seed in range(3))
        scale = tf.constant([0.5, 1.0, -2.0], dtype)
        shift = tf.constant([0.1, 0.2, 0.3], dtype)
        inputs = [x, scale, shift]
        with tf.GradientTape() as outer:
            outer.watch([*inputs, w])
            with tf.GradientTape() as inner:
                inner.watch(inputs)
                y = channels.scale_and_shift(x, scale=scale, shift=shift)
                mean, square = channels.mean_and_mean_square(y * y + x)
                loss = tf.reduce_sum(y * y * w) + tf.reduce_sum(mean * square)
            first = inner.gradient(loss, inputs)
            total = tf.reduce_sum(first[0] * v) + tf.reduce_sum(
                tf.sin(first[1]) + first[2] * first[2]
            )
        return [y, *first, *outer.gradient(total, [*inputs, w])]

    function = tf.function(derivatives, autograph=False, jit_compile=compiled)
    exact = derivatives("float64")
    for ours, expected in zip(function("float32"), exact, strict=True):
        size = np.max(np.abs(expected))
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * size)


def test_points_and_other_types_take_plain_operations():
    points = tf.constant(images(0, shape=(6, 3)))
    mean, _ = channels.mean_and_mean_square(points)
    np.testing.assert_allclose(mean, np.mean(points, axis=0), rtol=1e-6)
