"""Records in files once, in order, as they are: to evaluate, to look at."""

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.images import views
from meta_pseudo_labels.data.streams.record_checks import (
    center_decoder,
    error_namer,
    once,
    skip_reporter,
)

DAMAGED = np.iinfo(np.int32).min  # The label of a record of no use.


def evaluation_dataset(records, *, spec, batch_size, skip_counter=None):
    """All records once, in order: centre crops, normalised.

    Damaged records are left out, named and counted; where the records are
    `strict` it stops there.

    Args:
      records: `Records`.
      spec: `DatasetSpec`.
      batch_size: images per batch; the last batch may be smaller.
      skip_counter: [] int64 variable, to which each damaged record is added
        whenever it is met; or None.

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
    """All records once, in order: {"image", "label"}, centre crops, uint8.

    A damaged record is a blank image with the label `DAMAGED`, or an error
    where the records are `strict`.

    Args:
      records: `Records`.
      spec: `DatasetSpec`.
      labeled: whether a record must have a label.
    """
    read, decode = records.reader(), center_decoder(spec, labeled=labeled)
    first_or_error = error_namer(records)

    def example(number):
        found = read(number, decode)
        if records.strict:
            return first_or_error(once(found).ignore_errors(), number)
        return read_or_mark(found)

    return tf.data.Dataset.range(len(records)).map(
        tf.autograph.experimental.do_not_convert(example),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def read_or_mark(found):
    """The one element of a data set; a blank without label where it fails."""
    blank = tf.nest.map_structure(
        lambda spec: tf.zeros(spec.shape, spec.dtype), found.element_spec
    )
    blank["label"] += DAMAGED
    # Marked, not dropped at once: Keras wants to know how many batches there
    # are.
    one = once(found).ignore_errors(log_warning=True)
    one = one.concatenate(tf.data.Dataset.from_tensors(blank)).take(1)
    return one.get_single_element()
