"""EfficientNets as the release builds them (quirks 22, 24 and 25), and lite.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks" (arXiv 1905.11946), with the details of the release's
`mb_conv_block`: the width of squeeze-and-excitation follows the block's input,
not its expanded channels, and dropout before the head is a separate setting.

The lite ones, which the release does not have, are for small computers: ReLU6
instead of swish, no squeeze-and-excitation, and a stem, a head, a first and a
last stage that do not grow (tensorflow/tpu, `efficientnet/lite`).
"""

import dataclasses
import math
import sys
import typing

import keras

from meta_pseudo_labels.models.batch_norm import AS_RELEASED
from meta_pseudo_labels.models.dropout import StochasticDepth, check_rate
from meta_pseudo_labels.models.families import FAMILIES, Family
from meta_pseudo_labels.models.layers import (
    LayerFactory,
    image_input,
    of_levels,
)


class Stage(typing.NamedTuple):
    """A row of blocks at width 1; only its first block has the strides."""

    blocks: int
    kernel_size: int
    filters: int
    strides: int
    small_strides: int  # For small images.
    expansion: int  # Channels inside a block per channel of its input.


STEM_FILTERS, HEAD_FILTERS = 32, 1280
LAYERS_PER_BLOCK = 16
STAGES = tuple(
    Stage(*row)
    for row in (
        # blocks, kernel, filters, strides, the same for small images, expansion
        (1, 3, 16, 1, 1, 1),
        (2, 3, 24, 2, 1, 6),
        (2, 5, 40, 2, 1, 6),
        (3, 3, 80, 2, 2, 6),
        (3, 5, 112, 1, 1, 6),
        (4, 5, 192, 2, 2, 6),
        (1, 3, 320, 1, 1, 6),
    )
)

# Factors of width and depth.
EFFICIENTNETS = {
    f"efficientnet-{name}": dict(width=width, depth=depth)
    for name, width, depth in (
        ("bs", 0.5, 1.0),
        ("b0", 1.0, 1.0),
        ("b1", 1.0, 1.1),
        ("b2", 1.1, 1.2),
        ("b3", 1.2, 1.4),
        ("b4", 1.4, 1.8),
        ("b5", 1.6, 2.2),
        ("b6", 1.8, 2.6),
        ("b7", 2.0, 3.1),
        ("b8", 2.2, 3.6),
        ("l2", 4.3, 5.3),
        ("b5-mpl", 5.0, 2.2),
        ("b6-mpl", 5.0, 2.6),
    )
}
LITE = {
    f"efficientnet-lite{number}": dict(width=width, depth=depth, lite=True)
    for number, (width, depth) in enumerate(
        [(1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8)]
    )
}
# What the lite ones were trained on: (levels - 127) / 128.
LITE_LEVELS = dict(scale=1 / 128, offset=-127 / 128)


def efficientnet(
    *,
    width,
    depth,
    input_shape,
    num_classes,
    lite=False,
    small_images=False,
    stochastic_depth_drop_rate=0.0,
    dropout_rate=0.0,
    norm=AS_RELEASED,
    pixels=None,
    name=None,
    dtype=None,
):
    """Builds an EfficientNet.

    Args:
      width: factor for all numbers of filters, 1 for B0; see `scaled_filters`.
      depth: factor for the number of blocks in each stage, rounded up.
      input_shape: (height, width, channels) of one image.
      num_classes: number of logits, 2 or more.
      lite: whether to build the variant for small computers.
      small_images: stride 1 instead of 2 in the stem and in the second and
        third stage, as for CIFAR and SVHN: the image shrinks 4 times, not 32.
        Ignored with `pixels`: published weights are for the usual strides.
      stochastic_depth_drop_rate: block i of n, counted from 0, leaves out its
        residual branch with i / n times this probability; in [0, 1).
      dropout_rate: before the last layer, in [0, 1).
      norm: `NormSettings` of its batch norm.
      pixels: (mean, std) of each channel, in 0..1 units, that images are
        normalized with: a lite one then first converts them to what its
        published weights were trained on. None: no conversion.
      name: of the model.
      dtype: dtype or policy of the layers; None is the global policy.

    Returns:
      A functional `keras.Model` from images [batch, *input_shape] to logits
      [batch, num_classes], float32 or (if computed in it) float64.

    Raises:
      ValueError: for a factor, a shape or a rate out of range.
    """
    if width <= 0 or depth <= 0:
        raise ValueError(
            "width and depth of an EfficientNet must be positive, got width "
            f"{width} and depth {depth}."
        )
    if pixels is not None and not lite:
        raise ValueError(
            "Only lite EfficientNets tell what pixels they were trained on; "
            "leave pixels out."
        )
    small_images = small_images and pixels is None
    layers = _Layers(
        policy=keras.dtype_policies.get(dtype),
        norm=norm,
        width=width,
        depth=depth,
        lite=lite,
        small_images=small_images,
        drop_rate=check_rate(
            "stochastic_depth_drop_rate", stochastic_depth_drop_rate
        ),
    )
    _allow_depth(layers.number_of_blocks())
    images = image_input(input_shape, policy=layers.policy)
    seen = images
    if pixels is not None:
        seen = of_levels(images, pixels, **LITE_LEVELS)
    x = layers.conv_norm_activation(
        seen,
        layers.end_filters(STEM_FILTERS),
        strides=1 if small_images else 2,
        scope="stem",
    )
    x = layers.stages(x)
    x = layers.conv_norm_activation(
        x,
        layers.end_filters(HEAD_FILTERS),
        kernel_size=1,
        scope="head",
    )
    return layers.classifier(
        images,
        x,
        num_classes=num_classes,
        dropout_rate=dropout_rate,
        name=name,
    )


