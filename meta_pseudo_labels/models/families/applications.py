"""Networks of `keras.applications`, with fresh weights and our own head."""

import contextlib
import functools
import inspect

import keras
from absl import logging

from meta_pseudo_labels.models.dense import classification_head
from meta_pseudo_labels.models.families import FAMILIES, Family
from meta_pseudo_labels.models.layers import image_input

# These would take images in [0, 255] apart; ours come with mean 0, deviation 1.
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
    name=None,
    dtype=None,
):
    """Builds a network of `keras.applications`; nothing is downloaded.

    Whatever the network does to its images by itself is taken out, and a
    warning says so once: it expects normalized images, as all of ours. Weights
    that were trained elsewhere expect what Keras did to their images, in the
    network or by its `preprocess_input`. Its layers keep Keras's own names,
    initializers and batch norm, whose settings are constants there.

    Args:
      application_name: such as "MobileNetV2"; see `application_names`.
      input_shape: (height, width, channels) of one image; Keras says how small
        a network takes, often 32.
      num_classes: number of logits, 2 or more.
      dropout_rate: before the last layer, in [0, 1).
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
    build = getattr(keras.applications, application_name)
    policy = keras.dtype_policies.get(dtype)
    settings = dict(weights=None, include_top=False, pooling="avg")
    if "include_preprocessing" in inspect.signature(build).parameters:
        settings["include_preprocessing"] = False
        _tell_of_preprocessing(application_name)
    images = image_input(input_shape, policy=policy)
    with _global_policy(policy):
        backbone = build(
            input_shape=tuple(input_shape), input_tensor=images, **settings
        )
        # EfficientNet (the first version) always divides by 255.
        if any(isinstance(layer, _PREPROCESSING) for layer in backbone.layers):
            backbone = _without_preprocessing(backbone)
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
        "with mean 0 and deviation 1 here. Weights that were trained with it "
        "expect levels of 0 to 255: build keras.applications.%s for these, as "
        "examples/keras_applications_student.py does.",
        name,
        name,
    )


def _without_preprocessing(backbone):
    """A fresh copy that passes its images on as they are."""

    def copy(layer):
        if isinstance(layer, _PREPROCESSING):
            return keras.layers.Identity(name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    return keras.models.clone_model(backbone, clone_function=copy)


@contextlib.contextmanager
def _global_policy(policy):
    """Keras's networks take no dtype: they follow the global policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@FAMILIES.register("applications")
class Applications(Family):
    known = (
        "the networks of keras.applications by their classes, such as "
        "MobileNetV2"
    )
    examples = application_names()
    builder = staticmethod(application)

    @staticmethod
    def sizes(model_type):
        if model_type in application_names():
            return dict(application_name=model_type)
        return None
