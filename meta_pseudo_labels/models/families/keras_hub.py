"""Networks of KerasHub, from a preset on disk, with our own head.

A preset is a folder, as `save_to_preset` writes it: config.json says which
backbone it is, model.weights.h5 holds what that learned, image_converter.json
the pixels that it learned from. Nothing is downloaded.
"""

import functools
import os

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from meta_pseudo_labels.models.dense import classification_head
from meta_pseudo_labels.models.families import FAMILIES, Family, is_preset
from meta_pseudo_labels.models.keras_hub_presets import (
    NAME,
    SHAPES,
    check_converter,
    check_preset,
    hub,
    image_converter,
    image_shape,
)
from meta_pseudo_labels.models.layers import (
    global_policy,
    image_input,
    of_levels,
)
from meta_pseudo_labels.utils.checkpoint_files import first_line

# All weights, or the list of the files that they are cut into.
_WEIGHTS = ("model.weights.h5", "model.weights.json")
# Transformers whose first token is that of the class. ViT says it itself.
_CLASS_TOKENS = ("DeiTBackbone", "DINOV2Backbone", "DINOV3Backbone")
# Those whose tokens are places alone.
_PLACES = ("SwinTransformerBackbone",)
# What a smaller image or network helps against, and no other preset.
_TOO_LARGE = (MemoryError, tf.errors.ResourceExhaustedError)


def keras_hub_network(
    preset,
    *,
    input_shape,
    num_classes,
    dropout_rate=0.0,
    pixels=None,
    name=None,
    dtype=None,
):
    """Builds the backbone of a preset, with fresh weights and our own head.

    The head sees the mean over the image, or the token of the class where the
    backbone has one. Settings of the backbone, such as its dropout, are those
    of the preset.

    Args:
      preset: the folder.
      input_shape: (height, width, channels) of one image. Weights of a
        transformer fit images of the size it was trained on alone.
      num_classes: number of logits, 2 or more.
      dropout_rate: before the last layer, in [0, 1).
      pixels: (mean, std) of each channel, 0..1 units, by which images are
        normalised: the network then begins by making of them what the preset's
        image converter makes of levels (scale and offset; images are resized
        before). None: as they are.
      name: of the model; default: of the folder.
      dtype: dtype or policy of the layers; None is the global policy.

    Returns:
      A functional `keras.Model` from images [batch, *input_shape] to logits
      [batch, num_classes], float32 or (if computed in it) float64.

    Raises:
      ValueError: for a folder that is no preset of a network for images, an
        image that the backbone does not take, or pixels where the preset does
        not say which it was trained on.
    """
    settings = check_preset(preset)
    policy = keras.dtype_policies.get(dtype)
    images = image_input(input_shape, policy=policy)
    seen = images
    if pixels is not None:
        converter = image_converter(preset)
        seen = of_levels(
            images,
            pixels,
            scale=_per_channel(converter.scale, 1.0),
            offset=_per_channel(converter.offset, 0.0),
        )
        if converter.image_size not in (None, tuple(input_shape[:2])):
            _tell_of_size(preset, converter.image_size, tuple(input_shape[:2]))
    backbone = _backbone(preset, settings, input_shape, policy=policy)
    logits = classification_head(
        _pooled(_called(backbone, seen, preset), backbone, policy=policy),
        num_classes=num_classes,
        dropout_rate=dropout_rate,
        dtype=policy,
    )
    if name in (None, f"{NAME}:{preset}"):  # No name of a model has a slash.
        name = _basename(preset)
    return keras.Model(images, logits, name=name)


def pretrained_backbone(_, preset, *, input_shape):
    """The backbone of a preset, as it was trained, on images of a shape.

    Args:
      preset: the folder.
      input_shape: see `keras_hub_network`.

    Returns:
      A `keras.Model`, built as `keras_hub_network` is, less its head.

    Raises:
      ValueError: where its weights are not for such images.
    """
    settings = check_preset(preset)
    policy = keras.dtype_policies.get("float32")
    images = image_input(input_shape, policy=policy)
    backbone = _backbone(
        preset, settings, input_shape, policy=policy, load_weights=True
    )
    return keras.Model(
        images, _called(backbone, images, preset), name=_basename(preset)
    )


def _basename(folder):
    return os.path.basename(os.path.abspath(folder))


@functools.cache
def _tell_of_size(preset, theirs, ours):
    logging.warning(
        "%s is for images of %s, these are of %s; --image_size=%d has them as "
        "it was trained.",
        preset,
        _size(theirs),
        _size(ours),
        theirs[0],
    )


