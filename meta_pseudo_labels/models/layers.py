"""The layers that our networks share, named and initialized as in the release.

Layer names are the release's scopes, with dots instead of slashes, which Keras
does not allow: `block_1.conv_3x3_1.batch_norm`. `release_variable_name` returns
the release's name of a variable.
"""

import contextlib
import dataclasses
import inspect

import keras
import numpy as np

from meta_pseudo_labels.models import initializers
from meta_pseudo_labels.models.batch_norm import AS_RELEASED, NormSettings
from meta_pseudo_labels.models.dense import classification_head

CHANNELS_LAST = "channels_last"


def release_variable_name(layer_name, variable_name):
    """The release's name, without outer scopes, of a layer's variable.

    >>> release_variable_name("stem.conv2d", "kernel")
    'stem/conv2d/kernel'
    """
    # Keras has one name for all kernels; the release has another for these.
    if layer_name.endswith(".dw_conv_2d") and variable_name == "kernel":
        variable_name = "depthwise_kernel"
    return f"{layer_name.replace('.', '/')}/{variable_name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerFactory:
    """Applies the layers of one network, with the settings they share.

    Every method takes and returns symbolic tensors, [batch, height, width,
    channels] unless it says otherwise; `scope` is the name before the dot.

    Attributes:
      policy: dtype policy of all layers.
      norm: settings of all batch norm layers.
    """

    policy: keras.DTypePolicy
    norm: NormSettings = AS_RELEASED

    def apply(self, layer, x, name, **settings):
        """Applies a new layer of a Keras class, channels last in any case."""
        if "data_format" in inspect.signature(layer).parameters:
            settings["data_format"] = CHANNELS_LAST
        return layer(name=name, dtype=self.policy, **settings)(x)

    def conv(
        self,
        x,
        filters,
        *,
        scope,
        kernel_size=3,
        strides=1,
        use_bias=False,
        layer="conv2d",
    ):
        """Convolution, zero-padded like TensorFlow's SAME.

        `layer` is the name after the dot.
        """
        return self.apply(
            keras.layers.Conv2D,
            x,
            f"{scope}.{layer}",
            filters=filters,
            kernel_size=kernel_size,
            strides=strides,
            padding="same",
            use_bias=use_bias,
            kernel_initializer=initializers.conv_kernel(),
        )

    def depthwise_conv(self, x, *, scope, kernel_size, strides):
        """One filter for each channel, without bias, padded like `conv`."""
        return self.apply(
            keras.layers.DepthwiseConv2D,
            x,
            f"{scope}.dw_conv_2d",
            kernel_size=kernel_size,
            strides=strides,
            padding="same",
            use_bias=False,
            depthwise_initializer=initializers.conv_kernel(),
        )

    def batch_norm(self, x, *, scope):
        """Batch norm, never in less than float32 (quirk 22)."""
        return self.apply(self.norm.layer, x, f"{scope}.batch_norm")

    def relu(self, x, *, scope):
        return self.apply(keras.layers.ReLU, x, f"{scope}.relu")

    def swish(self, x, *, scope):
        """x * sigmoid(x)."""
        name = f"{scope}.swish"
        return self.apply(keras.layers.Activation, x, name, activation="silu")

    def add(self, x, shortcut, *, scope):
        return self.apply(keras.layers.Add, [x, shortcut], f"{scope}.add")

    def classifier(self, images, x, *, num_classes, dropout_rate, name):
        """The network from images to logits [batch, num_classes].

        Args:
          images: symbolic input.
          x: the output of the last block, to be averaged over the image.

        Raises:
          ValueError: see `classification_head`.
        """
        x = self.apply(
            keras.layers.GlobalAveragePooling2D, x, "head.global_avg_pool"
        )
        logits = classification_head(
            x,
            num_classes=num_classes,
            dropout_rate=dropout_rate,
            dtype=self.policy,
        )
        return keras.Model(images, logits, name=name)


@contextlib.contextmanager
def global_policy(policy):
    """Sets the global dtype policy for a while: Keras's networks follow it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def image_input(input_shape, *, policy):
    """A network's input, in the precision of the policy's variables.

    Args:
      input_shape: (height, width, channels) of one image.
      policy: dtype policy of the network.

    Raises:
      ValueError: for any other shape.
    """
    if len(input_shape) != 3:
        raise ValueError(
            "input_shape must be (height, width, channels), "
            f"got {tuple(input_shape)}."
        )
    return keras.Input(input_shape, dtype=policy.variable_dtype, name="images")


def check_data_format(library):
    """Raises ValueError if a library would build a network on other axes.

    Args:
      library: that builds it.
    """
    data_format = keras.config.image_data_format()
    if data_format != CHANNELS_LAST:
        raise ValueError(
            f"Images have their channels last, but {library} builds networks "
            f"for Keras's image_data_format, which is {data_format!r}: call "
            f"keras.config.set_image_data_format({CHANNELS_LAST!r}) first."
        )


def of_levels(images, pixels, *, scale, offset, blue_first=False):
    """scale * levels + offset, computed from normalized images.

    Keras's `Rescaling` is not used: a learner would conclude that it takes
    levels of 0 to 255.

    Args:
      images: [batch, height, width, 3] symbolic.
      pixels: (mean, std) of each channel that they were normalized with, for
        levels divided by 255.
      scale, offset: a number, or one for each channel.
      blue_first: whether the channels of `scale`, `offset` and the result are
        in the order blue, green, red.
    """
    mean, std = (255 * np.array(each) for each in pixels)
    if blue_first:
        images, mean, std = keras.ops.flip(images, -1), mean[::-1], std[::-1]
    factor = (scale * std).astype(images.dtype)
    shift = (scale * mean + offset).astype(images.dtype)
    return keras.ops.add(keras.ops.multiply(images, factor), shift)
