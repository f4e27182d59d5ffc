"""Small-image data sets from TensorFlow Datasets (TFDS), held in memory.

Nothing is ever downloaded here: if a set is not prepared, the error message
gives the command that prepares it.
"""

import contextlib
import dataclasses
import glob
import os
import shlex

import numpy as np
import tensorflow as tf
from absl import logging

from meta_pseudo_labels.data.image_data import keep_labels
from meta_pseudo_labels.data.images.resizing import resize_images
from meta_pseudo_labels.data.sources import SOURCES, Source
from meta_pseudo_labels.data.spec import DATASETS

_BATCH = 1_000


def load(
    name,
    *,
    num_labeled,
    seed,
    label_subset="balanced",
    image_size=None,
    data_dir=None,
):
    """Loads a prepared TFDS data set.

    TFDS shuffles a set when it writes it. Here images are in the order of the
    number in their `id`, that of the original files: for CIFAR-10, of the
    records in the release's train.bin.

    Args:
      name: "cifar10", "cifar100" or "svhn_cropped".
      num_labeled, seed, label_subset: see `labeled_positions`.
      image_size: pixels, see `resize_images`; None for the set's own.
      data_dir: folder of prepared sets; None is TFDS's default, the folder in
        $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Returns:
      `ImageData`. All training images are unlabeled images too, including the
      labeled ones, as in the release (quirk 31); those of SVHN's split `extra`
      follow if it is prepared. `labeled_indices` are the numbers in `id`: a
      list of them names the same images on every machine.

    Raises:
      ValueError: if the set is not prepared, or num_labeled is not possible.
    """
    with hushed():
        builder = prepared_builder(name, data_dir)
        splits = builder.info.splits
        training = [split for split in ("train", "extra") if split in splits]
        images, labels = _read(builder, training)
        test_images, test_labels = _read(builder, ["test"])
    return keep_labels(
        _spec(name, builder),
        images=resize_images(images, image_size),
        labels=labels[: splits["train"].num_examples],
        test_images=resize_images(test_images, image_size),
        test_labels=test_labels,
        num_labeled=num_labeled,
        seed=seed,
        label_subset=label_subset,
    )


def _spec(name, builder):
    """The table's row, with class names added if it has none."""
    spec = DATASETS[name]
    return dataclasses.replace(
        spec,
        class_names=spec.class_names
        or tuple(builder.info.features["label"].names),
    )


@contextlib.contextmanager
def hushed():
    """Keeps TFDS from logging each file that it opens."""
    before = logging.get_verbosity()
    logging.set_verbosity(min(before, logging.WARNING))
    try:
        yield
    finally:
        logging.set_verbosity(before)


def prepared_builder(name, data_dir):
    """The TFDS builder of the newest version found on disk.

    Looking for the files first keeps TFDS from asking its servers about a set
    that is not there.

    Args:
      name: of the set, followed by that of a configuration if it has several,
        as in "imagenette/320px-v2".
      data_dir: see `load`.

    Raises:
      ValueError: if it is not there.
    """
    import tensorflow_datasets as tfds  # Slow, and needed only here.

    root = os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR)
    versions = _versions(root, name)
    if not versions:
        configs = _configurations(root, name)
        if configs:
            raise ValueError(
                f"{name} has several configurations; name one of those "
                f"prepared in {root}: "
                f"{', '.join(f'{name}/{c}' for c in configs)}."
            )
        above = _folder_above(name, root)
        if above:
            raise ValueError(
                f"{root} is too deep: {name} is prepared in {above}; give that "
                "folder as data_dir."
            )
        raise ValueError(
            f"{name} is not prepared: found no {name}/<version>/"
            f"dataset_info.json in {root}"
            f"{'' if data_dir else ', the default of TensorFlow Datasets'}. "
            "Nothing is downloaded without being asked for; prepare it once "
            f"with `tfds build {name} --data_dir={shlex.quote(root)}`, or "
            "point data_dir to where it is."
        )
    return tfds.builder_from_directory(versions[max(versions)])


def _versions(root, name):
    """The prepared versions of a set, {numbers: folder}."""
    infos = _glob(root, name, "*", "dataset_info.json")
    folders = [os.path.dirname(info) for info in infos]
    versions = {_version(folder): folder for folder in folders}
    versions.pop(None, None)
    return versions


def _glob(root, *parts):
    """Files matching a pattern below a folder, whose name may have [ and ]."""
    return tf.io.gfile.glob(os.path.join(glob.escape(root), *parts))


def _configurations(root, name):
    """The names of the prepared configurations of a set, sorted."""
    infos = _glob(root, name, "*", "*", "dataset_info.json")
    return sorted({path.split(os.sep)[-3] for path in infos})


def _folder_above(name, root):
    """The folder up to three levels above root that holds the set, or None.

    A user who looks for a set finds tfds/cifar10/3.0.2 and may give any part
    of that path.
    """
    folder = root.rstrip("/") if "://" in root else os.path.abspath(root)
    for _ in range(3):
        folder = os.path.dirname(folder)
        if _versions(folder, name) or _configurations(folder, name):
            return folder
    return None


def _version(folder):
    """The numbers of a folder called 3.0.2; None for any other name."""
    parts = os.path.basename(folder).split(".")
    return tuple(map(int, parts)) if all(map(str.isdigit, parts)) else None


def in_order(builder, split, decoders=None):
    """The examples of a split in the order of its files.

    A small set is not cached in memory, which TFDS does by default.
    """
    import tensorflow_datasets as tfds

    return builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders=decoders,
        read_config=tfds.ReadConfig(
            interleave_cycle_length=1, try_autocache=False
        ),
    )


def _read(builder, splits):
    """Reads splits, one after another, each in the order of its ids.

    Returns:
      [N, H, W, 3] uint8 and [N] int32.

    Raises:
      ValueError: unless the ids of a split are numbered 0, 1, 2, ...
    """
    totals = [builder.info.splits[split].num_examples for split in splits]
    shape = builder.info.features["image"].shape
    images = np.empty([sum(totals), *shape], np.uint8)
    labels = np.empty([sum(totals)], np.int32)
    start = 0
    for split, total in zip(splits, totals, strict=True):
        part = slice(start, start + total)
        _read_split(builder, split, images=images[part], labels=labels[part])
        start += total
    return images, labels


def _read_split(builder, split, *, images, labels):
    """Fills `images` and `labels`; the number in the id is the place."""
    if "id" not in builder.info.features:
        raise ValueError(
            f"{builder.data_dir} has no feature `id`, which holds the order "
            "of the images; prepare a newer version of the set."
        )
    seen = np.zeros([len(labels)], bool)
    examples = in_order(builder, split)
    for batch in examples.batch(_BATCH).prefetch(2).as_numpy_iterator():
        places = np.array([int(i.rsplit(b"_", 1)[-1]) for i in batch["id"]])
        if places.max() >= len(labels):
            break
        images[places], labels[places] = batch["image"], batch["label"]
        seen[places] = True
    if not seen.all():
        raise ValueError(
            f"The ids of split {split!r} in {builder.data_dir} are not "
            f"numbered 0 to {len(labels) - 1}; prepare the set again."
        )


@SOURCES.register("cifar100")
@SOURCES.register("svhn_cropped")
class Tfds(Source):
    """See `load`."""

    load = staticmethod(load)
