"""Records in files once, in order, not augmented: to evaluate or inspect."""

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.images import views
from meta_pseudo_labels.data.streams.record_checks import (
    center_decoder,
    error_namer,
    in_turn,
    skip_reporter,
)

DAMAGED = np.iinfo(np.int32).min  # The label of an unusable record.


def evaluation_dataset(records, *, spec, batch_size, skip_counter=None):
    """All records once, in order: center crops, normalized.

    Damaged records are left out, logged and counted; if the records are
    `strict`, the first damaged one is an error.

    Args:
      records: `Records`.
      spec: `DatasetSpec`.
      batch_size: images per batch; the last batch may be smaller.
      skip_counter: [] int64 variable that counts damaged records each time one
        is met; or None.

    Returns:
      tf.data.Dataset of ([b, H, W, 3] float32, [b] int32).
    """

    report = skip_reporter(records, skip_counter) if len(records) else None

    def good(numbers, batch):
        kept = batch["label"] != DAMAGED
        with tf.control_dependencies(
            [report(numbers, tf.cast(~kept, tf.int64))] if report else []
        ):
            images = tf.boolean_mask(batch["image"], kept)
        return (
            views.normalize(images, mean=spec.mean, std=spec.std),
            tf.boolean_mask(batch["label"], kept),
        )

    examples = ordered_examples(records, spec).enumerate()
    return (
        examples.batch(batch_size)
        .map(tf.autograph.experimental.do_not_convert(good))
        .prefetch(tf.data.AUTOTUNE)
    )


def ordered_examples(records, spec, *, labeled=True):
    """All records once, in order: {"image", "label"}, center crops, uint8.

    A damaged record becomes a blank image with the label `DAMAGED`, or an error
    if the records are `strict`.

    Args:
      records: `Records`.
      spec: `DatasetSpec`.
      labeled: whether a record must have a label.
    """
    read, first_or_error = records.reader(), error_namer(records)
    decoders = [
        center_decoder(spec, labeled=labeled, plain=plain)
        for plain in (True, False)
    ]

    def example(number):
        found = [read(number, decode) for decode in decoders]
        if records.strict:
            return first_or_error(in_turn(*found), number)
        return read_or_mark(*found)

    return tf.data.Dataset.range(len(records)).map(
        tf.autograph.experimental.do_not_convert(example),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def read_or_mark(*found):
    """The element of the first data set that has one; else a blank `DAMAGED`.

    Args:
      *found: see `in_turn`.
    """
    blank = tf.nest.map_structure(
        lambda spec: tf.zeros(spec.shape, spec.dtype), found[0].element_spec
    )
    blank["label"] += DAMAGED
    # Marked, not dropped at once: Keras needs to know the number of batches.
    one = in_turn(*found, log_warning=True)
    one = one.concatenate(tf.data.Dataset.from_tensors(blank)).take(1)
    return one.get_single_element()
