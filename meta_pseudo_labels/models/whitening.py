"""Layers that learn from images before training: whitening.

    model = models.build("speednet-64", input_shape=(32, 32, 3), num_classes=10)
    models.adapt(model, images)  # Normalised training images.

A run adapts its networks by itself, once, before its first step; what was
learned is a weight, and saved as one. Not only these layers take part: any one
with `adapt(images)`, of what its network is given, and `is_adapted()`.
"""

import keras
import numpy as np
import tensorflow as tf

from meta_pseudo_labels.utils import compat

_AT_ONCE = 256  # Images, whose patches fit into memory.


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class Whitening(keras.layers.Layer):
    """Whitens the square patches of images: a convolution, without padding.

    Its filters are the principal axes of the patches, divided by the root of
    (variance along the axis + epsilon), and then their negatives: patches that
    are independent and of variance 1. They come from `adapt` and are not
    trained; until then they are the patch's pixels as they are. The number
    that is added to each, at first 0, is trained.

    Args:
      size: of a patch, in pixels.
      epsilon: added to variances, at least 0: a patch's finest differences,
        mostly noise, count less.
      **kwargs: those of `keras.layers.Layer`.

    Raises:
      ValueError: for a number out of range.
    """

    def __init__(self, *, size=2, epsilon=5e-4, **kwargs):
        super().__init__(**kwargs)
        if size < 1 or epsilon < 0:
            raise ValueError(
                "size of a patch must be positive and epsilon not negative; "
                f"got size {size} and epsilon {epsilon}."
            )
        self.size = size
        self.epsilon = epsilon

    def build(self, input_shape):
        values = self.size**2 * input_shape[-1]  # Of a patch.
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.size, self.size, input_shape[-1], 2 * values),
            initializer=_pixels,
            trainable=False,
        )
        self.bias = self.add_weight(
            name="bias", shape=(2 * values,), initializer="zeros"
        )

    def call(self, inputs):
        """[B, H, W, C] to [B, H - size + 1, W - size + 1, filters]."""
        x = tf.nn.conv2d(inputs, self.kernel, strides=1, padding="VALID")
        return tf.nn.bias_add(x, self.bias)

    def adapt(self, images):
        """Takes the filters from images; the same ones from the same images.

        Args:
          images: [N, H, W, C] floats, N of 1 or more; normalised.

        Raises:
          ValueError: for images of another shape, or that are not finite.
        """
        images, channels = np.asarray(images), self.kernel.shape[2]
        least = (1, self.size, self.size)
        if images.ndim != 4 or images.shape[3] != channels:
            raise ValueError(
                f"{self.name!r} adapts to images [N, height, width, "
                f"{channels}]; got {list(images.shape)}."
            )
        if images.dtype.kind != "f" or any(
            n < m for n, m in zip(images.shape, least, strict=False)
        ):
            raise ValueError(
                f"{self.name!r} adapts to normalised images, floats of at "
                f"least {self.size}x{self.size} pixels; got {images.dtype} of "
                f"shape {list(images.shape)}. See data.normalize."
            )
        covariance = _covariance(images, self.size)
        if not np.isfinite(covariance).all():
            raise ValueError(
                f"{self.name!r} adapts to finite numbers; got NaN or infinity."
            )
        self.kernel.assign(
            _filters(covariance, self.epsilon).reshape(self.kernel.shape)
        )

    def is_adapted(self):
        """Whether the filters are others than those it begins with."""
        kernel = keras.ops.convert_to_numpy(self.kernel)
        return not np.array_equal(kernel, _pixels(kernel.shape))

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        less = self.size - 1
        sides = [side and side - less for side in (height, width)]
        return (batch, *sides, 2 * self.size**2 * channels)

    def get_config(self):
        return {
            **super().get_config(),
            "size": self.size,
            "epsilon": self.epsilon,
        }


def adapt(model, images):
    """Adapts what a network has to be adapted to images before training.

    Args:
      model: a built `keras.Model`; before a learner is made of it.
      images: [N, height, width, channels] floats, normalised training images;
        some thousand will do. From the same ones comes the same network.

    Raises:
      ValueError: for images that its layers cannot take.
    """
    for layer in _adapting(model):
        layer.adapt(images)


def is_adapted(model):
    """Whether nothing of a network has to be adapted any more."""
    return all(layer.is_adapted() for layer in _adapting(model))


def check_adapted(model):
    """Raises ValueError for a network that was not adapted to images."""
    if not is_adapted(model):
        raise ValueError(
            f"{model.name!r} must be adapted to images before it is trained: "
            "call models.adapt(model, images) with normalised training images, "
            "some thousand, before you make the learner."
        )


def _adapting(model):
    return [
        layer
        for layer in compat.layers_of(model)
        if hasattr(layer, "adapt") and hasattr(layer, "is_adapted")
    ]


def _pixels(shape, dtype="float32"):
    """Filters that give a patch's values, and their negatives."""
    ones = np.eye(shape[-1] // 2)
    return np.concatenate([ones, -ones], axis=1).reshape(shape).astype(dtype)


def _covariance(images, size):
    """Of the patches, all images together: [values, values] float64."""
    count, sums, products = 0, 0.0, 0.0
    for begin in range(0, len(images), _AT_ONCE):
        part = images[begin : begin + _AT_ONCE].astype(np.float64)
        height, width = (side - size + 1 for side in part.shape[1:3])
        patches = np.concatenate(
            [
                part[:, top : top + height, left : left + width]
                for top in range(size)
                for left in range(size)
            ],
            axis=-1,
        ).reshape(-1, size**2 * part.shape[-1])
        count += len(patches)
        sums += patches.sum(axis=0)
        products += patches.T @ patches
    mean = sums / count
    return products / count - np.outer(mean, mean)


def _filters(covariance, epsilon):
    """[values, 2 * values] float64; a column is a filter."""
    variances, axes = np.linalg.eigh(covariance)
    # An axis has two directions; here its greatest part points upwards.
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(len(axes))])
    # Rounding can leave an axis without variance a negative one.
    filters = axes / np.sqrt(np.maximum(variances, 0.0) + epsilon)
    return np.concatenate([filters, -filters], axis=1)
