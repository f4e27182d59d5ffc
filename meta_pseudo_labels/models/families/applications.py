"""Networks of `keras.applications`, with fresh weights and our own head."""

import functools
import inspect
import os
import re

import keras
import numpy as np
from absl import logging

from meta_pseudo_labels.models.dense import classification_head
from meta_pseudo_labels.models.families import (
    FAMILIES,
    Family,
    is_preset,
    refuse_pretrained,
)
from meta_pseudo_labels.models.layers import (
    check_data_format,
    global_policy,
    image_input,
    of_levels,
)
from meta_pseudo_labels.utils.checkpoint_files import first_line

# What Keras's networks were trained on: (scale, offset) of levels in 0..255,
# for each channel, and whether channels are in the order blue, green, red.
_MEAN, _STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
_TF = 1 / 127.5, -1.0, False
_TORCH = 1 / (255 * _STD), -_MEAN / _STD, False
_CAFFE = 1.0, -np.array((103.939, 116.779, 123.68)), True
_TRAINED_ON = {
    "convnext": _TORCH,
    "densenet": _TORCH,
    "efficientnet": _TORCH,
    "efficientnet_v2": _TORCH,
    "inception_resnet_v2": _TF,
    "inception_v3": _TF,
    "mobilenet": _TF,
    "mobilenet_v2": _TF,
    "mobilenet_v3": _TF,
    "nasnet": _TF,
    "resnet": _CAFFE,
    "resnet_v2": _TF,
    "vgg16": _CAFFE,
    "vgg19": _CAFFE,
    "xception": _TF,
}
_LARGER_V2 = dict.fromkeys(
    (f"EfficientNetV2{size}" for size in "SML"), (1 / 128, -1.0, False)
)

# These expect images in [0, 255]; ours have mean 0, standard deviation 1.
_PREPROCESSING = (keras.layers.Rescaling, keras.layers.Normalization)


def application_names():
    """The networks of the installed Keras, sorted."""
    return sorted(name for name in dir(keras.applications) if name[0].isupper())


def application(
    application_name,
    *,
    input_shape,
    num_classes,
    dropout_rate=0.0,
    pixels=None,
    name=None,
    dtype=None,
):
    """Builds a network of `keras.applications`; nothing is downloaded.

    The network's own preprocessing of images is removed, and a warning says so
    once: it expects normalized images, as all of ours do. Weights that were
    trained elsewhere expect Keras's preprocessing, in the network or by its
    `preprocess_input`: with `pixels` the network first converts our images to
    that. Its layers keep Keras's own names, initializers and batch norm, whose
    settings are constants there.

    Args:
      application_name: such as "MobileNetV2"; see `application_names`.
      input_shape: (height, width, channels) of one image; Keras says how small
        it may be, often 32.
      num_classes: number of logits, 2 or more.
      dropout_rate: before the last layer, in [0, 1).
      pixels: (mean, std) of each channel, in 0..1 units, that images are
        normalized with, for weights trained elsewhere; None for others.
      name: of the model; default: `application_name`.
      dtype: dtype or policy of the layers; None is the global policy.

    Returns:
      A functional `keras.Model` from images [batch, *input_shape] to logits
      [batch, num_classes], float32 or (if computed in it) float64.

    Raises:
      ValueError: for an unknown name, or a number or shape out of range.
    """
    if application_name not in application_names():
        raise ValueError(
            f"keras.applications has no {application_name!r}. It has: "
            f"{', '.join(application_names())}."
        )
    check_data_format("keras.applications")
    build = getattr(keras.applications, application_name)
    policy = keras.dtype_policies.get(dtype)
    settings = dict(weights=None, include_top=False, pooling="avg")
    if "include_preprocessing" in inspect.signature(build).parameters:
        settings["include_preprocessing"] = False
    images = image_input(input_shape, policy=policy)
    seen = images
    if pixels is not None:
        seen = _as_trained_on(application_name, images, *pixels)
    with global_policy(policy):
        backbone = build(
            input_shape=tuple(input_shape), input_tensor=seen, **settings
        )
        # EfficientNet (the first version) always divides by 255.
        divides = any(isinstance(x, _PREPROCESSING) for x in backbone.layers)
        if divides:
            backbone = _without_preprocessing(backbone)
    if pixels is None and (divides or "include_preprocessing" in settings):
        _tell_of_preprocessing(application_name)
    logits = classification_head(
        backbone.output,
        num_classes=num_classes,
        dropout_rate=dropout_rate,
        dtype=policy,
    )
    (images,) = backbone.inputs
    return keras.Model(images, logits, name=name or application_name)