def scaled_filters(filters, *, width):
    """width * filters, rounded to the nearest multiple of 8, at least 8.

    Rounds up if the nearest multiple is less than nine tenths of the product.
    """
    exact = width * filters
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * exact else rounded + 8


def scaled_blocks(blocks, *, depth):
    """depth * blocks, rounded up."""
    return math.ceil(depth * blocks)


def _allow_depth(blocks):
    """Lets Keras walk a network of this many blocks with nested calls.

    L2 is 1,400 layers deep; Python stops at 1,000 nested calls. The new limit
    stays, as saving and copying the network walk it again.
    """
    needed = LAYERS_PER_BLOCK * blocks + 500
    sys.setrecursionlimit(max(sys.getrecursionlimit(), needed))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Layers(LayerFactory):
    width: float
    depth: float
    lite: bool
    small_images: bool
    drop_rate: float

    def number_of_blocks(self):
        return sum(map(self.blocks, STAGES))

    def blocks(self, stage):
        if self.lite and stage in (STAGES[0], STAGES[-1]):
            return stage.blocks
        return scaled_blocks(stage.blocks, depth=self.depth)

    def end_filters(self, filters):
        """Filters of the stem or the head."""
        return (
            filters if self.lite else scaled_filters(filters, width=self.width)
        )

    def stages(self, x):
        """All stages; blocks are numbered across stages, from 0."""
        total, number = self.number_of_blocks(), 0
        for stage in STAGES:
            blocks = self.blocks(stage)
            strides = (
                stage.small_strides if self.small_images else stage.strides
            )
            for position in range(blocks):
                x = self.block(
                    x,
                    scaled_filters(stage.filters, width=self.width),
                    kernel_size=stage.kernel_size,
                    strides=strides if position == 0 else 1,
                    expansion=stage.expansion,
                    drop_rate=self.drop_rate * number / total,
                    scope=f"block_{number}",
                )
                number += 1
        return x

    def block(
        self, x, filters, *, kernel_size, strides, expansion, drop_rate, scope
    ):
        """Expand, filter each channel, excite, project; plus a shortcut."""
        inputs, channels = x, x.shape[-1]
        if expansion > 1:
            x = self.conv_norm_activation(
                x, expansion * channels, kernel_size=1, scope=f"{scope}.expand"
            )
        depthwise, output = f"{scope}.depthwise", f"{scope}.output"
        x = self.depthwise_conv(
            x, kernel_size=kernel_size, strides=strides, scope=depthwise
        )
        x = self.activation(self.batch_norm(x, scope=depthwise), depthwise)
        if not self.lite:
            x = self.squeeze_and_excitation(
                x, max(1, channels // 4), scope=f"{scope}.se"
            )
        x = self.conv(x, filters, kernel_size=1, scope=output)
        x = self.batch_norm(x, scope=output)
        if strides > 1 or channels != filters:
            return x
        residual = f"{scope}.residual"
        if drop_rate > 0:
            name = f"{residual}.stochastic_depth"
            x = self.apply(StochasticDepth, x, name, rate=drop_rate)
        return self.add(x, inputs, scope=residual)

    def squeeze_and_excitation(self, x, filters, *, scope):
        """Scales each channel by a small network on all channels' means."""
        layers = keras.layers
        dense = dict(kernel_size=1, use_bias=True, scope=scope)
        gate = self.apply(
            layers.GlobalAveragePooling2D, x, f"{scope}.mean", keepdims=True
        )
        gate = self.conv(gate, filters, layer="reduce", **dense)
        gate = self.swish(gate, scope=scope)
        gate = self.conv(gate, x.shape[-1], layer="expand", **dense)
        gate = self.apply(
            layers.Activation, gate, f"{scope}.sigmoid", activation="sigmoid"
        )
        return self.apply(layers.Multiply, [gate, x], f"{scope}.multiply")

    def conv_norm_activation(self, x, filters, *, scope, **settings):
        """Convolution, batch norm, activation."""
        x = self.conv(x, filters, scope=scope, **settings)
        return self.activation(self.batch_norm(x, scope=scope), scope)

    def activation(self, x, scope):
        if not self.lite:
            return self.swish(x, scope=scope)
        name = f"{scope}.relu6"
        return self.apply(keras.layers.ReLU, x, name, max_value=6.0)


@FAMILIES.register("efficientnet")
class EfficientNets(Family):
    known = "efficientnet-<bs, b0 to b8, l2>"
    examples = tuple(EFFICIENTNETS)
    builder = staticmethod(efficientnet)
    sizes = staticmethod(EFFICIENTNETS.get)
    has_blocks = True


@FAMILIES.register("efficientnet_lite")
class LiteEfficientNets(EfficientNets):
    known = "efficientnet-<lite0 to lite4>"
    examples = tuple(LITE)
    sizes = staticmethod(LITE.get)
    has_preprocessing = True
