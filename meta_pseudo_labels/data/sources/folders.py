"""Images of your own in folders, one folder per class; held in memory.

    labeled/cat/1.jpg   labeled/dog/2.png      one folder per class
    unlabeled/a.webp    unlabeled/more/b.jpg   any nesting
    eval/cat/3.jpg      eval/dog/4.jpg         the same classes, or some

Classes are numbered by their sorted names. Files are told by their bytes, not
by their names; hidden ones (.DS_Store) are passed over.
"""

import os

import numpy as np
from absl import logging

from meta_pseudo_labels.data.image_data import ImageData
from meta_pseudo_labels.data.images.decoding import MAX_PIXELS
from meta_pseudo_labels.data.images.files import (
    list_files,
    list_folder,
    read_images,
)
from meta_pseudo_labels.data.labels import labeled_positions
from meta_pseudo_labels.data.pixel_statistics import channel_statistics
from meta_pseudo_labels.data.sources import SOURCES, Source
from meta_pseudo_labels.data.spec import DatasetSpec

NAME = "folders"


def load(
    labeled_dir,
    unlabeled_dir=None,
    eval_dir=None,
    *,
    image_size,
    num_labeled=None,
    label_subset="balanced",
    seed=0,
    flip=True,
    strict=False,
    max_pixels=MAX_PIXELS,
):
    """Loads folders of JPEG, PNG, BMP, GIF and WebP files.

    Every image is brought to one size: its short side is scaled to
    `image_size` and the centre cropped (`square_image`). What is no usable
    image is skipped, counted, logged by name, and listed in `skipped`.

    Args:
      labeled_dir: one folder per class; below it any nesting.
      unlabeled_dir: images without a class, any nesting; or None.
      eval_dir: test images, as labeled_dir, with some or all of its classes;
        or None for no test.
      image_size: pixels.
      num_labeled, label_subset, seed: see `labeled_positions`; the order is
        that of the sorted names, class after class.
      flip: whether a mirrored image keeps its class.
      strict: whether to stop at the first file that would be skipped.
      max_pixels: larger images are skipped without being decoded.

    Returns:
      `ImageData`. Its unlabeled images are those of unlabeled_dir, then those
      of labeled_dir that do not keep their label. Mean and standard deviation
      are those of the labeled and the unlabeled images. `labeled_indices`
      count the usable images of labeled_dir from 0.

    Raises:
      ValueError: where a folder is missing, empty, or not laid out like this,
        a class has no usable image, the test images are among those that are
        learned from, or so many labels cannot be had.
    """
    reading = dict(image_size=image_size, max_pixels=max_pixels, strict=strict)
    if labeled_dir is None:
        raise ValueError(
            "labeled_dir is None; name the folder that holds one folder of "
            "images per class."
        )
    classes = _class_folders(labeled_dir)
    eval_classes = [] if eval_dir is None else _class_folders(eval_dir)
    _check_eval_classes(eval_classes, classes, eval_dir=eval_dir)
    _check_apart(eval_dir, labeled_dir=labeled_dir, unlabeled_dir=unlabeled_dir)

    pool, labels, skipped = _read_classes(labeled_dir, classes, **reading)
    _check_every_class(labels, classes, why=f"{labeled_dir} as it is read")
    chosen = labeled_positions(
        labels,
        num_labeled=num_labeled,
        num_classes=len(classes),
        seed=seed,
        label_subset=label_subset,
        source=NAME,
    )
    # Files come class after class, so the first ones may be of one class.
    _check_every_class(
        labels[chosen], classes, why=f"label_subset {label_subset!r}"
    )
    unlabeled, more_skipped = _read_unlabeled(unlabeled_dir, **reading)
    if len(chosen) < len(pool):
        unlabeled = np.concatenate([unlabeled, np.delete(pool, chosen, axis=0)])
        pool = pool[chosen]
    test, test_labels, test_skipped = _read_eval(
        eval_dir, eval_classes, classes, **reading
    )
    mean, std = channel_statistics(pool, unlabeled)
    spec = DatasetSpec(
        name=NAME,
        num_classes=len(classes),
        image_size=image_size,
        mean=mean,
        std=std,
        flip=flip,
        class_names=tuple(classes),
    )
    return ImageData(
        spec=spec,
        labeled_images=pool,
        labeled_labels=labels[chosen],
        unlabeled_images=unlabeled,
        test_images=test,
        test_labels=test_labels,
        labeled_indices=chosen,
        skipped=(*skipped, *more_skipped, *test_skipped),
    )


