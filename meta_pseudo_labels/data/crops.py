"""Batches of random crops, read from records in any order.

A record that cannot be read or decoded is replaced by the next one of the
source, deterministically, so a batch is always full; it is named and counted.
"""

import re
import sys

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data import imagenet_views, keyed

# Records that are tried, one after another, where the first ones are damaged.
_ATTEMPTS = 16


def crop_batches(records, spec, *, batch_size, seed, stream, labeled=True):
    """A function from a step to a data set of one batch of random crops.

    Args:
      records: `Records`, at least one.
      spec: `DatasetSpec`, for the size and the range of labels.
      batch_size: crops in a batch, B.
      seed, stream: what order and crops are keyed by, see keyed.py.
      labeled: whether a record must have a label.

    Returns:
      A function from [] int64 to a tf.data.Dataset of one dict: "image"
      [B, H, W, 3] uint8; "label" [B] int32; "number" [B] int64, the record
      that was wanted; "skipped" [B] int64, how many were tried in vain.
    """
    read = records.reader()
    attempts = 1 if records.strict else min(_ATTEMPTS, len(records))

    def crop(number, position):
        key = keyed.key(seed, stream, keyed.CROP, position)
        decode = decoder(
            spec,
            lambda encoded: imagenet_views.decode_random_crop(
                encoded, image_size=spec.image_size, seed=key
            ),
            labeled=labeled,
        )

        def attempt(skipped):
            return read(
                (number + skipped) % len(records),
                lambda x: decode(x) | {"number": number, "skipped": skipped},
            )

        found = tf.data.Dataset.range(attempts).flat_map(attempt)
        if not records.strict:
            found = found.ignore_errors()
        return found.take(1).get_single_element()  # The others are not read.

    def batch(step):
        numbers = keyed.examples(
            step,
            batch_size=batch_size,
            total=len(records),
            seed=seed,
            stream=stream,
        )
        positions = step * batch_size + tf.range(batch_size, dtype=tf.int64)
        examples = tf.data.Dataset.from_tensor_slices((numbers, positions))
        return examples.map(
            crop, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        ).batch(batch_size, drop_remainder=True)

    return batch


def decoder(spec, decode, *, labeled=True):
    """A function from a parsed record to {"image", "label"}, both checked.

    Args:
      spec: `DatasetSpec`.
      decode: a function from an encoded image to a view, [H, W, 3] uint8.
      labeled: whether the record must have a label.
    """

    def apply(record):
        label = record["label"]
        in_range = (label >= 0) & (label < spec.num_classes)
        with tf.control_dependencies(
            [tf.Assert(in_range, ["label out of range; from 0 it is", label])]
            if labeled
            else []
        ):
            image = decode(tf.identity(record["image"]))
        return {"image": image, "label": label}

    return apply


def skip_reporter(records, counter=None):
    """A function that names and counts what a batch skipped.

    Args:
      records: `Records` that the batch comes from.
      counter: [] int64 variable to add to, or None.

    Returns:
      A function of "number" and "skipped" of `crop_batches`; the operation.
    """
    with tf.device("CPU:0"):  # Captured: not constants of the graph.
        paths, shards = tf.constant(records.paths), tf.constant(records.shards)

    def say(number, skipped):
        first = number[tf.argmax(skipped)]
        operations = [
            tf.print(
                "Skipped",
                tf.reduce_sum(skipped),
                "damaged record(s), the first of them number",
                first,
                "of its split, in",
                tf.gather(paths, tf.gather(shards, first)),
                output_stream=sys.stderr,
            )
        ]
        if counter is not None:
            operations.append(counter.assign_add(tf.reduce_sum(skipped)))
        return tf.group(*operations)

    return lambda number, skipped: tf.cond(
        tf.reduce_any(skipped > 0), lambda: say(number, skipped), tf.no_op
    )


def check_records(records, spec, numbers, *, labeled=True):
    """Reads and decodes some records.

    Args:
      records: `Records`.
      spec: `DatasetSpec`, for the range of labels.
      numbers: which records, ints.
      labeled: whether they must have a label.

    Returns:
      A list of strings, "record 3 of /data/train-00000-of-00004: why not",
      one for each that is damaged.
    """
    read = records.reader()
    decode = center_decoder(spec, labeled=labeled)

    def is_sound(number):
        sound = read(number, decode).map(lambda _: True).ignore_errors()
        otherwise = tf.data.Dataset.from_tensors(False)
        return sound.concatenate(otherwise).take(1).get_single_element()

    numbers = np.asarray(numbers, np.int64)
    answers = tf.data.Dataset.from_tensor_slices(numbers).map(
        tf.autograph.experimental.do_not_convert(is_sound),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    answers = np.array(list(answers.as_numpy_iterator()), bool)
    return [
        f"{records.name(number)}: {_reason(number, read, decode)}"
        for number in numbers[~answers]
    ]


def center_decoder(spec, *, labeled=True):
    """The `decoder` of test images."""
    return decoder(
        spec,
        lambda encoded: imagenet_views.decode_center_crop(
            encoded, image_size=spec.image_size
        ),
        labeled=labeled,
    )


def _reason(number, read, decode):
    """What TensorFlow says of a record that it cannot read, one line."""
    dataset = tf.data.Dataset.from_tensors(number)
    try:
        next(iter(dataset.flat_map(lambda i: read(i, decode))))
    except tf.errors.OpError as error:
        # Without the names of operations and iterators around it.
        text = re.sub(r"\{\{.*?\}\} ", "", error.message.split("\n")[0])
        text = re.sub(r"Error in user-defined .* Iterator::\S* ", "", text)
        return text.split(" [Op:")[0]
    return "it could not be read"
