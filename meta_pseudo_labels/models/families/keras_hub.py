"""Networks of KerasHub, from a preset on disk, with our own head.

A preset is a folder, as `save_to_preset` writes it: config.json names the
backbone, model.weights.h5 holds its weights, and image_converter.json describes
the pixels that it was trained on. Nothing is downloaded.
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
    check_data_format,
    global_policy,
    image_input,
    of_levels,
)
from meta_pseudo_labels.utils.checkpoint_files import first_line

# All weights, or the list of the files that they are split into.
_WEIGHTS = ("model.weights.h5", "model.weights.json")
# Transformers whose first token is the class token. ViT says so itself.
_CLASS_TOKENS = ("DeiTBackbone", "DINOV2Backbone", "DINOV3Backbone")
# Those whose tokens are all places.
_PLACES = ("SwinTransformerBackbone",)
# Errors that a smaller image or network avoids, and another preset does not.
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

    The head sees the mean over the image, or the class token if the backbone
    has one. Settings of the backbone, such as its dropout, are those
    of the preset.

    Args:
      preset: the folder.
      input_shape: (height, width, channels) of one image. Weights of a
        transformer fit only images of the size it was trained on.
      num_classes: number of logits, 2 or more.
      dropout_rate: before the last layer, in [0, 1).
      pixels: (mean, std) of each channel, in 0..1 units, that images are
        normalized with: the network then first converts them to what the
        preset's image converter makes of levels (scale and offset; images are
        resized before). None: no conversion.
      name: of the model; default: that of the folder.
      dtype: dtype or policy of the layers; None is the global policy.

    Returns:
      A functional `keras.Model` from images [batch, *input_shape] to logits
      [batch, num_classes], float32 or (if computed in it) float64.

    Raises:
      ValueError: for a folder that is not a preset of a network for images,
        an image that the backbone does not accept, or pixels if the preset
        does not tell which it was trained on.
    """
    settings = check_preset(preset)
    check_data_format("KerasHub")
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
    if name in (None, f"{NAME}:{preset}"):  # A model's name has no slash.
        name = _basename(preset)
    return keras.Model(images, logits, name=name)


def pretrained_backbone(_, preset, *, input_shape):
    """The backbone of a preset with its trained weights, for an image shape.

    Args:
      preset: the folder.
      input_shape: see `keras_hub_network`.

    Returns:
      A `keras.Model`, built like `keras_hub_network`'s but without its head.

    Raises:
      ValueError: if its weights are not for such images.
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
        "%s is for images of %s, these are of %s; --image_size=%d gives the "
        "size that it was trained on.",
        preset,
        _size(theirs),
        _size(ours),
        theirs[0],
    )


def _size(shape):
    return f"{shape[0]}x{shape[1]}"


def _backbone(preset, settings, input_shape, *, policy, load_weights=False):
    """The backbone of a preset for images of a shape.

    Its name is always the same, as it is part of its weights' names.

    Raises:
      ValueError: if KerasHub does not make one.
    """
    # If the preset leaves the size open, the network does too.
    sized = {
        key: tuple(input_shape)
        for key in SHAPES
        if None not in (settings.get(key) or [None])
    }
    # KerasHub does not mistake an absolute path for one of its names.
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
            f"{preset} provides no {what} for images of {size}: "
            f"{first_line(error)}{_other_size(preset, settings, size)}"
        ) from error


def _other_size(preset, settings, size):
    """A sentence about the preset's image size, if that is another one."""
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
    """The outputs of a backbone for images.

    Raises:
      ValueError: for one with other inputs, or images that it does not accept.
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
    """Pools what a backbone returns to [batch, channels].

    Raises:
      ValueError: for anything but features of places or of tokens.
    """
    kind = type(backbone).__name__
    if isinstance(features, dict):  # From several stages.
        features = list(features.values())[-1]
    rank = len(getattr(features, "shape", ()))
    says = getattr(backbone, "use_class_token", None)
    if rank == 3 and (kind in _CLASS_TOKENS or says):
        return features[:, 0]
    if rank == 3 and says is None and kind not in _PLACES:
        raise ValueError(
            f"{kind} returns tokens, and it is not known here which of them is "
            "the class token; give a preset of another network."
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
                f"{model_type} is named by a preset: use {NAME}:<folder>, or "
                "give its folder as the weights."
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
