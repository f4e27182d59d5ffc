"""All the pixels of many image files, in one array."""

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
_FEW_LEVELS = 16  # A picture of so small a part of the levels looks flat.


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
    """Decodes images by a few threads, into one array.

    What is no usable image is left out; one line in the log counts such files
    and names the first ones. At a time each of at most 8 threads holds one
    file and its pixels, so the memory needed beside the array is bounded.

    Args:
      files: iterable of (name, function that returns the bytes).
      count: how many these are.
      image_size: pixels, see `square_image`.
      max_pixels: see `decode_image`.
      strict: whether to stop at the first file that would be left out.
      where: the folder or the like, for messages.
      image_fit, background: of pictures that are not square, see
        `square_image`.
      deep_levels: of pictures of 16 bits, see `DatasetSpec`.

    Returns:
      [N, image_size, image_size, 3] uint8, in the given order; [N] int64, the
      places of these images among `files`; and a tuple of the names left out.

    Raises:
      ValueError: where strict, or the array cannot be had.
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
                        f"{shown(name)} in {shown(where)} is no image that "
                        f"can be used ({outcome}); mend or remove it, or do "
                        "without strict reading, which then skips it."
                    )
                skipped.append((shown(name), outcome))
    _log_skipped(skipped, count=count, where=where)
    return (
        images[: len(kept)],
        np.array(kept, np.int64),
        tuple(name for name, _ in skipped),
    )


def measure_levels(paths, *, max_pixels):
    """The levels that become black and white, of pictures of 16 bits.

    A line in the log says how many of them hardly differ from one grey.

    Args:
      paths: of all files that are learned from; the others are left alone.
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
            "%d pictures have 16 bits, but levels from %d to %d alone: these "
            "are spread over 0 to 255, here and wherever the network is used.",
            len(found),
            black,
            white,
        )
    if flat.any():
        logging.warning(
            "%d of %d pictures of 16 bits have less than 1/%d of the levels "
            "%d to %d: they become nearly one grey.",
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
    # Not a window into the whole picture, which would stay in memory with it.
    return square_image(image, image_size, image_fit, background).copy()


def _allocate(count, image_size, where):
    if image_size is None or image_size < 1:
        raise ValueError(
            f"image_size is {image_size}; images of {where} may differ in "
            "size, so say to how many pixels they are brought, 1 or more."
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
