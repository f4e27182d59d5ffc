"""Random initial weights: the release's (quirk 24), and copies of others.

Each function makes a new initializer: in Keras 3 one unseeded instance draws
the same numbers every time it is called.
"""

import keras
import numpy as np


def conv_kernel():
    """Normal, not truncated, variance 2 / (height * width * last dimension).

    The last dimension of a convolution's kernel is its number of filters; for
    a depthwise one, it is the multiplier, 1.
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


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class Dirac(keras.initializers.Initializer):
    """For convolutions: the first filters pass the input's channels on.

    If there are more filters than input channels, the others are random,
    uniform between plus and minus 1 / sqrt(height * width * input channels).

    Args:
      seed: of the random filters; by default a new one for each initializer.
    """

    def __init__(self, seed=None):
        self._random = keras.initializers.VarianceScaling(
            scale=1 / 3, mode="fan_in", distribution="uniform", seed=seed
        )

    def __call__(self, shape, dtype=None):
        """A kernel, [height, width, channels, filters]; its sides are odd."""
        height, width, channels, filters = shape
        passed = np.zeros(shape)
        same = np.arange(min(channels, filters))
        passed[height // 2, width // 2, same, same] = 1.0
        # Filter f returns channel f of the input, and nothing else.
        others = np.arange(filters) >= channels
        random = self._random(shape, dtype)
        return random * keras.ops.cast(others, random.dtype) + keras.ops.cast(
            passed, random.dtype
        )

    def get_config(self):
        return {"seed": self._random.get_config()["seed"]}


def fresh(initializer):
    """A new copy of an initializer, which may be given by its Keras name."""
    return keras.initializers.get(initializer).clone()
