"""Your own images in folders, one folder per class; held in memory.

    labeled/cat/1.jpg   labeled/dog/2.png      one folder per class
    unlabeled/a.webp    unlabeled/more/b.jpg   any nesting
    eval/cat/3.jpg      eval/dog/4.jpg         the same classes, or some

Classes are numbered by their sorted names; names that differ only in how
Unicode composes them, as on Macs, are one class. The kind of a file is told by
its bytes, not by its name; hidden files (.DS_Store) and others that systems
leave (@eaDir) are passed over.
"""

import collections
import dataclasses
import os
import unicodedata

import numpy as np
from absl import logging

from meta_pseudo_labels.data.duplicates import (
    names_by_digest,
    warn_of_two_classes,
)
from meta_pseudo_labels.data.image_data import ImageData
from meta_pseudo_labels.data.images.decoding import MAX_PIXELS
from meta_pseudo_labels.data.images.files import measure_levels, read_images
from meta_pseudo_labels.data.images.listing import (
    list_files,
    list_folder,
    listed,
    refuse_doubtful,
    refuse_shared,
    report_passed_over,
    shown,
)
from meta_pseudo_labels.data.labels import labeled_positions
from meta_pseudo_labels.data.pixel_statistics import (
    channel_statistics,
    warn_of_dark,
)
from meta_pseudo_labels.data.sources import SOURCES, Source
from meta_pseudo_labels.data.spec import FILL, DatasetSpec, composed

NAME = "folders"
_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")  # Controls, surrogates, line ends.


def load(
    labeled_dir,
    unlabeled_dir=None,
    eval_dir=None,
    *,
    image_size,
    image_fit="crop",
    num_labeled=None,
    label_subset="balanced",
    seed=0,
    flip=True,
    strict=False,
    max_pixels=MAX_PIXELS,
):
    """Loads folders of JPEG, PNG, BMP, GIF and WebP files.

    All images are brought to one size: by default the short side is scaled to
    `image_size` and the center cropped. Files that are not usable images are
    skipped, counted, logged by name, and listed in `skipped`.

    Args:
      labeled_dir: one folder per class; below it any nesting.
      unlabeled_dir: images without a class, any nesting; or None.
      eval_dir: test images, laid out like labeled_dir, with some or all of its
        classes; or None for no test.
      image_size: pixels.
      image_fit: "crop", "pad" or "squash", see `square_image`.
      num_labeled, label_subset, seed: see `labeled_positions`; the order is
        that of the sorted names, class by class.
      flip: whether a mirrored image keeps its class.
      strict: whether to stop at the first file that would be skipped.
      max_pixels: larger images are skipped without being decoded.

    Returns:
      `ImageData`. Its unlabeled images are those of unlabeled_dir, then those
      of labeled_dir that do not keep their label. Mean and standard deviation
      are those of the labeled and the unlabeled images. `labeled_indices`
      number the usable images of labeled_dir from 0.

    Raises:
      ValueError: if a folder is missing, empty, or not laid out like this, a
        class has no usable image, test images are among those to train on, or
        num_labeled is not possible.
    """
    if labeled_dir is None:
        raise ValueError(
            "labeled_dir is None; name the folder that holds one folder of "
            "images per class (--labeled_dir; --data_dir is not read for "
            "folders)."
        )
    folders = _class_folders(labeled_dir)
    eval_folders = {} if eval_dir is None else _class_folders(eval_dir)
    classes = list(folders)
    if len(classes) == 1:
        raise ValueError(
            f"{labeled_dir} holds one class folder only, {classes[0]!r}; there "
            "is nothing to tell apart. Is it one level too high?"
        )
    _check_eval_classes(eval_folders, classes, eval_dir=eval_dir)
    _check_apart(eval_dir, labeled_dir=labeled_dir, unlabeled_dir=unlabeled_dir)
    labeled_files = _list_classes(labeled_dir, folders, classes)
    unlabeled_files = _list_all(unlabeled_dir)
    eval_files = _list_classes(eval_dir, eval_folders, classes)
    learned = labeled_files, unlabeled_files
    refuse_shared(
        (files.paths(), files.labels, files is eval_files)
        for files in (*learned, eval_files)
    )
    reading = dict(
        image_size=image_size,
        image_fit=image_fit,
        max_pixels=max_pixels,
        strict=strict,
        deep_levels=measure_levels(
            [path for files in learned for path in files.paths()],
            max_pixels=max_pixels,
        ),
    )

    found = _read(labeled_files, **reading)
    _check_every_class(
        found.labels, classes, why=f"{labeled_dir} as it is read"
    )
    names = found.shown_names(within=True)
    chosen = labeled_positions(
        found.labels,
        num_labeled=num_labeled,
        num_classes=len(classes),
        seed=seed,
        label_subset=label_subset,
        source=NAME,
        names=names,
    )
    # Files come class by class, so the first ones may all be of one class.
    _check_every_class(
        found.labels[chosen], classes, why=f"label_subset {label_subset!r}"
    )
    others, test = (
        _read(unlabeled_files, **reading),
        _read(eval_files, **reading),
    )
    if eval_dir is not None:
        _warn_of_untested(test.labels.tolist(), classes, eval_dir=eval_dir)
    pool, unlabeled = found.images, others.images
    if len(chosen) < len(pool):
        unlabeled = np.concatenate([unlabeled, np.delete(pool, chosen, axis=0)])
        pool = pool[chosen]
    warn_of_dark(pool, unlabeled, where=shown(labeled_dir))
    mean, std = channel_statistics(pool, unlabeled)
    spec = DatasetSpec(
        name=NAME,
        num_classes=len(classes),
        image_size=image_size,
        mean=mean,
        std=std,
        flip=flip,
        class_names=tuple(classes),
        deep_levels=reading["deep_levels"],
        image_fit=image_fit,
    )
    parts = found, others, test
    return ImageData(
        spec=spec,
        labeled_images=pool,
        labeled_labels=found.labels[chosen],
        unlabeled_images=unlabeled,
        test_images=test.images,
        test_labels=test.labels,
        labeled_indices=chosen,
        skipped=tuple(name for part in parts for name in part.skipped),
        passed_over=tuple(name for part in parts for name in part.passed_over),
        names=names_by_digest(
            [(part.images, part.shown_names()) for part in parts]
        ),
        files=tuple(names),
    )


