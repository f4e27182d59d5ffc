"""Random augmentation of batches of uint8 images: RandAugment, flip, crop.

Stateless: a `seed` of shape [2], int32 or int64, and the place in the batch
fix every draw, so a pipeline that keys the seed by its step can be resumed, or
run on any number of threads, without changing one pixel.

If `rows`, a `shares.Rows`, is given, the images are only these rows, and the
result is what they become in the whole batch. A row's choices depend on the
size of the batch, so those of all rows are drawn, a few numbers per image; the
images of the other rows are not needed.

Source: `augment.py` and `data_utils.py` of the release, quirks 26 to 31.
"""

import dataclasses
import functools

import tensorflow as tf

from meta_pseudo_labels.data.images import operations

MAX_LEVEL = 10  # Scale of the magnitudes; the release itself uses 16 and 17.


@dataclasses.dataclass(frozen=True)
class LevelArguments:
    """What one magnitude means for the operations (quirk 26).

    The amounts of signed operations are given for the positive sign.
    """

    factor: float  # color, contrast, brightness, sharpness; 1 = unchanged
    degrees: float
    slope: float
    translate_pixels: float  # not rounded
    bits: int  # kept by posterize
    threshold: int  # of solarize, before its cast to uint8
    cutout_half_size: int  # pixels
    fill: int  # where an operation leaves no pixel, 0..255


def level_arguments(
    magnitude, *, translate_const, cutout_const, fill=operations.FILL
):
    """Turns a magnitude into the arguments of the operations.

    Args:
      magnitude: number >= 0; 10 is the nominal maximum.
      translate_const: pixels of translation at magnitude 10.
      cutout_const: half the side of the cutout at magnitude 10, in pixels.
        The release uses size // 8 for both on small images, and 100 and 40
        on ImageNet.
      fill: see `LevelArguments`.

    Raises:
      ValueError: if `magnitude` is negative.
    """
    if magnitude < 0:
        raise ValueError(
            f"magnitude is {magnitude}; RandAugment needs a number >= 0 "
            "(10 is its nominal maximum, the release uses 16 and 17)."
        )
    level = magnitude / MAX_LEVEL
    return LevelArguments(
        factor=1.8 * level + 0.1,
        degrees=30 * level,
        slope=0.3 * level,
        translate_pixels=translate_const * level,
        bits=int(4 * level),
        threshold=int(256 * level),
        cutout_half_size=int(cutout_const * level),
        fill=fill,
    )


@dataclasses.dataclass(frozen=True)
class Draws:
    """The random choices of one RandAugment layer, for each image."""

    operation: tf.Tensor  # [B] int32, index into OPERATIONS or its length
    sign: tf.Tensor  # [B] float32, -1 or 1
    center: tf.Tensor  # [B, 2] int32, row and column


def _plain(operation, *fields):
    """An operation that is the same for all images."""

    def apply(images, places, draws, arguments):
        return operation(images, *(getattr(arguments, f) for f in fields))

    return apply


def _signed(operation, field):
    """An operation whose amount has a random sign."""

    def apply(images, places, draws, arguments):
        amount = tf.gather(draws.sign, places) * getattr(arguments, field)
        return operation(images, amount, fill=arguments.fill)

    return apply


def _cutout(images, places, draws, arguments):
    return operations.cutout(
        images,
        center=tf.gather(draws.center, places),
        half_size=arguments.cutout_half_size,
        fill=arguments.fill,
    )


OPERATIONS = {
    "AutoContrast": _plain(operations.autocontrast),
    "Equalize": _plain(operations.equalize),
    "Invert": _plain(operations.invert),
    "Rotate": _signed(operations.rotate, "degrees"),
    "Posterize": _plain(operations.posterize, "bits"),
    "Solarize": _plain(operations.solarize, "threshold"),
    "Color": _plain(operations.color, "factor"),
    "Contrast": _plain(operations.contrast, "factor"),
    "Brightness": _plain(operations.brightness, "factor"),
    "Sharpness": _plain(operations.sharpness, "factor"),
    "ShearX": _signed(operations.shear_x, "slope"),
    "ShearY": _signed(operations.shear_y, "slope"),
    "TranslateX": _signed(operations.translate_x, "translate_pixels"),
    "TranslateY": _signed(operations.translate_y, "translate_pixels"),
    "Cutout": _cutout,
}


