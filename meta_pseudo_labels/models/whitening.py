"""Layers that learn from images before training: whitening.

    model = models.build("speednet-64", input_shape=(32, 32, 3), num_classes=10)
    models.adapt(model, images)  # Normalized training images.

A run adapts its networks itself, once, before its first step; the result is a
weight, and saved as one. Any layer can take part that has `adapt(images)`,
called with its network's inputs, and `is_adapted()`.
"""

import keras
import numpy as np
import tensorflow as tf

from meta_pseudo_labels.utils import compat

_AT_ONCE = 256  # Images, so that their patches fit into memory.


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class Whitening(keras.layers.Layer):
    """Whitens the square patches of images: a convolution without padding.

    Its filters are the principal axes of the patches, divided by the root of
    (variance along the axis + epsilon), followed by their negatives: outputs
    are independent and have variance 1. Filters come from `adapt` and are not
    trained; before that they return a patch's pixels unchanged. The bias of
    each, at first 0, is trained.

    Args:
      size: of a patch, in pixels.
      epsilon: added to variances, at least 0, so that a patch's finest
        differences, mostly noise, count less.
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
        values = self.size**2 * input_shape[-1]  # Per patch.
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
        """Computes the filters from images; equal images give equal filters.

        Args:
          images: [N, H, W, C] floats, N of 1 or more; normalized.

        Raises:
          ValueError: for images of another shape, or with values that are not
            finite.
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
                f"{self.name!r} adapts to normalized images, floats of at "
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
        """Whether the filters differ from those it begins with."""
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
    """Adapts a network's layers to images before training, if they need it.

    Args:
      model: a built `keras.Model`, before a learner is made from it.
      images: [N, height, width, channels] floats, normalized training images;
        a few thousand will do. The same images give the same network.

    Raises:
      ValueError: for images that its layers do not accept.
    """
    for layer in _adapting(model):
        layer.adapt(images)


def is_adapted(model):
    """Whether no part of a network still has to be adapted."""
    return all(layer.is_adapted() for layer in _adapting(model))


def check_adapted(model):
    """Raises ValueError for a network that has not been adapted to images."""
    if not is_adapted(model):
        raise ValueError(
            f"{model.name!r} must be adapted to images before it is trained: "
            "call models.adapt(model, images) with a few thousand normalized "
            "training images before you make the learner."
        )


def _adapting(model):
    return [
        layer
        for layer in compat.layers_of(model)
        if hasattr(layer, "adapt") and hasattr(layer, "is_adapted")
    ]


def _pixels(shape, dtype="float32"):
    """Filters that return a patch's values, and their negatives."""
    ones = np.eye(shape[-1] // 2)
    return np.concatenate([ones, -ones], axis=1).reshape(shape).astype(dtype)


def _covariance(images, size):
    """The covariance of all images' patches: [values, values] float64."""
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
    """[values, 2 * values] float64; each column is a filter."""
    variances, axes = np.linalg.eigh(covariance)
    # An axis has two directions; here its entry of largest size is positive.
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(len(axes))])
    # Rounding can give an axis without variance a negative one.
    filters = axes / np.sqrt(np.maximum(variances, 0.0) + epsilon)
    return np.concatenate([filters, -filters], axis=1)
