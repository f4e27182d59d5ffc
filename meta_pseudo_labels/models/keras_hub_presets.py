"""Presets of KerasHub on disk: what their files say, and KerasHub itself."""

import importlib.util
import json
import os

from meta_pseudo_labels.models.families import PRESET_CONFIG
from meta_pseudo_labels.utils.checkpoint_files import first_line

NAME = "keras_hub"
# As the backbones call the shape of an image in their settings.
SHAPES = ("image_shape", "input_shape")
_CONVERTER = "image_converter.json"
_INSTALL = "pip install 'meta-pseudo-labels[hub]', or keras-hub"
_DOWNLOAD = (
    "nothing is downloaded here. Where there is a network, say keras_hub."
    "models.ImageClassifier.from_preset(NAME).save_to_preset(FOLDER), and give "
    "that folder."
)


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
            "channels, the last axis. Give another preset."
        )
    if importlib.util.find_spec(NAME) is None:
        raise ValueError(
            f"{folder} is a preset of KerasHub, which is not installed: "
            f"{_INSTALL}."
        )
    return settings


def hub():
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
            f"{path} is not of a preset of KerasHub's own networks "
            f"({type(error).__name__}: {first_line(error)}). Give a folder "
            "that save_to_preset wrote."
        ) from error
    return described


def image_shape(settings):
    """The shape of the images of a backbone, by its settings; or None."""
    shapes = [settings.get(key) for key in SHAPES]
    return next((s for s in shapes if isinstance(s, list) and s), None)


def image_converter(preset):
    """The preset's `keras_hub.layers.ImageConverter`.

    Raises:
      ValueError: where it has none, or not one that is known.
    """
    check_converter(preset)
    kind = hub().layers.ImageConverter
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
