"""The pixels of many image files in one array."""

import concurrent.futures
import functools
import itertools
import os

import numpy as np
from absl import logging

from meta_pseudo_labels.data.images.decoding import (
    decode_image,
    deep_extremes,
    read_image_file,
)
from meta_pseudo_labels.data.images.headers import ImageError
from meta_pseudo_labels.data.images.levels import WHOLE_RANGE, deep_levels
from meta_pseudo_labels.data.images.listing import listed, shown
from meta_pseudo_labels.data.images.resizing import square_image
from meta_pseudo_labels.data.spec import FILL

_THREADS = min(8, os.cpu_count() or 1)
_CHUNK = 256  # Files handed to the threads at a time.
_NAMED = 5  # Skipped files whose names are logged.
_FEW_LEVELS = 16  # A picture with less than 1/16 of the levels looks flat.


def read_images(folder, names, *, max_pixels, **settings):
    """Reads the image files of a folder; see `decode_images`.

    Args:
      folder: a local folder.
      names: list of files within it.
      max_pixels, **settings: see `decode_images`.
    """
    return decode_images(
        (
            (
                name,
                functools.partial(
                    read_image_file,
                    os.path.join(folder, name),
                    max_pixels=max_pixels,
                ),
            )
            for name in names
        ),
        count=len(names),
        where=folder,
        max_pixels=max_pixels,
        **settings,
    )


def decode_images(
    files,
    *,
    count,
    image_size,
    max_pixels,
    strict,
    where,
    image_fit="crop",
    background=FILL,
    deep_levels=None,
):
    """Decodes images in a few threads, into one array.

    Files that are not usable images are left out; one line in the log counts
    them and names the first ones. Each of at most 8 threads holds one file and
    its pixels at a time, so the memory needed beside the array is bounded.

    Args:
      files: iterable of (name, function that returns the bytes).
      count: number of these files.
      image_size: pixels, see `square_image`.
      max_pixels: see `decode_image`.
      strict: whether to stop at the first file that would be left out.
      where: the folder or the like, for messages.
      image_fit, background: for pictures that are not square, see
        `square_image`.
      deep_levels: for 16-bit pictures, see `DatasetSpec`.

    Returns:
      [N, image_size, image_size, 3] uint8, in the given order; [N] int64, the
      places of these images among `files`; and a tuple of the names left out.

    Raises:
      ValueError: if `strict` and a file is not usable, if image_size is not 1
        or more, or if the array cannot be allocated.
    """
    images = _allocate(count, image_size, where)
    decode = functools.partial(
        _decode,
        image_size=image_size,
        image_fit=image_fit,
        background=background,
        max_pixels=max_pixels,
        deep_levels=deep_levels,
    )
    kept, skipped = [], []
    files = enumerate(files)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        while chunk := list(itertools.islice(files, _CHUNK)):
            readers = [read for _, (_, read) in chunk]
            outcomes = threads.map(decode, readers)
            for (place, (name, _)), outcome in zip(
                chunk, outcomes, strict=True
            ):
                if not isinstance(outcome, ImageError):
                    images[len(kept)] = outcome
                    kept.append(place)
                    continue
                if strict:
                    raise ValueError(
                        f"{shown(name)} in {shown(where)} is not an image that "
                        f"can be used ({outcome}); repair or remove it, or "
                        "turn off strict reading, so that it is skipped."
                    )
                skipped.append((shown(name), outcome))
    _log_skipped(skipped, count=count, where=where)
    return (
        images[: len(kept)],
        np.array(kept, np.int64),
        tuple(name for name, _ in skipped),
    )


def measure_levels(paths, *, max_pixels):
    """The levels of 16-bit pictures that become black and white.

    A line in the log tells how many of them are close to one uniform gray.

    Args:
      paths: all files to train on; those without 16 bits are ignored.
      max_pixels: see `decode_image`.

    Returns:
      `DatasetSpec.deep_levels`.
    """
    measure = functools.partial(deep_extremes, max_pixels=max_pixels)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        found = [ends for ends in threads.map(measure, paths) if ends]
    if not found:
        return None
    lowest, highest = np.transpose(found)
    black, white = deep_levels(int(lowest.min()), int(highest.max()))
    flat = highest - lowest < (white - black) // _FEW_LEVELS
    if (black, white) != WHOLE_RANGE:
        logging.warning(
            "%d pictures have 16 bits, but levels from %d to %d only: these "
            "are spread over 0 to 255, here and wherever the network is used.",
            len(found),
            black,
            white,
        )
    if flat.any():
        logging.warning(
            "%d of %d pictures of 16 bits use less than 1/%d of the levels %d "
            "to %d: they become nearly one gray.",
            flat.sum(),
            len(found),
            _FEW_LEVELS,
            black,
            white,
        )
    return black, white


def _decode(
    read,
    *,
    image_size,
    max_pixels,
    image_fit="crop",
    background=FILL,
    deep_levels=None,
):
    """The square image of a file, or the `ImageError` that it gave."""
    try:
        image = decode_image(
            read(), max_pixels=max_pixels, deep_levels=deep_levels
        )
    except ImageError as error:
        return error
    # A copy: a view would keep the whole picture in memory.
    return square_image(image, image_size, image_fit, background).copy()


def _allocate(count, image_size, where):
    if image_size is None or image_size < 1:
        raise ValueError(
            f"image_size is {image_size}; images of {where} may differ in "
            "size, so give the pixels per side to resize to, 1 or more."
        )
    try:
        return np.empty([count, image_size, image_size, 3], np.uint8)
    except MemoryError as error:
        gigabytes = count * image_size**2 * 3 / 1e9
        raise ValueError(
            f"The {count} images of {where} need {gigabytes:.0f} GB of memory "
            f"with image_size {image_size}; make it smaller."
        ) from error


def _log_skipped(skipped, *, count, where):
    if not skipped:
        return
    logging.warning(
        "%s: skipped %d of %d files: %s.",
        shown(where),
        len(skipped),
        count,
        listed([f"{name} ({why})" for name, why in skipped], most=_NAMED),
    )
