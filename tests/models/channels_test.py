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


@pytest.mark.parametrize("compiled", [False, True])
def test_images_in_bfloat16_stay_so_and_are_summed_in_float32(compiled):
    """Sums in 16 bits would stop growing at 256 entries of 1."""
    rounded = tf.cast(images(0, (8, 32, 32, 3)) + 3, tf.bfloat16)
    scale = tf.constant([0.5, 1.0, -2.0])
    shift = tf.constant([0.1, 0.2, 0.3])

    def computed(x):
        dtype = tf.float32 if x.dtype == tf.bfloat16 else x.dtype
        weights = tf.cast(scale, dtype), tf.cast(shift, dtype)
        with tf.GradientTape() as outer:
            outer.watch([x, *weights])
            with tf.GradientTape() as inner:
                inner.watch([x, *weights])
                y = channels.scale_and_shift(
                    x, scale=weights[0], shift=weights[1]
                )
                means = channels.mean_and_mean_square(x)
                total = tf.reduce_sum(tf.cast(y * y, dtype))
                loss = total + tf.reduce_sum(means[0] * means[1])
            first = inner.gradient(loss, [x, *weights])
            total = tf.reduce_sum(tf.cast(first[0], dtype) ** 2)
        return y, means, first, outer.gradient(total, [x, *weights])

    function = tf.function(computed, autograph=False, jit_compile=compiled)
    y, means, first, second = function(rounded)
    exact = computed(tf.cast(rounded, tf.float64))
    assert y.dtype == first[0].dtype == second[0].dtype == tf.bfloat16
    assert {x.dtype for x in (*means, *first[1:], *second[1:])} == {tf.float32}
    for ours, expected in zip(means, exact[1], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=3e-5)
    both = zip(
        (y, *first, *second), (exact[0], *exact[2], *exact[3]), strict=True
    )
    for ours, expected in both:
        ours, size = np.array(ours, np.float64), np.max(np.abs(expected))
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-2 * size)


def test_points_and_other_types_take_plain_operations():
    points = tf.constant(images(0, shape=(6, 3)))
    mean, _ = channels.mean_and_mean_square(points)
    np.testing.assert_allclose(mean, np.mean(points, axis=0), rtol=1e-6)