@functools.cache
def _tell_of_preprocessing(name):
    logging.warning(
        "%s is built without Keras's own rescaling of pixels, as images come "
        "with mean 0 and standard deviation 1 here. Weights that were trained "
        "with it expect levels of 0 to 255: build keras.applications.%s for "
        "these, as examples/keras_applications_student.py does, or give pixels "
        "(--preprocessing=network).",
        name,
        name,
    )


def _as_trained_on(name, images, mean, std):
    """Converts images like ours to what a Keras network was trained on.

    Args:
      name: see `application`.
      images: [batch, height, width, 3] symbolic, minus `mean`, divided by
        `std`.

    Raises:
      ValueError: for a network whose training images are not known here, or
        other channels.
    """
    module = inspect.getmodule(getattr(keras.applications, name)).__name__
    known = _LARGER_V2.get(name) or _TRAINED_ON.get(module.rpartition(".")[2])
    if known is None or images.shape[-1] != 3:
        raise ValueError(
            f"{name}, with {images.shape[-1]} channels: it is not known here "
            "what images it was trained on; leave out pixels (--preprocessing="
            "network), and bring images to that range yourself."
        )
    scale, offset, blue_first = known
    return of_levels(
        images, (mean, std), scale=scale, offset=offset, blue_first=blue_first
    )


def pretrained_application(application_name, weights, *, input_shape):
    """A Keras network trained on ImageNet, without its last layer.

    Args:
      application_name: see `application`.
      weights: "imagenet", which Keras downloads and keeps; or the path of such
        a file (.h5, "no top").
      input_shape: see `application`.

    Raises:
      ValueError: if there is none, or the file is for another network.
    """
    build = getattr(keras.applications, application_name)
    try:
        return build(
            weights=weights, include_top=False, input_shape=input_shape
        )
    except Exception as error:  # Keras raises just that if a download fails.
        url = re.search(r"https?://\S+\.h5", str(error))
        if url is None:
            raise ValueError(
                f"{weights} has no weights for {application_name}: "
                f"{first_line(error)}"
            ) from error
        raise ValueError(
            f"Keras cannot download {url[0]}. Fetch it on a machine with "
            "internet access, and give the path of that file in place of "
            "imagenet."
        ) from error


def _without_preprocessing(backbone):
    """A fresh copy that passes its images on unchanged."""

    def copy(layer):
        if isinstance(layer, _PREPROCESSING):
            return keras.layers.Identity(name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    return keras.models.clone_model(backbone, clone_function=copy)


@FAMILIES.register("applications")
class Applications(Family):
    known = (
        "the networks of keras.applications by class name, such as MobileNetV2"
    )
    examples = application_names()
    builder = staticmethod(application)
    has_preprocessing = True
    pretrained = staticmethod(pretrained_application)

    @classmethod
    def check_pretrained(cls, weights):
        if is_preset(weights):
            refuse_pretrained(weights)
        if weights != "imagenet" and not os.path.isfile(weights):
            raise ValueError(f"There is no file {weights}.")

    @staticmethod
    def sizes(model_type):
        if model_type in application_names():
            return dict(application_name=model_type)
        return None
