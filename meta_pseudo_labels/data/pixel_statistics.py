"""Mean and standard deviation of images, exact and with little memory."""

import numpy as np
from absl import logging

_DARK = 64  # Levels that images of an ordinary set exceed.
_BLACK = 16  # Levels below which nothing can be seen, as in masks.
_CHUNK_PIXELS = 2**20  # np.bincount turns each pixel's byte into 8.


def channel_statistics(*parts):
    """Mean and standard deviation of each channel over all pixels.

    They are computed from the counts of the 256 levels, so neither the order
    of the images nor their number costs accuracy.

    Args:
      *parts: arrays [N, H, W, 3] uint8; N may be 0, but not for all of them.

    Returns:
      Two tuples of three floats, 0..1 units. A channel with only one level gets
      the deviation 1/255, not 0, so that it can be divided by.

    Raises:
      ValueError: if there are no pixels.
    """
    counts = np.sum([_level_counts(part) for part in parts], axis=0)
    total = counts[0].sum()
    if not total:
        raise ValueError("There are no images to take the mean of; give one.")
    levels = np.arange(256) / 255
    mean = counts @ levels / total
    squares = (levels - mean[:, np.newaxis]) ** 2
    std = np.sqrt((counts * squares).sum(axis=1) / total)
    one_level = (counts > 0).sum(axis=1) == 1
    return tuple(mean.tolist()), tuple(
        np.where(one_level, 1 / 255, std).tolist()
    )


def warn_of_dark(*parts, where):
    """Logs a line if all images, or some of them, use few of the levels.

    Args:
      *parts: arrays [N, H, W, 3] uint8.
      where: what to call the images.
    """
    parts = [images for images in parts if images.size]
    lowest = min(int(images.min()) for images in parts)
    highest = max(int(images.max()) for images in parts)
    if highest < _DARK or highest - lowest < _DARK:
        logging.warning(
            "%s: all images together have levels from %d to %d of 0 to 255, "
            "and are used as they are; rescale them unless that is intended.",
            where,
            lowest,
            highest,
        )
        return
    ends = [(x.min(axis=(1, 2, 3)), x.max(axis=(1, 2, 3))) for x in parts]
    darkest, lightest = map(np.concatenate, zip(*ends, strict=True))
    black = np.count_nonzero((darkest < lightest) & (lightest < _BLACK))
    if black:
        logging.warning(
            "%s: %d of %d images look black: levels from 0 to %d at most.",
            where,
            black,
            len(lightest),
            _BLACK - 1,
        )


def _level_counts(images):
    """How often each channel has each level: [3, 256] int64."""
    counts = np.zeros([3, 256], np.int64)
    step = max(1, _CHUNK_PIXELS // max(1, images[:1, ..., 0].size))
    for start in range(0, len(images), step):
        for channel in range(3):
            values = images[start : start + step, ..., channel].ravel()
            counts[channel] += np.bincount(values, minlength=256)
    return counts