def load_test(
    eval_dir,
    classes,
    *,
    image_size,
    image_fit="crop",
    background=FILL,
    strict=False,
    max_pixels=MAX_PIXELS,
    deep_levels=None,
):
    """Loads only the test images, for networks whose classes are known.

    Args:
      eval_dir: see `load`.
      classes: the names of all classes, in the order of their numbers.
      image_size, image_fit, strict, max_pixels: see `load`.
      background, deep_levels: as in the spec of the networks' images.

    Returns:
      Images [T, S, S, 3] uint8, labels [T] int32, and the names of the skipped
      files.

    Raises:
      ValueError: if the folder is missing, empty, not laid out like this, or
        has a class that is not among `classes`.
    """
    classes = [composed(name) for name in classes]
    folders = _class_folders(eval_dir)
    unknown = [name for name in folders if name not in classes]
    if unknown:
        raise ValueError(
            f"{eval_dir} has the class {unknown[0]!r}, which the networks do "
            f"not know; they know {listed(map(_clear, classes))}."
        )
    files = _list_classes(eval_dir, folders, classes)
    refuse_shared([(files.paths(), files.labels, True)])
    found = _read(
        files,
        image_size=image_size,
        image_fit=image_fit,
        background=background,
        strict=strict,
        max_pixels=max_pixels,
        deep_levels=deep_levels,
    )
    _warn_of_untested(found.labels.tolist(), classes, eval_dir=eval_dir)
    warn_of_two_classes(found.images, found.labels, where=shown(eval_dir))
    return found.images, found.labels, found.skipped


@dataclasses.dataclass(frozen=True)
class _Files:
    """The files of a folder: their names in it, and a class number for each.

    For images without a class there are no labels.
    """

    folder: str | None
    names: list[str]
    labels: list[int]
    passed_over: tuple[str, ...] = ()

    def paths(self):
        return [os.path.join(self.folder, name) for name in self.names]


@dataclasses.dataclass(frozen=True)
class _Part:
    """The usable images of some files, [N, S, S, 3] uint8, and their labels."""

    files: _Files
    places: np.ndarray  # [N], among the files.
    images: np.ndarray
    labels: np.ndarray
    skipped: tuple[str, ...]

    @property
    def passed_over(self):
        return self.files.passed_over

    def shown_names(self, *, within=False):
        """The files, as messages name them; or their names in the folder."""
        paths = self.files.names if within else self.files.paths()
        return [shown(paths[place]) for place in self.places]


