"""KerasHub presets on disk: what their files say, and KerasHub itself."""

import importlib.util
import json
import os

from meta_pseudo_labels.models.families import PRESET_CONFIG
from meta_pseudo_labels.utils.checkpoint_files import first_line

NAME = "keras_hub"
# What backbones call the shape of an image in their settings.
SHAPES = ("image_shape", "input_shape")
_CONVERTER = "image_converter.json"
_INSTALL = "pip install 'meta-pseudo-labels[hub]', or keras-hub"
_DOWNLOAD = (
    "nothing is downloaded here. On a machine with internet access, call "
    "keras_hub.models.ImageClassifier.from_preset(NAME).save_to_preset(FOLDER),"
    " and give that folder."
)


def check_preset(folder):
    """Refuses a folder that is not a preset for images, by its config.json.

    Args:
      folder: the path.

    Returns:
      The settings of its backbone, a dict.

    Raises:
      ValueError: see above; also if KerasHub is not installed.
    """
    if "://" in folder:
        raise ValueError(f"{folder}: {_DOWNLOAD}")
    if not os.path.isdir(folder) and os.sep not in folder:
        raise ValueError(
            f"There is no folder {folder}. If it is the name of a preset of "
            f"KerasHub: {_DOWNLOAD}"
        )
    if not os.path.isdir(folder):
        raise ValueError(
            f"There is no folder {folder}. It must hold a preset of KerasHub, "
            "which defines the network for as long as its run is used. Put it "
            "there, or name it: --model_type=keras_hub:<folder>, for an "
            "earlier run together with --allow_hparam_change."
        )
    described = _described(folder)
    name = described["registered_name"].partition(">")[2]
    settings = described["config"]
    shape = image_shape(settings)
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
            "channels, as the last axis. Give another preset."
        )
    if importlib.util.find_spec(NAME) is None:
        raise ValueError(
            f"{folder} is a preset of KerasHub, which is not installed: "
            f"{_INSTALL}."
        )
    return settings


def hub():
    """KerasHub; imported late, as hardly anyone needs it.

    Raises:
      ValueError: if it, or what it needs, cannot be imported.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise ValueError(
            f"KerasHub cannot be imported ({first_line(error)}): {_INSTALL}."
        ) from error
    return keras_hub


def _described(folder):
    """The contents of config.json, if it is one of KerasHub's.

    Raises:
      ValueError: if there is none, or it is not KerasHub's.
    """
    path = os.path.join(folder, PRESET_CONFIG)
    if not os.path.isfile(path):
        raise ValueError(
            f"{folder} is not a preset of KerasHub: it has no {PRESET_CONFIG}. "
            "Give a folder that save_to_preset wrote; if the weights are a "
            f"run's, name the preset with --model_type={NAME}:<folder>."
        )
    try:
        with open(path, encoding="utf-8") as file:
            described = json.load(file)
        name, settings = described["registered_name"], described["config"]
        if not name.startswith("keras_hub>") or not isinstance(settings, dict):
            raise ValueError(f"it names {name!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not from a preset of KerasHub's own networks "
            f"({type(error).__name__}: {first_line(error)}). Give a folder "
            "that save_to_preset wrote."
        ) from error
    return described


def image_shape(settings):
    """The image shape in the settings of a backbone, or None."""
    shapes = [settings.get(key) for key in SHAPES]
    return next((s for s in shapes if isinstance(s, list) and s), None)


def image_converter(preset):
    """The preset's `keras_hub.layers.ImageConverter`.

    Raises:
      ValueError: if it has none, or one that is unknown.
    """
    check_converter(preset)
    kind = hub().layers.ImageConverter
    try:
        found = kind.from_preset(os.path.abspath(preset))
    except Exception as error:  # Whatever a foreign file makes Keras raise.
        raise ValueError(
            f"{preset}/{_CONVERTER} cannot be read: {first_line(error)}"
        ) from error
    if not isinstance(found, kind):
        raise ValueError(
            f"{preset}/{_CONVERTER} describes a {type(found).__name__}, "
            "not an ImageConverter of KerasHub. Save one there "
            "(save_to_preset)."
        )
    return found


def check_converter(preset):
    """Refuses a preset that does not tell what pixels it was trained on."""
    if not os.path.isfile(os.path.join(preset, _CONVERTER)):
        raise ValueError(
            f"{preset} has no {_CONVERTER}, so nothing tells what pixels it "
            "was trained on. Save its keras_hub.layers.ImageConverter there "
            "too (save_to_preset), or use --preprocessing=dataset "
            "(pixels=None)."
        )
