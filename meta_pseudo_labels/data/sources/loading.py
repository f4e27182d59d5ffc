"""A data set by its name, whatever kind of source it comes from."""

import dataclasses
import functools
import os

from meta_pseudo_labels.data.images.decoding import MAX_PIXELS
from meta_pseudo_labels.data.sources import (
    cifar_binary,
    digits,
    folders,
    imagenet,
    tfds,
    tfds_any,
)
from meta_pseudo_labels.data.spec import DATASETS


def _load_cifar10(*, data_dir, **settings):
    """Binary files go before a prepared set in the same folder."""
    if cifar_binary.is_here(data_dir):
        return cifar_binary.load(data_dir=data_dir, **settings)
    return tfds.load("cifar10", data_dir=data_dir, **settings)


_LOADERS = {"digits": digits.load, "cifar10": _load_cifar10} | {
    name: functools.partial(tfds.load, name)
    for name in ("cifar100", "svhn_cropped")
}


def load(
    name,
    *,
    num_labeled,
    seed,
    label_subset="balanced",
    image_size=None,
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
        "imagenet2012_subset", see `imagenet.load`; or "folders", images of
        your own. For "cifar10", binary files in data_dir (train.bin and
        test_batch.bin, see `cifar_binary`) go before a prepared set there.
      num_labeled: how many images keep their label, over all classes; None
        for all.
      seed: int, draws which ones where the subset is balanced.
      label_subset: "balanced", the same number of each class; "first", the
        first ones in the order of the source, as in the release; or the path
        of a file by `save_labeled_indices`, which repeats a choice.
      image_size: pixels to resize to; None for the set's own size. Folders
        need it, and so do TFDS sets whose images differ in size.
      data_dir: folder of prepared sets; None for TensorFlow Datasets' own.
      labeled_dir, unlabeled_dir, eval_dir: the folders of "folders", see
        `folders.load`.
      flip: whether a mirrored image keeps its class; None is what the table
        says, and True for sets that are not in it.
      strict: whether the first file of folders or "tfds:" that is no usable
        image stops it; else such files are skipped and logged.
      max_pixels: images of these with more pixels are not decoded.

    Returns:
      `ImageData`, or `ShardedData` of ImageNet. The test split does not depend
      on the seed.

    Raises:
      ValueError: if the name is unknown, the set cannot be had, or so many
        labels cannot.
    """
    common = dict(
        num_labeled=num_labeled,
        seed=seed,
        label_subset=label_subset,
        image_size=image_size,
    )
    files = dict(strict=strict, max_pixels=max_pixels, flip=flip is not False)
    # A shell leaves the ~ of --data_dir=~/sets as it is.
    data_dir, labeled_dir, unlabeled_dir, eval_dir = (
        folder and os.path.expanduser(folder)
        for folder in (data_dir, labeled_dir, unlabeled_dir, eval_dir)
    )
    places = dict(
        labeled_dir=labeled_dir, unlabeled_dir=unlabeled_dir, eval_dir=eval_dir
    )
    check_name(name)
    _check_folders(name, places)
    if name == folders.NAME:
        data = folders.load(**places, **files, **common)
    elif name.startswith(tfds_any.PREFIX):
        data = tfds_any.load(name, data_dir=data_dir, **files, **common)
    elif name in imagenet.NAMES:
        data = imagenet.load(name, data_dir=data_dir, strict=strict, **common)
    else:
        data = _LOADERS[name](data_dir=data_dir, **common)
    spec = data.spec
    if flip is not None:
        spec = dataclasses.replace(spec, flip=flip)
    return dataclasses.replace(
        data, spec=spec, label_subset=str(label_subset), seed=seed
    )


def check_name(name):
    """Raises ValueError for a name that `load` would not know."""
    if name not in DATASETS and name != folders.NAME:
        if not name.startswith(tfds_any.PREFIX):
            known = ", ".join(sorted([*DATASETS, folders.NAME]))
            raise ValueError(
                f"unknown data set {name!r}; choose one of {known}, or "
                f"{tfds_any.PREFIX}<name> for another set that TensorFlow "
                "Datasets prepared."
            )


def _check_folders(name, places):
    """Refuses folders that would not be read."""
    given = [key for key, folder in places.items() if folder is not None]
    if given and name != folders.NAME:
        raise ValueError(
            f"{given[0]} is given, but the data set is {name!r}; choose "
            f"{folders.NAME!r} to learn from folders."
        )
