"""The first images of a data set of records, as a small set in memory."""

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.image_data import ImageData
from meta_pseudo_labels.data.streams import ordered
from meta_pseudo_labels.data.streams.record_checks import (
    center_decoder,
    check_records,
)


def sample(data, *, count):
    """The first images of each part, center crops as in evaluation.

    Args:
      data: `ShardedData`.
      count: how many images of each part, at most.

    Returns:
      `ImageData`; its `skipped` names the records that cannot be used.

    Raises:
      ValueError: if none of the first labeled records can be used.
    """
    labeled, labels = _first(data.labeled_images, data.spec, count)
    unlabeled, _ = _first(
        data.unlabeled_images, data.spec, count, labeled=False
    )
    test, test_labels = _first(data.test_images, data.spec, count)
    return ImageData(
        spec=data.spec,
        labeled_images=labeled,
        labeled_labels=labels,
        unlabeled_images=unlabeled,
        test_images=test,
        test_labels=test_labels,
        labeled_indices=data.labeled_indices[: len(labeled)],
        skipped=tuple(
            name
            for records, has_labels in (
                (data.labeled_images, True),
                (data.unlabeled_images, False),
                (data.test_images, True),
            )
            if len(records)
            for name in check_records(
                records,
                data.spec,
                np.arange(min(count, len(records))),
                labeled=has_labels,
            )
        ),
    )


def _first(records, spec, count, *, labeled=True):
    """[n, size, size, 3] uint8 and [n] int32, without the damaged ones."""
    size, count = spec.image_size, min(count, len(records))
    if not count:
        return np.zeros([0, size, size, 3], np.uint8), np.zeros([0], np.int32)
    read, decode = records.reader(), center_decoder(spec, labeled=labeled)
    dataset = tf.data.Dataset.range(count).map(
        tf.autograph.experimental.do_not_convert(
            lambda number: ordered.read_or_mark(read(number, decode))
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    batch = next(iter(dataset.batch(count)))
    good = batch["label"] != ordered.DAMAGED
    images = tf.boolean_mask(batch["image"], good).numpy()
    labels = tf.boolean_mask(batch["label"], good).numpy()
    return images, labels.astype(np.int32)
