"""Networks by name, as their families build them."""

import difflib
import inspect

from meta_pseudo_labels.models.batch_norm import NormSettings
from meta_pseudo_labels.models.families import FAMILIES


def build(
    model_type,
    *,
    input_shape,
    num_classes,
    dropout_rate=0.0,
    batch_norm_decay=0.99,
    batch_norm_epsilon=1e-3,
    batch_norm_batch_size=None,
    stochastic_depth_drop_rate=0.0,
    small_images=False,
    pixels=None,
    name=None,
    dtype=None,
):
    """Builds a network by name.

    A setting that a network does not have is ignored, as in the release.

    Args:
      model_type: "wrn-<depth>-<k>" such as "wrn-28-2", a name in WIDE_RESNETS,
        RESNETS or EFFICIENTNETS, "mlp" (two hidden layers of 128 units),
        "mlp-<layers>-<width>" (the last of the layers gives the logits), a
        network of `keras.applications` by class name, such as "MobileNetV2",
        "keras_hub:<folder of a preset>", or a name of a family that a plug-in
        registered.
      input_shape: shape of one example, (height, width, channels) for images.
      num_classes: number of logits, 2 or more.
      dropout_rate: before the last layer, in [0, 1).
      batch_norm_decay: of the moving averages. This and the next two apply
        neither to "mlp...", without batch norm, nor to `keras.applications`.
      batch_norm_epsilon: added to the variance.
      batch_norm_batch_size: number of images that share statistics, with more
        than 8 replicas; see `BatchNorm`.
      stochastic_depth_drop_rate: for EFFICIENTNETS; see `efficientnet`.
      small_images: for EFFICIENTNETS; see `efficientnet`.
      pixels: (mean, std) of each channel, in 0..1 units, that images are
        normalized with: a network of `keras.applications` or KerasHub, or a
        lite EfficientNet, then first converts them to what its pretrained
        weights expect. None: no conversion.
      name: of the model; default: `model_type`.
      dtype: dtype or policy of the layers; None is the global policy.

    Returns:
      A functional `keras.Model` from [batch, *input_shape] to logits
      [batch, num_classes].

    Raises:
      ValueError: for an unknown name or a number out of range.
    """
    settings = dict(
        input_shape=input_shape,
        num_classes=num_classes,
        dropout_rate=dropout_rate,
        norm=NormSettings(
            decay=batch_norm_decay,
            epsilon=batch_norm_epsilon,
            batch_size=batch_norm_batch_size,
        ),
        stochastic_depth_drop_rate=stochastic_depth_drop_rate,
        small_images=small_images,
        pixels=pixels,
        name=name or model_type,
        dtype=dtype,
    )
    family, sizes = _find(model_type)
    if pixels is not None and not family.has_preprocessing:
        raise ValueError(
            f"{model_type} takes images as they are normalized here; leave "
            "pixels out."
        )
    has = inspect.signature(family.builder).parameters
    return family.builder(
        **sizes, **{key: settings[key] for key in settings if key in has}
    )


def check_model_type(model_type):
    """Raises ValueError for a name that `build` would refuse."""
    _find(model_type)


def fewest_weights(model_type, *, input_shape, num_classes):
    """A lower bound on the number of weights, without building a network."""
    family, sizes = _find(model_type)
    return family.weights(
        sizes, input_shape=input_shape, num_classes=num_classes
    )


def has_blocks(model_type):
    """Whether `rematerialized` accepts the network of a name."""
    return _find(model_type)[0].has_blocks


def has_preprocessing(model_type):
    """Whether `build` accepts `pixels` for a name."""
    return _find(model_type)[0].has_preprocessing


def check_pixels(model_type):
    """Refuses a name that `build` accepts no `pixels` for, without building.

    Raises:
      ValueError: if it is not known what pixels its weights expect.
    """
    family, sizes = _find(model_type)
    family.check_pixels(sizes)


def preset_of(model_type):
    """The preset folder that a name contains; None if it contains none."""
    family, sizes = _find(model_type)
    return sizes["preset"] if family.named_by_weights else None


def named_by_weights(model_type, weights):
    """A network's name, completed by the weights that it starts from.

    >>> named_by_weights("keras_hub", "presets/resnet")
    'keras_hub:presets/resnet'

    All other names are complete.

    Args:
      model_type: see `build`; may be None.
      weights: a path, or None.
    """
    names = {family.named_by_weights for family in FAMILIES.values()} - {None}
    if weights and model_type in names:
        return f"{model_type}:{weights}"
    return model_type


def check_pretrained(model_type, weights):
    """Refuses what `pretrained_network` would, by the weights' name alone.

    Args:
      model_type, weights: see `pretrained_network`.

    Raises:
      ValueError: for weights of other networks, or that do not exist.
    """
    _find(model_type)[0].check_pretrained(weights)


def pretrained_network(model_type, weights, *, input_shape):
    """A network with pretrained weights, for `load_weights`.

    Args:
      model_type, input_shape: see `build`.
      weights: "imagenet", which Keras downloads, or such a file; for
        KerasHub, the folder of a preset.

    Raises:
      ValueError: for a family without any, or if they cannot be obtained.
    """
    family = _find(model_type)[0]
    try:
        family.check_pretrained(weights)
    except ValueError as error:
        raise ValueError(f"{weights} for {model_type}: {error}") from error
    return family.pretrained(model_type, weights, input_shape=input_shape)


def release_scope(model_type):
    """The first part of a network's variable names in the release.

    >>> release_scope("wrn-28-large")
    'wrn-28-135'

    All others use their own names.
    """
    for family in FAMILIES.values():
        if model_type in family.release_scopes:
            return family.release_scopes[model_type]
    return model_type


def _find(model_type):
    """The family of a name, and the sizes that the name means there."""
    for family in FAMILIES.values():
        sizes = family.sizes(model_type)
        if sizes is not None:
            return family, sizes
    raise ValueError(_what_is_known(model_type))


def _what_is_known(model_type):
    """The message for an unknown name: the nearest ones, and the families."""
    # From Z to A, so that those of Keras come last.
    families = [FAMILIES[name] for name in sorted(FAMILIES, reverse=True)]
    names = {
        name.lower(): name for family in families for name in family.examples
    }
    near = difflib.get_close_matches(model_type.lower(), names, n=3)
    meant = ", ".join(names[name] for name in near)
    *others, last = (family.known for family in families)
    return (
        f"Unknown model_type {model_type!r}."
        + (f" Did you mean one of: {meant}?" if meant else "")
        + f" Known: {', '.join(others)}, and {last}."
    )
