"""Random initial weights: the release's (quirk 24), and copies of others.

Each function makes a new initializer: in Keras 3 one unseeded instance draws
the same numbers every time that it is called.
"""

import keras


def conv_kernel():
    """Normal, not truncated, variance 2 / (height * width * last dimension).

    The last dimension of a convolution's kernel is its number of filters; of
    a depthwise one it is the multiplier, 1.
    """
    return keras.initializers.VarianceScaling(
        scale=2.0, mode="fan_out", distribution="untruncated_normal"
    )


def dense_kernel():
    """Uniform between plus and minus 1 / sqrt(number of outputs)."""
    # Keras draws from +-sqrt(3 * scale / fan).
    return keras.initializers.VarianceScaling(
        scale=1 / 3, mode="fan_out", distribution="uniform"
    )


def fresh(initializer):
    """A new copy of an initializer, or of that of a Keras name."""
    return keras.initializers.get(initializer).clone()