def _class_folders(folder):
    """The folders of each class, by the sorted names of the classes.

    Usually there is one folder per class; see `composed`.

    Raises:
      ValueError: unless there is at least one folder, nothing but folders, and
        all names are ones that lists of classes can hold.
    """
    files, found, left = list_folder(folder)
    refuse_doubtful(left, where=folder)
    if not found:
        raise ValueError(
            f"{folder} holds no folders; make one per class and put its "
            "images there."
        )
    if files:
        raise ValueError(
            f"{folder} holds files beside its class folders, {files[0]!r} "
            f"first of {len(files)}; move them into the folders of their class."
        )
    classes = collections.defaultdict(list)
    for name in found:
        if any(unicodedata.category(c) in _NO_TEXT for c in name):
            raise ValueError(
                f"{folder} holds the class {shown(name)!r}, whose name is not "
                "a line of text; rename that folder."
            )
        classes[composed(name)].append(name)
    return dict(sorted(classes.items()))


def _list_classes(folder, folders, classes):
    """The files of class folders.

    Args:
      folder: the folder that holds them; or None for no files.
      folders: the folders of each class, by its name.
      classes: the names of all classes, in the order of their numbers.
    """
    if folder is None:
        return _list_all(None)
    names, labels = [], []
    passed_over = list_folder(folder)[2]
    for label, name in (
        (classes.index(name), inner)
        for name, inners in folders.items()
        for inner in inners
    ):
        files, left = list_files(os.path.join(folder, name))
        names += [f"{name}/{file}" for file in files]
        passed_over += [f"{name}/{file}" for file in left]
        labels += [label] * len(files)
    report_passed_over(passed_over, where=folder)
    return _Files(folder, names, labels, tuple(map(shown, passed_over)))


def _list_all(folder):
    """All files below a folder; none if the folder is None."""
    if folder is None:
        return _Files(None, [], [])
    names, passed_over = list_files(folder)
    report_passed_over(passed_over, where=folder)
    return _Files(folder, names, [], tuple(map(shown, passed_over)))


def _read(files, **reading):
    """Reads all images of some files; a folder must have at least one."""
    images, places, skipped = read_images(files.folder, files.names, **reading)
    if files.folder is not None:
        _check_some(images, files.folder)
    labels = np.array(files.labels, np.int32)
    labels = labels[places] if len(labels) else labels
    return _Part(files, places, images, labels, skipped)


def _clear(name):
    """A name, in quotes if it might be taken for another one."""
    return name if name.isprintable() and name == name.strip() else repr(name)


def _check_eval_classes(eval_classes, classes, *, eval_dir):
    unknown = [name for name in eval_classes if name not in classes]
    if unknown:
        raise ValueError(
            f"{eval_dir} has the class {unknown[0]!r}, which the labeled "
            f"images do not have; they have {listed(map(_clear, classes))}."
        )


def _check_apart(eval_dir, **learned):
    """Refuses an eval_dir that overlaps a folder to train on, by path."""
    for name, folder in learned.items():
        if folder is None or eval_dir is None:
            continue
        theirs, test = map(os.path.realpath, (folder, eval_dir))
        if os.path.commonpath([theirs, test]) in (theirs, test):
            raise ValueError(
                f"{name} {folder} and eval_dir {eval_dir} share files, so test "
                "images would be trained on; keep them apart."
            )


def _warn_of_untested(labels, classes, *, eval_dir):
    """Logs the names of the classes that have no test image."""
    tested = set(labels)
    absent = [name for i, name in enumerate(classes) if i not in tested]
    if absent:
        logging.warning(
            "%s has no usable image of %d of %d classes: %s. Accuracies cover "
            "only the others.",
            eval_dir,
            len(absent),
            len(classes),
            listed(absent),
        )


def _check_some(images, folder):
    if not len(images):
        raise ValueError(
            f"{folder} holds no usable image; put JPEG, PNG, BMP, GIF or WebP "
            "files there."
        )


def _check_every_class(labels, classes, *, why):
    missing = sorted(set(range(len(classes))) - set(labels.tolist()))
    if missing:
        names = listed([classes[label] for label in missing])
        raise ValueError(
            f"{why} leaves no labeled image of {names}; a class needs at least "
            "one image that can be used and keeps its label."
        )


@SOURCES.register(NAME)
class Folders(Source):
    """See `load`."""

    exact = True
    load = staticmethod(load)
