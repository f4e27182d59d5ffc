"""Loads a data set by its name, whatever its kind of source."""

import dataclasses
import inspect
import os

from meta_pseudo_labels.data.duplicates import warn_of_copies
from meta_pseudo_labels.data.image_data import ARRAYS, ImageData
from meta_pseudo_labels.data.images.decoding import MAX_PIXELS
from meta_pseudo_labels.data.sources import SOURCES, find_source
from meta_pseudo_labels.data.spec import FITS
from meta_pseudo_labels.utils.registry import nearest


def load(
    name,
    *,
    num_labeled,
    seed,
    label_subset="balanced",
    image_size=None,
    image_fit="crop",
    data_dir=None,
    labeled_dir=None,
    unlabeled_dir=None,
    eval_dir=None,
    flip=None,
    strict=False,
    max_pixels=MAX_PIXELS,
):
    """Loads a data set by its name; ImageNet stays in its files.

    Args:
      name: "digits", which come with scikit-learn; a set prepared by
        TensorFlow Datasets: "cifar10", "cifar100", "svhn_cropped", or any
        other for image classification as "tfds:<name>"; "imagenet2012" and
        "imagenet2012_subset", see `imagenet.load`; or "folders", your own
        images. For "cifar10", binary files in data_dir (train.bin and
        test_batch.bin, see `cifar_binary`) are preferred to a prepared set.
      num_labeled: how many images keep their label, over all classes; None
        for all.
      seed: int, draws these images if the subset is balanced.
      label_subset: "balanced", the same number from each class; "first", the
        first ones in the order of the source, as in the release; or the path
        of a file from `save_labeled_indices`, which repeats a choice.
      image_size: pixels to resize to; None for the set's own size. Folders
        need it, and so do TFDS sets whose images differ in size.
      image_fit: how pictures that are not square are made square: "crop" keeps
        the center, "pad" everything, with gray margins, "squash" everything,
        distorted. For sets whose images are already square, it applies to other
        pictures, in evaluation and wherever the network is used.
      data_dir: folder of prepared sets; None for TensorFlow Datasets' own.
      labeled_dir, unlabeled_dir, eval_dir: the folders of "folders", see
        `folders.load`.
      flip: whether a mirrored image keeps its class; None means as in the
        table, and True for sets that are not in it.
      strict: whether to stop at the first file of folders or "tfds:" that is
        not a usable image; otherwise such files are skipped and logged.
      max_pixels: images of these with more pixels are not decoded.

    Returns:
      `ImageData`, or `ShardedData` for ImageNet. The test split does not depend
      on the seed. For images in memory, test images that are also trained on,
      and images with two classes, are logged.

    Raises:
      ValueError: if the name is unknown, the set cannot be loaded, or
        num_labeled is not possible.
    """
    settings = dict(
        name=name,
        num_labeled=num_labeled,
        seed=seed,
        label_subset=label_subset,
        image_size=image_size,
        image_fit=image_fit,
        flip=flip is not False,
        strict=strict,
        max_pixels=max_pixels,
    )
    folders = dict(
        labeled_dir=labeled_dir, unlabeled_dir=unlabeled_dir, eval_dir=eval_dir
    )
    # A shell does not expand the ~ in --data_dir=~/sets.
    settings |= {
        key: folder and os.path.expanduser(folder)
        for key, folder in (folders | {"data_dir": data_dir}).items()
    }
    check_name(name)
    if image_fit not in FITS:
        raise ValueError(
            f"image_fit is {image_fit!r}; choose one of {', '.join(FITS)}."
        )
    source = find_source(name)
    read = _read_by(source, settings)
    _refuse_unread(name, folders, read)
    if label_subset != "balanced" and "label_subset" not in read:
        raise _unread("label_subset", label_subset, name)
    data = source.load(**{key: settings[key] for key in read})
    if image_size not in (None, data.spec.image_size):
        raise _unread("image_size", image_size, name)
    if image_fit != "crop" and not isinstance(data, ImageData):
        raise ValueError(
            f"image_fit is {image_fit!r}; images of {name} stay in their files "
            "and are trained on as crops: leave it out."
        )
    spec = dataclasses.replace(data.spec, image_fit=image_fit)
    if spec.name == ARRAYS:  # A source's own arrays: it prepares pictures.
        spec = dataclasses.replace(spec, name=name)
    if flip is not None:
        spec = dataclasses.replace(spec, flip=flip)
    data = dataclasses.replace(
        data, spec=spec, label_subset=str(label_subset), seed=seed
    )
    if isinstance(data, ImageData):
        warn_of_copies(data)
    return data


def _unread(key, value, name):
    return ValueError(
        f"{key} is {value!r}, but the data set {name!r} does not read it: "
        f"leave it out, or have its `load` take {key}."
    )


def check_name(name):
    """Raises ValueError for a name that `load` would not know."""
    if find_source(name) is None:
        hints = {key: SOURCES[key].hint for key in SOURCES}
        known = sorted(key for key, hint in hints.items() if not hint)
        others = [f"{key} {hint}" for key, hint in hints.items() if hint]
        raise ValueError(
            f"unknown data set {name!r}{nearest(name, known)}; choose one of "
            f"{', or '.join([', '.join(known), *others])}."
        )


def _read_by(source, settings):
    """The settings that a source's `load` declares; all for `**settings`."""
    taken = inspect.signature(source.load).parameters
    if any(one.kind is one.VAR_KEYWORD for one in taken.values()):
        return list(settings)
    return [key for key in settings if key in taken]


def _refuse_unread(name, folders, read):
    """Refuses folders that would not be read."""
    for key, folder in folders.items():
        if folder is not None and key not in read:
            raise ValueError(
                f"{key} is given, but the data set is {name!r}; choose "
                "'folders' to learn from folders."
            )
