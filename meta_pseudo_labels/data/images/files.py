"""Folders of image files: which files there are, and all their pixels."""

import concurrent.futures
import functools
import itertools
import os

import numpy as np
from absl import logging

from meta_pseudo_labels.data.images.decoding import (
    decode_image,
    read_image_file,
)
from meta_pseudo_labels.data.images.headers import ImageError
from meta_pseudo_labels.data.images.resizing import square_image

_THREADS = min(8, os.cpu_count() or 1)
_CHUNK = 256  # Files handed to the threads at a time.
_NAMED = 5  # Skipped files whose names are logged.


def list_files(folder):
    """The files below a folder, at any depth, hidden ones apart.

    Links are followed. A folder that is met a second time, as in a circle of
    links, is passed over.

    Args:
      folder: a local folder.

    Returns:
      Names within the folder, with "/" between, sorted: the order does not
      depend on the file system. Pipes and the like are among them.

    Raises:
      ValueError: where a folder cannot be read.
    """
    names, seen, waiting = [], set(), [""]
    while waiting:
        inner = waiting.pop()
        path = os.path.join(folder, inner) if inner else folder
        files, folders = list_folder(path)
        identity = os.path.realpath(path)
        if identity in seen:
            continue
        seen.add(identity)
        prefix = f"{inner}/" if inner else ""
        names += [prefix + name for name in files]
        waiting += [prefix + name for name in reversed(folders)]
    return sorted(names)


def list_folder(folder):
    """What stands in a folder itself, hidden entries apart.

    Returns:
      Two sorted lists of names: all that is no folder, and the folders.

    Raises:
      ValueError: where the folder is not there or cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            shown = [e for e in entries if not e.name.startswith(".")]
            folders = {e.name for e in shown if os.path.isdir(e.path)}
    except OSError as error:
        raise ValueError(
            f"The folder {folder} cannot be read: {error.strerror}; name one "
            "that is there."
        ) from error
    files = {entry.name for entry in shown} - folders
    return sorted(files), sorted(folders)


def read_images(folder, names, *, image_size, max_pixels, strict):
    """Reads the image files of a folder; see `decode_images`.

    Args:
      folder: a local folder.
      names: list of files within it.
      image_size, max_pixels, strict: see `decode_images`.
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
        image_size=image_size,
        max_pixels=max_pixels,
        strict=strict,
        where=folder,
    )


def decode_images(files, *, count, image_size, max_pixels, strict, where):
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

    Returns:
      [N, image_size, image_size, 3] uint8, in the given order; [N] int64, the
      places of these images among `files`; and a tuple of the names left out.

    Raises:
      ValueError: where strict, or the array cannot be had.
    """
    images = _allocate(count, image_size, where)
    decode = functools.partial(
        _decode, image_size=image_size, max_pixels=max_pixels
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
                        f"{_shown(name)} in {where} is no image that can be "
                        f"used ({outcome}); mend or remove it, or do without "
                        "strict reading, which then skips it."
                    )
                skipped.append((_shown(name), outcome))
    _log_skipped(skipped, count=count, where=where)
    return (
        images[: len(kept)],
        np.array(kept, np.int64),
        tuple(name for name, _ in skipped),
    )


def _decode(read, *, image_size, max_pixels):
    """The square image of a file, or the `ImageError` that it gave."""
    try:
        image = decode_image(read(), max_pixels=max_pixels)
    except ImageError as error:
        return error
    # Not a window into the whole picture, which would stay in memory with it.
    return square_image(image, image_size).copy()


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


def _shown(name):
    """A file name that any log can print."""
    return os.fsencode(name).decode("utf-8", "replace")


def _log_skipped(skipped, *, count, where):
    if not skipped:
        return
    named = ", ".join(f"{name} ({why})" for name, why in skipped[:_NAMED])
    more = len(skipped) - _NAMED
    logging.warning(
        "%s: skipped %d of %d files: %s%s.",
        where,
        len(skipped),
        count,
        named,
        f" and {more} more" if more > 0 else "",
    )
