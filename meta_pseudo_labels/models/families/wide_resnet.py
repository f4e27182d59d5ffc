"""Wide residual networks as the release builds them (quirks 22 to 24).

Zagoruyko and Komodakis, "Wide Residual Networks" (arXiv 1605.07146), with the
details of the release: leaky ReLU, a shortcut that branches off after the
first activation if the shape changes, and the raw input as shortcut otherwise.
"""

import dataclasses
import re

import keras

from meta_pseudo_labels.models.batch_norm import AS_RELEASED
from meta_pseudo_labels.models.families import FAMILIES, Family
from meta_pseudo_labels.models.layers import LayerFactory, image_input

# Networks that the pattern wrn-<depth>-<k> does not cover (quirk 23).
WIDE_RESNETS = {
    "wrn-28-large": dict(depth=28, width=135 / 16, stem_filters=16),
}

_DEEPEST, _WIDEST = 1_000, 1_000


def wide_resnet(
    *,
    depth,
    width,
    input_shape,
    num_classes,
    stem_filters=None,
    dropout_rate=0.0,
    norm=AS_RELEASED,
    leaky_slope=0.2,
    name=None,
    dtype=None,
):
    """Builds a wide residual network.

    Args:
      depth: 6n + 4 for n blocks in each of the three stages: 10, 16, 22, 28...
      width: k; the stages have 16k (a whole number), 32k, 64k filters.
      input_shape: (height, width, channels) of one image.
      num_classes: number of logits, 2 or more.
      stem_filters: filters of the first convolution; default 16k.
      dropout_rate: before the last layer, in [0, 1).
      norm: `NormSettings` of its batch norm.
      leaky_slope: slope of the activation for negative inputs.
      name: of the model.
      dtype: dtype or policy of the layers; None is the global policy.

    Returns:
      A functional `keras.Model` from images [batch, *input_shape] to logits
      [batch, num_classes], float32 or (if computed in it) float64.

    Raises:
      ValueError: for a size, a shape or a rate out of range.
    """
    blocks, filters = blocks_per_stage(depth), first_stage_filters(width)
    layers = _Layers(
        policy=keras.dtype_policies.get(dtype),
        norm=norm,
        leaky_slope=leaky_slope,
    )
    images = image_input(input_shape, policy=layers.policy)
    x = layers.conv(images, stem_filters or filters, scope="stem")
    x = layers.stages(x, filters=filters, blocks_per_stage=blocks)
    x = layers.batch_norm_relu(x, scope="head")
    return layers.classifier(
        images,
        x,
        num_classes=num_classes,
        dropout_rate=dropout_rate,
        name=name,
    )


def blocks_per_stage(depth):
    """Blocks in each stage; raises ValueError if that is not a whole number."""
    blocks, rest = divmod(depth - 4, 6)
    if blocks < 1 or rest or depth > _DEEPEST:
        raise ValueError(
            "depth of a wide ResNet must be 6n + 4 with n of 1 or more "
            f"(10, 16, 22, 28, ... {_DEEPEST}), got {depth}."
        )
    return blocks


def first_stage_filters(width):
    """16 * width; raises ValueError if that is not a whole number."""
    filters = 16 * width
    if not 1 <= filters <= 16 * _WIDEST or filters != int(filters):
        raise ValueError(
            f"width of a wide ResNet must be positive, at most {_WIDEST}, and "
            f"16 * width a whole number, got {width}."
        )
    return int(filters)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Layers(LayerFactory):
    leaky_slope: float

    def stages(self, x, *, filters, blocks_per_stage):
        """Three stages; the last two halve the image and double the filters."""
        for block in range(3 * blocks_per_stage):
            stage, position = divmod(block, blocks_per_stage)
            x = self.residual_block(
                x,
                filters * 2**stage,
                strides=2 if stage > 0 and position == 0 else 1,
                scope=f"block_{block + 1}",
            )
        return x

    def residual_block(self, x, filters, *, strides, scope):
        """Twice (batch norm, activation, 3x3 convolution), plus a shortcut."""
        shortcut = x
        first, second = f"{scope}.conv_3x3_1", f"{scope}.conv_3x3_2"
        activated = self.batch_norm_relu(x, scope=first)
        if strides > 1 or x.shape[-1] != filters:
            shortcut = self.conv(
                activated,
                filters,
                kernel_size=1,
                strides=strides,
                scope=f"{scope}.residual",
            )
        x = self.conv(activated, filters, strides=strides, scope=first)
        x = self.batch_norm_relu(x, scope=second)
        x = self.conv(x, filters, scope=second)
        return self.add(x, shortcut, scope=f"{scope}.residual")

    def batch_norm_relu(self, x, *, scope):
        """Batch norm, then leaky ReLU."""
        x = self.batch_norm(x, scope=scope)
        name = f"{scope}.leaky_relu"
        slope = self.leaky_slope
        return self.apply(keras.layers.LeakyReLU, x, name, negative_slope=slope)


@FAMILIES.register("wide_resnet")
class WideResNets(Family):
    known = "wrn-<depth>-<k>"
    examples = (
        "wrn-10-1",
        "wrn-16-8",
        "wrn-28-2",
        "wrn-28-10",
        "wrn-40-2",
        *WIDE_RESNETS,
    )
    builder = staticmethod(wide_resnet)
    has_blocks = True
    release_scopes = {"wrn-28-large": "wrn-28-135"}

    @staticmethod
    def sizes(model_type):
        if model_type in WIDE_RESNETS:
            return WIDE_RESNETS[model_type]
        numbers = re.fullmatch(r"wrn-(\d{1,9})-(\d{1,9})", model_type)
        if not numbers:
            return None
        depth, width = int(numbers[1]), int(numbers[2])
        blocks_per_stage(depth), first_stage_filters(width)  # These check.
        return dict(depth=depth, width=width)

    @staticmethod
    def weights(sizes, *, input_shape, num_classes):
        blocks = blocks_per_stage(sizes["depth"])
        filters = first_stage_filters(sizes["width"])
        # Of the 3x3 convolutions: two per block, with 1, 2 and 4 times the
        # filters; the first of each later stage has half as many channels.
        squares = sum((2 * blocks - (f > 1) / 2) * f**2 for f in (1, 2, 4))
        return int(9 * squares * filters**2) + 4 * filters * num_classes
