"""CIFAR-10 as binary files: the release's layout and the classic one.

The release reads train.bin, the five classic training batches in a row, and
test_batch.bin (`data_utils.build_train_dataset`); instead of the former,
data_batch_1.bin to data_batch_5.bin are accepted too. A record is 3,073 bytes:
a label, 0 to 9, then 1,024 red, 1,024 green and 1,024 blue bytes, each plane
row by row.
"""

import os

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.image_data import keep_labels
from meta_pseudo_labels.data.images.resizing import resize_images
from meta_pseudo_labels.data.sources import SOURCES, Source, tfds
from meta_pseudo_labels.data.spec import DATASETS

_SIDE = 32
_RECORD = 1 + 3 * _SIDE**2
_CHUNK = 5_000  # Records read at a time: 15 MB.
_WHOLE = "train.bin"
_BATCHES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST = "test_batch.bin"


def is_here(data_dir):
    """Whether a folder holds at least one of these files."""
    return data_dir is not None and any(
        tf.io.gfile.exists(os.path.join(data_dir, name))
        for name in (_WHOLE, *_BATCHES, _TEST)
    )


def load(
    *,
    data_dir,
    num_labeled,
    seed,
    label_subset="balanced",
    image_size=None,
):
    """Loads CIFAR-10 from binary files.

    Args:
      data_dir: the folder of the files, local or gs://. If it has both layouts,
        train.bin is used.
      num_labeled, seed, label_subset: see `labeled_positions`. The first
        4,000 are the release's `cifar10_4000`.
      image_size: pixels, see `resize_images`; None for 32.

    Returns:
      `ImageData`, the same as from TFDS: all training images are unlabeled
      images too (quirk 31), `labeled_indices` number the training records.

    Raises:
      ValueError: if a file is missing or laid out differently, or num_labeled
        is not possible.
    """
    images, labels = _read(_training_files(data_dir))
    test_images, test_labels = _read([_existing(data_dir, _TEST)])
    return keep_labels(
        DATASETS["cifar10"],
        images=resize_images(images, image_size),
        labels=labels,
        test_images=resize_images(test_images, image_size),
        test_labels=test_labels,
        num_labeled=num_labeled,
        seed=seed,
        label_subset=label_subset,
    )


def _training_files(data_dir):
    whole = os.path.join(data_dir, _WHOLE)
    found = [
        name
        for name in _BATCHES
        if tf.io.gfile.exists(os.path.join(data_dir, name))
    ]
    if tf.io.gfile.exists(whole) or not found:
        return [_existing(data_dir, _WHOLE)]
    return [_existing(data_dir, name) for name in _BATCHES]


def _existing(data_dir, name):
    path = os.path.join(data_dir, name)
    if not tf.io.gfile.exists(path):
        raise ValueError(
            f"{data_dir} holds CIFAR-10 binary files but no {name}; put it "
            f"there. A set needs {_TEST}, and {_WHOLE} or {_BATCHES[0]} to "
            f"{_BATCHES[-1]}."
        )
    return path


def _read(paths):
    """Reads the records of several files, one after another.

    Returns:
      [N, 32, 32, 3] uint8 and [N] int32.
    """
    counts = [_count_records(path) for path in paths]
    images = np.empty([sum(counts), _SIDE, _SIDE, 3], np.uint8)
    labels = np.empty([sum(counts)], np.int32)
    start = 0
    for path, count in zip(paths, counts, strict=True):
        part = slice(start, start + count)
        _read_file(path, images=images[part], labels=labels[part])
        start += count
    return images, labels


def _count_records(path):
    size = tf.io.gfile.stat(path).length
    if size == 0 or size % _RECORD:
        raise ValueError(
            f"{path} has {size} bytes, which is {size // _RECORD} records of "
            f"{_RECORD} bytes and {size % _RECORD} bytes more; a record is a "
            "label byte and 3 x 1,024 bytes of red, green and blue. The file "
            "is cut off or not a CIFAR-10 binary file; get it again."
        )
    return size // _RECORD


def _read_file(path, *, images, labels):
    """Fills `images` and `labels` from one file."""
    with tf.io.gfile.GFile(path, "rb") as file:
        for start in range(0, len(labels), _CHUNK):
            part = slice(start, min(start + _CHUNK, len(labels)))
            data = file.read((part.stop - start) * _RECORD)
            records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
            planes = records[:, 1:].reshape(-1, 3, _SIDE, _SIDE)
            images[part] = planes.transpose(0, 2, 3, 1)
            labels[part] = records[:, 0]
    wrong = np.flatnonzero(labels > 9)
    if len(wrong):
        raise ValueError(
            f"{path} has the label {labels[wrong[0]]} in record {wrong[0]} "
            f"(of {len(wrong)} such); labels are 0 to 9. The file is not a "
            "CIFAR-10 binary file, or broken; get it again."
        )


@SOURCES.register("cifar10")
class Cifar10(Source):
    """Binary files are preferred to a prepared set in the same folder."""

    def load(self, data_dir, num_labeled, seed, label_subset, image_size):
        settings = dict(
            data_dir=data_dir,
            num_labeled=num_labeled,
            seed=seed,
            label_subset=label_subset,
            image_size=image_size,
        )
        if is_here(data_dir):
            return load(**settings)
        return tfds.load("cifar10", **settings)
