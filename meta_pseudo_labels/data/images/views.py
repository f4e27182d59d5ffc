"""Weak and strong views: short chains of small operations.

A factory takes settings and returns an operation, (images, seed) -> images,
on [B, H, W, 3] uint8 with a [2] integer seed. Everything stays uint8 until
`normalize`, the last step of a view. If an operation gets the images of only
some rows, and `rows`, a `shares.Rows`, as third argument, it returns what these
rows become in the whole batch.
"""

import functools

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.images import rand_augment as random_ops
from meta_pseudo_labels.data.images.view_settings import POLICIES, ViewSettings


def weak_view(spec, *, flips=True, crop_padding=None):
    """Flips if the data allows it, pads by an eighth and crops at random.

    This is the release's `ori` view, and what labeled images get (quirk 31).

    Args:
      spec: `DatasetSpec` of the images.
      flips: False for images that are already mirrored.
      crop_padding: pixels to use instead of an eighth of the side.

    Raises:
      ValueError: for a padding that could leave nothing of an image.
    """
    size = spec.image_size
    if crop_padding is None:
        crop_padding = size // 8
    if not 0 <= crop_padding < size:
        raise ValueError(
            f"crop_padding={crop_padding}: images of {size}x{size} pixels can "
            f"be shifted by 0 to {size - 1} pixels."
        )
    crop = pad_and_crop(crop_padding, fill=spec.background)
    return _of_levels(chain(flip(), crop) if spec.flip and flips else crop)


def weak(spec, settings):
    """`weak_view` with `ViewSettings`."""
    return weak_view(
        spec,
        flips=not settings.alternate_flips,
        crop_padding=settings.crop_padding,
    )


def strong_view(spec, *, magnitude, cutout_share=0.5, policy="release"):
    """The release's `aug` view of a small image, made from its weak view.

    RandAugment of two operations, a cutout, then flip and crop once more
    (quirk 31). Apply it to what `weak_view` returned.

    Args:
      spec: `DatasetSpec` of the images.
      magnitude, cutout_share, policy: see `ViewSettings`.

    Raises:
      ValueError: if a number is out of range, or for an unknown policy.
    """
    return strong(
        spec,
        ViewSettings(
            magnitude=magnitude, cutout_share=cutout_share, policy=policy
        ),
    )


def strong(spec, settings):
    """`strong_view` with `ViewSettings`."""
    shifted = weak_view(spec, crop_padding=settings.crop_padding)
    return _of_levels(chain(*_distortions(spec, settings), shifted))


def labeled_strong(spec, settings):
    """What the release's --use_augment adds to a labeled small image.

    RandAugment and a cutout as in `strong_view`, but no second flip and crop
    (`data_utils._cifar10_parser`). Apply it to what `weak_view` returned.

    Args and errors: as for `strong`.
    """
    return _of_levels(chain(*_distortions(spec, settings)))


def augmentation(settings, *, translate_const, cutout_const, fill):
    """RandAugment of two operations.

    Args:
      settings: `ViewSettings`; only policy and magnitude are used.
      translate_const, cutout_const, fill: see `rand_augment`.

    Raises:
      ValueError: for an unknown policy, or a number out of its range.
    """
    if settings.policy == "keras_cv":
        # Imported here, as it takes seconds and few runs need it.
        from meta_pseudo_labels.data.images import keras_cv_policy

        return keras_cv_policy.keras_cv_rand_augment(
            magnitude=settings.magnitude
        )
    if settings.policy != "release":
        raise ValueError(
            f"Unknown augmentation policy {settings.policy!r}; use one of "
            f"{POLICIES}."
        )
    return rand_augment(
        magnitude=settings.magnitude,
        translate_const=translate_const,
        cutout_const=cutout_const,
        fill=fill,
    )


def _distortions(spec, settings):
    """RandAugment of two operations, then a cutout."""
    share, size = settings.cutout_share, spec.image_size
    if not 0 <= share <= 1:
        raise ValueError(f"cutout_share must be in [0, 1]; got {share}.")
    return [
        augmentation(
            settings,
            translate_const=size // 8,
            cutout_const=size // 8,
            fill=spec.background,
        ),
        cutout(int(size * share / 2), fill=spec.background),
    ]


def normalize(images, *, mean, std):
    """Returns (images / 255 - mean) / std, float32.

    Args:
      images: [..., H, W, 3] uint8, H and W known.
      mean, std: one number per channel, 0..1 units.

    Raises:
      ValueError: for images with another number of channels; and for images
        that are already divided by 255, or normalized, which goes unnoticed in
        a graph.
    """
    shape = tf.TensorShape(images.shape)
    if shape.rank is not None and shape[-1] not in (None, len(mean)):
        raise ValueError(
            f"Got images of shape {list(images.shape)}; the last axis must be "
            f"the {len(mean)} channels that mean and std are for."
        )
    if tf.as_dtype(images.dtype).is_floating and not tf.is_symbolic_tensor(
        images
    ):
        low, high = np.min(images), np.max(images)
        if not 0 <= low <= high <= 255 or 0 < high <= 1:  # NaN fails too.
            raise ValueError(
                f"Got images from {low:.4g} to {high:.4g}; pass levels from 0 "
                "to 255, uint8: they are divided by 255 here."
            )
    # As flat rows: broadcasting over three channels is five times slower.
    height, width = images.shape[-3:-1]
    mean, std = np.array(mean, np.float32), np.array(std, np.float32)
    scale = np.tile(1 / (255 * std), height * width)
    offset = np.tile(-mean / std, height * width)
    flat = tf.reshape(images, [-1, height * width * 3])
    normalized = tf.cast(flat, tf.float32) * scale + offset
    return tf.reshape(normalized, tf.shape(images))


def _of_levels(view):
    """A view that refuses images that are not uint8."""

    def apply(images, seed, rows=None):
        if images.dtype != tf.uint8:
            raise ValueError(
                f"A view got images of type {tf.as_dtype(images.dtype).name}; "
                "pass levels from 0 to 255, uint8. Normalize them afterwards."
            )
        return view(images, seed, *([] if rows is None else [rows]))

    return apply


def chain(*operations):
    """Operations one after another, each with a seed of its own."""

    def apply(images, seed, rows=None):
        # For a whole batch, operations need not know about rows.
        part = [] if rows is None else [rows]
        seeds = tf.unstack(tf.random.split(seed, len(operations)))
        for operation, own_seed in zip(operations, seeds, strict=True):
            images = operation(images, own_seed, *part)
        return images

    return apply


def flip():
    """Mirrors half of the images."""
    return random_ops.random_flip


def pad_and_crop(pad, *, fill):
    """Shifts by up to `pad` pixels each way, with `fill` at the edges."""
    return functools.partial(
        random_ops.pad_and_random_crop,
        pad=pad,
        fill=fill,
    )


def rand_augment(
    *, magnitude, translate_const, cutout_const, fill, num_layers=2
):
    """RandAugment; the constants are in pixels at magnitude 10."""
    return functools.partial(
        random_ops.rand_augment,
        magnitude=magnitude,
        num_layers=num_layers,
        translate_const=translate_const,
        cutout_const=cutout_const,
        fill=fill,
    )


def cutout(half_size, *, fill):
    """Fills a square of side 2 * half_size."""
    return functools.partial(
        random_ops.random_cutout,
        half_size=half_size,
        fill=fill,
    )