def rand_augment(
    images,
    seed,
    rows=None,
    *,
    magnitude,
    num_layers=2,
    translate_const,
    cutout_const,
    fill=operations.FILL,
):
    """Applies up to `num_layers` random operations to each image.

    Each image draws one probability, uniform in [0.2, 0.8); in each layer, one
    of the 15 operations, drawn uniformly, is applied with that probability
    (quirk 26).

    Args:
      images: [B, H, W, 3] uint8.
      seed: [2] int32 or int64.
      rows: see the module's docstring.
      magnitude, translate_const, cutout_const, fill: see `level_arguments`.
      num_layers: operations in a row, >= 0.

    Returns:
      [B, H, W, 3] uint8.
    """
    arguments = level_arguments(
        magnitude,
        translate_const=translate_const,
        cutout_const=cutout_const,
        fill=fill,
    )
    apply = _layer(arguments)
    for draws in draw_layers(
        images, seed=seed, rows=rows, num_layers=num_layers
    ):
        images = apply(images, draws.operation, draws.sign, draws.center)
    return images


@functools.cache
def _layer(arguments):
    """A layer as one `tf.function`.

    Tracing the operations takes a second or two, so it is done once for all
    layers and all data sets of a process, not once for each.
    """

    def apply(images, operation, sign, center):
        draws = Draws(operation=operation, sign=sign, center=center)
        return operations.apply_by_group(
            images, operation, _bind_operations(draws, arguments)
        )

    return tf.function(apply, autograph=False)


def _bind_operations(draws, arguments):
    """The operations as `apply_by_group` expects them, then None."""

    def bind(operation):
        return lambda images, places: operation(
            images, places, draws, arguments
        )

    return [*map(bind, OPERATIONS.values()), None]


def draw_layers(images, *, seed, num_layers, rows=None):
    """Draws what RandAugment does to `images`: one `Draws` per layer.

    An image that skips a layer has `operation` == len(OPERATIONS).
    """
    batch = batch_size(images, rows)
    seeds = tf.random.split(seed, 1 + 4 * num_layers)
    probability = tf.random.stateless_uniform([batch], seeds[0], 0.2, 0.8)
    layers = []
    for layer in range(num_layers):
        choice_seed, apply_seed, sign_seed, center_seed = tf.unstack(
            seeds[1 + 4 * layer : 5 + 4 * layer]
        )
        choice = tf.random.stateless_uniform(
            [batch], choice_seed, 0, len(OPERATIONS), tf.int32
        )
        applied = tf.random.stateless_uniform([batch], apply_seed) < probability
        layers.append(
            Draws(
                operation=pick(
                    tf.where(applied, choice, len(OPERATIONS)), rows
                ),
                sign=tf.where(_coin(images, sign_seed, rows), 1.0, -1.0),
                center=_draw_center(images, center_seed, rows),
            )
        )
    return layers


def random_flip(images, seed, rows=None):
    """Mirrors each image, left to right, with probability 1/2."""
    return operations.apply_by_group(
        images,
        tf.cast(_coin(images, seed, rows), tf.int32),
        [None, lambda images, _: operations.mirror(images)],
    )


def pad_and_random_crop(images, seed, rows=None, *, pad, fill=operations.FILL):
    """Pads each side by `pad` pixels of `fill`, then crops to the old size.

    Each of the (2 * pad + 1)^2 crops is equally likely.
    """
    shape = [batch_size(images, rows), 2]
    offset = pick(
        tf.random.stateless_uniform(shape, seed, -pad, pad + 1, tf.int32), rows
    )
    return operations.crop(
        images, top=offset[:, 0], left=offset[:, 1], fill=fill
    )


def random_cutout(images, seed, rows=None, *, half_size, fill=operations.FILL):
    """Fills a square of side 2 * half_size, centered anywhere in the image."""
    center = _draw_center(images, seed, rows)
    return operations.cutout(
        images, center=center, half_size=half_size, fill=fill
    )


def batch_size(images, rows):
    """The size of the whole batch; `images` are all of it, or its `rows`."""
    return tf.shape(images)[0] if rows is None else rows.total


def pick(values, rows):
    """The part for the `rows` of what was drawn for the whole batch."""
    return values if rows is None else rows.of(values)


def _coin(images, seed, rows):
    """[B] booleans, true with probability 1/2."""
    draws = tf.random.stateless_uniform([batch_size(images, rows)], seed)
    return pick(draws < 0.5, rows)


def _draw_center(images, seed, rows):
    """Draws [B, 2] int32: row and column, uniform over the image."""
    size = tf.cast(images.shape[1:3], tf.float32)
    where = tf.random.stateless_uniform([batch_size(images, rows), 2], seed)
    return pick(tf.cast(where * size, tf.int32), rows)
