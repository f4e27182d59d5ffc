"""Networks of KerasHub, from a preset on disk, with our own head.

A preset is a folder, as `save_to_preset` writes it: config.json says which
backbone it is, model.weights.h5 holds what that learned, image_converter.json
the pixels that it learned from. Nothing is downloaded.
"""

import functools
import importlib.util
import json
import os

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from meta_pseudo_labels.models.dense import classification_head
from meta_pseudo_labels.models.families import (
    FAMILIES,
    PRESET_CONFIG,
    Family,
    is_preset,
)
from meta_pseudo_labels.models.layers import (
    global_policy,
    image_input,
    of_levels,
)
from meta_pseudo_labels.utils.checkpoint_files import first_line

_NAME = "keras_hub"
_CONVERTER = "image_converter.json"
# All weights, or the list of the files that they are cut into.
_WEIGHTS = ("model.weights.h5", "model.weights.json")
# As the backbones call the shape of an image in their settings.
_SHAPES = ("image_shape", "input_shape")
# Transformers whose first token is that of the class. ViT says it itself.
_CLASS_TOKENS = ("DeiTBackbone", "DINOV2Backbone", "DINOV3Backbone")
# Those whose tokens are places alone.
_PLACES = ("SwinTransformerBackbone",)
# What a smaller image or network helps against, and no other preset.
_TOO_LARGE = (MemoryError, tf.errors.ResourceExhaustedError)
_INSTALL = "pip install 'meta-pseudo-labels[hub]', or keras-hub"
_DOWNLOAD = (
    "nothing is downloaded here. Where there is a network, say keras_hub."
    "models.ImageClassifier.from_preset(NAME).save_to_preset(FOLDER), and give "
    "that folder."
)


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
        converter = _converter(preset)
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
    if name in (None, f"{_NAME}:{preset}"):  # No name of a model has a slash.
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


def check_preset(folder):
    """Refuses what is no preset of a network for images, by its config.json.

    Args:
      folder: its path.

    Returns:
      The settings of its backbone, a dict.

    Raises:
      ValueError: see above; also where KerasHub is not installed.
    """
    if "://" in folder:
        raise ValueError(f"{folder}: {_DOWNLOAD}")
    if not os.path.isdir(folder) and os.sep not in folder:
        raise ValueError(
            f"There is no folder {folder}. Should it be the name of a preset "
            f"of KerasHub: {_DOWNLOAD}"
        )
    if not os.path.isdir(folder):
        raise ValueError(
            f"There is no folder {folder}, of a preset of KerasHub, which says "
            "what the network is for as long as its run is used. Put it there, "
            "or name it: --model_type=keras_hub:<folder>, for a run of before "
            "with --allow_hparam_change."
        )
    described = _described(folder)
    name = described["registered_name"].partition(">")[2]
    settings = described["config"]
    shape = _shape(settings)
    if shape is None:
        raise ValueError(
            f"{folder} is a preset of {name}, which does not take images; give "
            "one of a network that does, such as ResNetBackbone."
        )
    dtype = settings.get("dtype")
    if isinstance(dtype, dict) and dtype.get("class_name") != "DTypePolicy":
        raise ValueError(
            f"{folder} is a quantized preset of {name}, which cannot be "
            "trained; give one of floats."
        )
    if shape[-1] not in (3, None):
        raise ValueError(
            f"{folder} takes images of shape {tuple(shape)}; ours have 3 "
            "channels, the last axis. Give another preset."
        )
    if importlib.util.find_spec(_NAME) is None:
        raise ValueError(
            f"{folder} is a preset of KerasHub, which is not installed: "
            f"{_INSTALL}."
        )
    return settings


def _hub():
    """KerasHub; imported late, as hardly anybody needs it.

    Raises:
      ValueError: where it, or what it needs, cannot be imported.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise ValueError(
            f"KerasHub cannot be imported ({first_line(error)}): {_INSTALL}."
        ) from error
    return keras_hub


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


def _described(folder):
    """What config.json says, as far as it is one of KerasHub's.

    Raises:
      ValueError: where there is none, or it is another one.
    """
    path = os.path.join(folder, PRESET_CONFIG)
    if not os.path.isfile(path):
        raise ValueError(
            f"{folder} is no preset of KerasHub: it has no {PRESET_CONFIG}. "
            "Give a folder that save_to_preset wrote; where the weights are a "
            f"run's, name the preset with --model_type={_NAME}:<folder>."
        )
    try:
        with open(path, encoding="utf-8") as file:
            described = json.load(file)
        name, settings = described["registered_name"], described["config"]
        if not name.startswith("keras_hub>") or not isinstance(settings, dict):
            raise ValueError(f"it names {name!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not of a preset of KerasHub's own networks "
            f"({type(error).__name__}: {first_line(error)}). Give a folder "
            "that save_to_preset wrote."
        ) from error
    return described


def _shape(settings):
    """The shape of the images of a backbone, by its settings; or None."""
    shapes = [settings.get(key) for key in _SHAPES]
    return next((s for s in shapes if isinstance(s, list) and s), None)


def _backbone(preset, settings, input_shape, *, policy, load_weights=False):
    """The backbone of a preset for images of a shape.

    Its name is always the same, for that is part of those of its weights.

    Raises:
      ValueError: where KerasHub does not make one.
    """
    # Where the preset leaves the size open, the network does too.
    sized = {
        key: tuple(input_shape)
        for key in _SHAPES
        if None not in (settings.get(key) or [None])
    }
    # Of an absolute path KerasHub does not think that it is one of its names.
    hub = _hub()
    try:
        with global_policy(policy):
            return hub.models.Backbone.from_preset(
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
    found = _shape(settings)[:2]
    if None in found:
        try:
            found = _converter(preset).image_size or found
        except ValueError:
            pass
    if None in found or _size(found) == size:
        return ""
    return f" The preset is for images of {_size(found)}."


def _converter(preset):
    """The preset's `keras_hub.layers.ImageConverter`.

    Raises:
      ValueError: where it has none, or not one that is known.
    """
    check_converter(preset)
    kind = _hub().layers.ImageConverter
    try:
        found = kind.from_preset(os.path.abspath(preset))
    except Exception as error:  # What a file of others makes Keras raise.
        raise ValueError(
            f"{preset}/{_CONVERTER} cannot be read: {first_line(error)}"
        ) from error
    if not isinstance(found, kind):
        raise ValueError(
            f"{preset}/{_CONVERTER} describes a {type(found).__name__}, no "
            "ImageConverter of KerasHub. Save that there (save_to_preset)."
        )
    return found


def check_converter(preset):
    """Refuses a preset that does not say what pixels it was trained on."""
    if not os.path.isfile(os.path.join(preset, _CONVERTER)):
        raise ValueError(
            f"{preset} has no {_CONVERTER}, so nothing says what pixels it was "
            "trained on. Save its keras_hub.layers.ImageConverter there too "
            "(save_to_preset), or say --preprocessing=dataset (pixels=None)."
        )


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


@FAMILIES.register(_NAME)
class KerasHub(Family):
    known = "keras_hub:<folder>"
    builder = staticmethod(keras_hub_network)
    has_preprocessing = True
    pretrained = staticmethod(pretrained_backbone)
    named_by_weights = _NAME

    @staticmethod
    def sizes(model_type):
        kind, _, folder = model_type.partition(":")
        if kind != _NAME:
            return None
        if not folder:
            raise ValueError(
                f"{model_type} is named by a preset: say {_NAME}:<folder>, or "
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