def load_test(
    eval_dir, classes, *, image_size, strict=False, max_pixels=MAX_PIXELS
):
    """Loads the test images alone, for networks that know their classes.

    Args:
      eval_dir: see `load`.
      classes: the names of all classes, in the order of their numbers.
      image_size, strict, max_pixels: see `load`.

    Returns:
      Images [T, S, S, 3] uint8, labels [T] int32, and the names of the files
      that were skipped.

    Raises:
      ValueError: where the folder is missing, empty, not laid out like this,
        or has a class that is not among `classes`.
    """
    classes = list(classes)
    eval_classes = _class_folders(eval_dir)
    unknown = [name for name in eval_classes if name not in classes]
    if unknown:
        raise ValueError(
            f"{eval_dir} has the class {unknown[0]!r}, which the networks do "
            f"not know; they know {_listed(classes)}."
        )
    return _read_eval(
        eval_dir,
        eval_classes,
        classes,
        image_size=image_size,
        strict=strict,
        max_pixels=max_pixels,
    )


def _class_folders(folder):
    """The names of the classes, sorted.

    Raises:
      ValueError: unless there are folders only, and at least one.
    """
    files, classes = list_folder(folder)
    if not classes:
        raise ValueError(
            f"{folder} holds no folders; make one per class and put its "
            "images there."
        )
    if files:
        raise ValueError(
            f"{folder} holds files beside its class folders, {files[0]!r} "
            f"first of {len(files)}; move them into the folder of their class."
        )
    return classes


def _check_eval_classes(eval_classes, classes, *, eval_dir):
    unknown = [name for name in eval_classes if name not in classes]
    if unknown:
        raise ValueError(
            f"{eval_dir} has the class {unknown[0]!r}, which the labeled "
            f"images do not have; they have {_listed(classes)}."
        )


def _check_apart(eval_dir, **learned):
    """Refuses test images among those that are learned from, by name."""
    for name, folder in learned.items():
        if folder is None or eval_dir is None:
            continue
        theirs, test = map(os.path.realpath, (folder, eval_dir))
        if os.path.commonpath([theirs, test]) in (theirs, test):
            raise ValueError(
                f"{name} {folder} and eval_dir {eval_dir} share files, so test "
                "images would be learned from; keep them apart."
            )


def _warn_of_untested(labels, classes, *, eval_dir):
    """Names the classes of which there is no test image."""
    tested = set(labels)
    absent = [name for i, name in enumerate(classes) if i not in tested]
    if absent:
        logging.warning(
            "%s has no usable image of %d of %d classes: %s. Accuracies are "
            "those of the others.",
            eval_dir,
            len(absent),
            len(classes),
            _listed(absent),
        )


def _read_classes(folder, classes, **reading):
    """Reads the images of class folders.

    Returns:
      Images [N, S, S, 3] uint8; [N] int32, their places in `classes`; and the
      names that were skipped.
    """
    names, labels = [], []
    for label, name in enumerate(classes):
        inner = list_files(os.path.join(folder, name))
        names += [f"{name}/{file}" for file in inner]
        labels += [label] * len(inner)
    images, kept, skipped = read_images(folder, names, **reading)
    _check_some(images, folder)
    labels = np.array(labels, np.int32)
    return images, labels[kept], skipped


def _read_unlabeled(folder, **reading):
    """Reads all images below a folder; none where there is no folder."""
    names = [] if folder is None else list_files(folder)
    images, _, skipped = read_images(folder, names, **reading)
    if folder is not None:
        _check_some(images, folder)
    return images, skipped


def _read_eval(folder, eval_classes, classes, **reading):
    """Reads the test images; their labels are places in `classes`."""
    if folder is None:
        images, _, _ = read_images(folder, [], **reading)
        return images, np.zeros([0], np.int32), ()
    images, places, skipped = _read_classes(folder, eval_classes, **reading)
    numbers = np.array([classes.index(name) for name in eval_classes], np.int32)
    labels = numbers[places]
    _warn_of_untested(labels.tolist(), classes, eval_dir=folder)
    return images, labels, skipped


def _check_some(images, folder):
    if not len(images):
        raise ValueError(
            f"{folder} holds no usable image; put JPEG, PNG, BMP, GIF or WebP "
            "files there."
        )


def _check_every_class(labels, classes, *, why):
    missing = sorted(set(range(len(classes))) - set(labels.tolist()))
    if missing:
        names = _listed([classes[label] for label in missing])
        raise ValueError(
            f"{why} leaves no labeled image of {names}; a class needs at least "
            "one image that can be used and keeps its label."
        )


def _listed(names, most=10):
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@SOURCES.register(NAME)
class Folders(Source):
    """See `load`."""

    exact = True
    load = staticmethod(load)
