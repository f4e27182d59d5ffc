"""Residual networks of bottleneck blocks as the release builds them.

He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385),
with the details of the release's `resnet_block`: the stride is in the 3x3
convolution, the activation is a plain ReLU, and a shortcut that changes shape
is a convolution with a batch norm of its own (quirks 22, 24 and 25).
"""

import dataclasses

import keras

from meta_pseudo_labels.models.batch_norm import AS_RELEASED
from meta_pseudo_labels.models.families import FAMILIES, Family
from meta_pseudo_labels.models.layers import LayerFactory, image_input

RESNETS = {"resnet-50": dict(blocks_per_stage=(3, 4, 6, 3))}


def resnet(
    *,
    blocks_per_stage,
    input_shape,
    num_classes,
    filters=256,
    bottleneck_rate=4,
    dropout_rate=0.0,
    norm=AS_RELEASED,
    name=None,
    dtype=None,
):
    """Builds a residual network of bottleneck blocks.

    Args:
      blocks_per_stage: blocks of each stage, (3, 4, 6, 3) for ResNet-50. Each
        stage after the first halves the image and doubles the filters.
      input_shape: (height, width, channels) of one image.
      num_classes: number of logits, 2 or more.
      filters: of the first stage's blocks, a multiple of `bottleneck_rate`.
      bottleneck_rate: factor by which a block has fewer filters inside; the
        stem has as many as the first block has inside.
      dropout_rate: before the last layer, in [0, 1).
      norm: `NormSettings` of its batch norm.
      name: of the model.
      dtype: dtype or policy of the layers; None is the global policy.

    Returns:
      A functional `keras.Model` from images [batch, *input_shape] to logits
      [batch, num_classes], float32 or (if computed in it) float64.

    Raises:
      ValueError: for a size, a shape or a rate out of range.
    """
    if not blocks_per_stage or any(blocks < 1 for blocks in blocks_per_stage):
        raise ValueError(
            "blocks_per_stage must be whole numbers of 1 or more, such as "
            f"(3, 4, 6, 3), got {tuple(blocks_per_stage)}."
        )
    if filters < 1 or filters % bottleneck_rate:
        raise ValueError(
            f"filters must be a multiple of bottleneck_rate "
            f"({bottleneck_rate}), got {filters}."
        )
    layers = _Layers(
        policy=keras.dtype_policies.get(dtype),
        norm=norm,
        bottleneck_rate=bottleneck_rate,
    )
    images = image_input(input_shape, policy=layers.policy)
    x = layers.stem(images, filters // bottleneck_rate)
    x = layers.stages(x, filters=filters, blocks_per_stage=blocks_per_stage)
    return layers.classifier(
        images,
        x,
        num_classes=num_classes,
        dropout_rate=dropout_rate,
        name=name,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Layers(LayerFactory):
    bottleneck_rate: int

    def stem(self, x, filters):
        """A 7x7 convolution and max pooling; each halves the image."""
        x = self.conv_norm(x, filters, kernel_size=7, strides=2, scope="stem")
        x = self.relu(x, scope="stem")
        return self.apply(
            keras.layers.MaxPooling2D,
            x,
            "stem.max_pool",
            pool_size=3,
            strides=2,
            padding="same",
        )

    def stages(self, x, *, filters, blocks_per_stage):
        """Stages; all but the first halve the image and double the filters."""
        number = 0
        for stage, blocks in enumerate(blocks_per_stage):
            for position in range(blocks):
                number += 1
                x = self.bottleneck_block(
                    x,
                    filters * 2**stage,
                    strides=2 if stage > 0 and position == 0 else 1,
                    scope=f"block_{number}",
                )
        return x

    def bottleneck_block(self, x, filters, *, strides, scope):
        """Convolutions 1x1, 3x3 and 1x1, plus a shortcut, then ReLU."""
        shortcut, inside = x, filters // self.bottleneck_rate
        first, second = f"{scope}.conv_1x1_1", f"{scope}.conv_3x3"
        residual = f"{scope}.residual"
        x = self.conv_norm(x, inside, kernel_size=1, scope=first)
        x = self.relu(x, scope=first)
        x = self.conv_norm(x, inside, strides=strides, scope=second)
        x = self.relu(x, scope=second)
        x = self.conv_norm(
            x, filters, kernel_size=1, scope=f"{scope}.conv_1x1_2"
        )
        if strides > 1 or shortcut.shape[-1] != filters:
            shortcut = self.conv_norm(
                shortcut,
                filters,
                kernel_size=1,
                strides=strides,
                scope=residual,
            )
        return self.relu(self.add(x, shortcut, scope=residual), scope=residual)

    def conv_norm(self, x, filters, *, scope, **settings):
        """Convolution, then batch norm."""
        x = self.conv(x, filters, scope=scope, **settings)
        return self.batch_norm(x, scope=scope)


@FAMILIES.register("resnet")
class ResNets(Family):
    known = "resnet-50"
    examples = tuple(RESNETS)
    builder = staticmethod(resnet)
    sizes = staticmethod(RESNETS.get)
    has_blocks = True
