"""Presets of KerasHub, small enough to be written by a test."""

import keras

from tests.models.helpers import randomize

SCALE, OFFSET = [0.017, 0.018, 0.016], [-2.1, -2.0, -1.8]
SIZE = 24


def resnet(**settings):
    from keras_hub import models

    defaults = dict(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
    )
    return models.ResNetBackbone(**defaults | settings)


def vit(**settings):
    from keras_hub import models

    defaults = dict(
        image_shape=(SIZE, SIZE, 3),
        patch_size=8,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=16,
    )
    return models.ViTBackbone(**defaults | settings)


def converter(**settings):
    """What makes the pixels that a network was trained on of levels."""
    import keras_hub

    defaults = dict(image_size=(SIZE, SIZE), scale=SCALE, offset=OFFSET)
    return keras_hub.layers.ImageConverter(**defaults | settings)


def write(folder, backbone=None, image_converter=True):
    """Writes a preset, and returns its backbone, of random weights.

    Args:
      folder: to write to.
      backbone: by default `resnet()`.
      image_converter: whether it says what pixels it was trained on; or one.
    """
    backbone = backbone or resnet()
    if isinstance(backbone, keras.Model):
        randomize(backbone)
    backbone.save_to_preset(str(folder))
    if image_converter is True:
        image_converter = converter()
    if image_converter:
        image_converter.save_to_preset(str(folder))
    return backbone
