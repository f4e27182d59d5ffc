"""Sums and products with a number per channel, in few passes over the images.

On a CPU TensorFlow needs two passes for `x * scale + shift`, each with a slow
broadcast, and many for its gradients. Its batch norm kernels in inference mode
need one. They are used here only for that arithmetic: `BatchNorm` decides what
is normalized by what. Images in bfloat16 stay in that type: the kernels compute
in float32 inside, and nothing is cast before or after. Other types, and shapes
other than images, use plain operations.
"""

import tensorflow as tf

# The kernels multiply by 1 / sqrt(variance + epsilon), which these values
# make exactly 1. An epsilon of 0 would not do: some raise it to at least 1e-5.
_EPSILON = 2.0**-10
_VARIANCE = 1.0 - _EPSILON


def scale_and_shift(x, *, scale, shift):
    """`x * scale + shift`, like x; differentiable twice and more.

    Args:
      x: [..., channels].
      scale: [channels], of the type of x; float32 for images in bfloat16.
      shift: [channels], like `scale`.
    """
    if not has_kernels(x):
        return x * scale + shift

    @tf.custom_gradient
    def fused(x, scale, shift):
        outputs = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=scale,
            offset=shift,
            mean=tf.zeros_like(scale),
            variance=tf.fill(scale.shape, _VARIANCE),
            epsilon=_EPSILON,
            is_training=False,
        )
        return outputs.y, lambda upstream: _pullback(upstream, x, scale)

    return fused(x, scale, shift)


def mean_and_mean_square(x):
    """Means of x and of its square over all axes but the last.

    Args:
      x: [..., channels] float.

    Returns:
      Two tensors, [channels] each, of the type of x; float32 for images in
      bfloat16.
    """
    if not has_kernels(x):
        return _means(x)

    @tf.custom_gradient
    def fused(x):
        # int32 would overflow for 2**31 entries and more.
        size = tf.size(x, out_type=tf.int64)
        count = tf.cast(size // x.shape[-1], tf.float32)

        def gradient(of_mean, of_mean_square):
            return scale_and_shift(
                x,
                scale=of_mean_square * (2.0 / count),
                shift=of_mean / count,
            )

        if x.dtype == tf.bfloat16:
            squares, sums = _sums(x, x)
            return (sums / count, squares / count), gradient
        # In float32 the sums above would be more accurate, and a step faster
        # by a twentieth; but earlier runs would not continue bit for bit, nor
        # would the release's be reproduced to the last digit.
        return _means(x), gradient

    return fused(x)


def has_kernels(x):
    """Whether the functions here accept x as it is, without casts."""
    return x.dtype in (tf.float32, tf.bfloat16) and x.shape.rank == 4


def _means(x):
    axes = list(range(x.shape.rank - 1))
    return tf.reduce_mean(x, axes), tf.reduce_mean(tf.square(x), axes)


def _pullback(upstream, x, scale):
    """Gradients of `scale_and_shift` with respect to x, scale and shift."""

    @tf.custom_gradient
    def fused(upstream, x, scale):
        def gradient(of_x, of_scale, of_shift):
            zeros = tf.zeros_like(scale)
            of_upstream = scale_and_shift(
                of_x, scale=scale, shift=of_shift
            ) + scale_and_shift(x, scale=of_scale, shift=zeros)
            return (
                of_upstream,
                scale_and_shift(upstream, scale=of_scale, shift=zeros),
                _sum_of_products(of_x, upstream),
            )

        return _products(upstream, x, scale), gradient

    return fused(upstream, x, scale)


def _sum_of_products(x, y):
    """Sums of x * y per channel, [channels] float32."""
    if x.dtype == tf.bfloat16:
        return _sums(x, y)[0]
    return tf.reduce_sum(x * y, [0, 1, 2])


def _sums(x, y):
    """The sums of x * y and of x per channel, float32."""
    return _products(x, y, tf.ones([y.shape[-1]]))[1:]


def _products(upstream, x, scale):
    """upstream * scale; sums of upstream * x and of upstream per channel.

    This has no gradient of its own.
    """
    zeros = tf.zeros_like(scale)
    results = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=upstream,
        x=x,
        scale=scale,
        reserve_space_1=zeros,
        reserve_space_2=tf.fill(scale.shape, _VARIANCE),
        reserve_space_3=zeros,
        epsilon=_EPSILON,
        is_training=False,
    )
    return results.x_backprop, results.scale_backprop, results.offset_backprop
