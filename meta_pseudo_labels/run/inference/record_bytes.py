"""Encoded images from record files: which files, and the bytes of any image."""

import functools
import os

import tensorflow as tf

from meta_pseudo_labels.data.images.headers import ImageError
from meta_pseudo_labels.data.sources import tfds as tfds_source
from meta_pseudo_labels.data.sources import tfds_any
from meta_pseudo_labels.data.streams.record_checks import check_records, once
from meta_pseudo_labels.data.streams.records import check_present, index_records


def release_records(paths, folder):
    """Records of tf.train.Example with `image/encoded`, like the release's.

    Args:
      paths: the TFRecord files.
      folder: left out of the names of files below it.

    Returns:
      `Records`, and the names of their files.

    Raises:
      ValueError: if there are none, or a file is not a whole TFRecord file.
    """
    if not paths:
        raise ValueError(
            f"{folder} holds no files of records; put TFRecord files there."
        )
    if (tf.io.gfile if "://" in folder else os.path).isdir(folder):
        start = os.path.join(folder, "")
        names = [path.removeprefix(start) for path in paths]
    else:
        names = [os.path.basename(path) for path in paths]
        if len(set(names)) < len(names):  # They are in several folders.
            shared = os.path.commonprefix(paths).rpartition("/")[0]
            names = [path[len(shared) + 1 :] for path in paths]
    return index_records(paths, _parse_encoded), names


def _parse_encoded(record):
    features = tf.io.parse_single_example(
        record, {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
    )
    return {"image": features["image/encoded"], "label": tf.constant(0)}


def tfds_records(name, split, *, data_dir):
    """The records of a split of a prepared TFDS set; images stay encoded.

    Args:
      name: of the set, with its configuration if it has several.
      split: a whole one, such as "test".
      data_dir: folder of prepared sets; None for TFDS's default.

    Raises:
      ValueError: if it is not prepared, has no such split, has files other
        than TFRecords, or does not have exactly one image feature.
    """
    import tensorflow_datasets as tfds  # Slow, and needed only here.

    with tfds_source.hushed():
        builder = tfds_source.prepared_builder(name, data_dir)
    splits, features = builder.info.splits, builder.info.features
    if split not in splits:
        raise ValueError(
            f"{name} has no split {split!r} but {', '.join(splits) or 'none'}."
        )
    info = splits[split]
    if "tfrecord" not in info.filename_template.filetype_suffix:
        raise ValueError(
            f"{name} is prepared as "
            f"{info.filename_template.filetype_suffix}; only TFRecord files "
            "can be read. Prepare it in that format."
        )
    folder = str(builder.data_dir)
    check_present(folder, info.filenames, present=tf.io.gfile.listdir(folder))
    image = tfds_any.image_feature(builder, name)
    decoders = {image: tfds.decode.SkipDecoding()}

    def parse(record):
        example = features.deserialize_example(record, decoders=decoders)
        return {"image": example[image], "label": tf.constant(0)}

    paths = [str(path) for path in info.filepaths]
    return index_records(paths, parse, lengths=info.shard_lengths)


def record_bytes(records, spec):
    """A function that reads the images of some records, still encoded.

    Args:
      records: `Records`.
      spec: `DatasetSpec`, for messages about damaged ones.

    Returns:
      A function from numbers, [n] int64, to a list of functions, each of which
      returns bytes, or raises `ImageError` if the record is damaged.
    """
    read = records.reader()
    empty = tf.data.Dataset.from_tensors(tf.constant(b""))

    def one(number):
        found = once(read(number, lambda record: record["image"]))
        found = found.ignore_errors().concatenate(empty).take(1)
        return found.get_single_element()

    def load(numbers):
        dataset = tf.data.Dataset.from_tensor_slices(numbers).map(
            tf.autograph.experimental.do_not_convert(one),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        found = list(dataset.as_numpy_iterator())
        damaged = [
            n for n, image in zip(numbers, found, strict=True) if not image
        ]
        reasons = _reasons(records, spec, damaged)
        return [
            functools.partial(_bytes_or_error, image, reasons.get(number))
            for number, image in zip(numbers, found, strict=True)
        ]

    return load


def _reasons(records, spec, numbers):
    """Why these records cannot be read, a dict by number."""
    if not numbers:
        return {}
    lines = check_records(records, spec, numbers, labeled=False)
    return {
        number: line.removeprefix(f"{records.name(number)}: ")
        for number, line in zip(numbers, lines, strict=True)
    }


def _bytes_or_error(image, reason):
    if reason is not None:
        raise ImageError(reason)
    return image