def _size(shape):
    return f"{shape[0]}x{shape[1]}"


def _backbone(preset, settings, input_shape, *, policy, load_weights=False):
    """The backbone of a preset for images of a shape.

    Its name is always the same, for that is part of those of its weights.

    Raises:
      ValueError: where KerasHub does not make one.
    """
    # Where the preset leaves the size open, the network does too.
    sized = {
        key: tuple(input_shape)
        for key in SHAPES
        if None not in (settings.get(key) or [None])
    }
    # Of an absolute path KerasHub does not think that it is one of its names.
    keras_hub = hub()
    try:
        with global_policy(policy):
            return keras_hub.models.Backbone.from_preset(
                os.path.abspath(preset),
                load_weights=load_weights,
                dtype=policy,
                name="backbone",
                trainable=True,
                **sized,
            )
    except _TOO_LARGE:
        raise
    except Exception as error:  # Whatever the layers of a network raise.
        size = _size(input_shape)
        what = "weights" if load_weights else "network"
        raise ValueError(
            f"{preset} gives no {what} for images of {size}: "
            f"{first_line(error)}{_other_size(preset, settings, size)}"
        ) from error


def _other_size(preset, settings, size):
    """What to say of the preset's size of images, where it is another one."""
    found = image_shape(settings)[:2]
    if None in found:
        try:
            found = image_converter(preset).image_size or found
        except ValueError:
            pass
    if None in found or _size(found) == size:
        return ""
    return f" The preset is for images of {_size(found)}."


def _per_channel(value, default):
    return default if value is None else np.array(value, "float64")


def _called(backbone, images, preset):
    """What a backbone makes of images.

    Raises:
      ValueError: for one of other inputs, or images that it does not take.
    """
    if len(keras.tree.flatten(backbone.input)) != 1:
        raise ValueError(
            f"{preset} is a preset of {type(backbone).__name__}, which takes "
            "more than images; give one that takes images alone."
        )
    inputs = keras.tree.map_structure(lambda _: images, backbone.input)
    try:
        return backbone(inputs)
    except _TOO_LARGE:
        raise
    except Exception as error:  # Whatever the layers of a network raise.
        raise ValueError(
            f"{preset} does not take images of {_size(images.shape[1:])}: "
            f"{first_line(error)}"
        ) from error


def _pooled(features, backbone, *, policy):
    """[batch, channels] of what a backbone returns.

    Raises:
      ValueError: for anything but features of places, or of tokens.
    """
    kind = type(backbone).__name__
    if isinstance(features, dict):  # Of several stages.
        features = list(features.values())[-1]
    rank = len(getattr(features, "shape", ()))
    says = getattr(backbone, "use_class_token", None)
    if rank == 3 and (kind in _CLASS_TOKENS or says):
        return features[:, 0]
    if rank == 3 and says is None and kind not in _PLACES:
        raise ValueError(
            f"{kind} returns tokens, and it is not known here which of them is "
            "that of the class; give a preset of another network."
        )
    layers = {
        3: keras.layers.GlobalAveragePooling1D,
        4: keras.layers.GlobalAveragePooling2D,
    }
    if rank not in layers:
        raise ValueError(
            f"{kind} does not return features of an image, but "
            f"{keras.tree.map_structure(lambda x: x.shape, features)}; give a "
            "preset of a network that classifies."
        )
    return layers[rank](name="head.global_avg_pool", dtype=policy)(features)


@FAMILIES.register(NAME)
class KerasHub(Family):
    known = "keras_hub:<folder>"
    builder = staticmethod(keras_hub_network)
    has_preprocessing = True
    pretrained = staticmethod(pretrained_backbone)
    named_by_weights = NAME

    @staticmethod
    def sizes(model_type):
        kind, _, folder = model_type.partition(":")
        if kind != NAME:
            return None
        if not folder:
            raise ValueError(
                f"{model_type} is named by a preset: say {NAME}:<folder>, or "
                "give its folder as the weights too."
            )
        check_preset(folder)
        return dict(preset=folder)

    @staticmethod
    def check_pixels(sizes):
        check_converter(sizes["preset"])

    @staticmethod
    def check_pretrained(weights):
        if not is_preset(weights):
            raise ValueError(
                f"{weights} is for networks of keras.applications; give the "
                "folder of a preset of KerasHub."
            )
        check_preset(weights)
        if not any(os.path.isfile(os.path.join(weights, w)) for w in _WEIGHTS):
            raise ValueError(
                f"{weights} has no {_WEIGHTS[0]}: give the whole preset."
            )
