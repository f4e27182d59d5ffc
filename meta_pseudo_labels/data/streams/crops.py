"""Batches of random crops, read from records in any order.

A record that cannot be read or decoded is replaced by the next one of the
source, deterministically, so a batch is always full; it is named and counted.
"""

import tensorflow as tf

from meta_pseudo_labels.data.images import photo_views
from meta_pseudo_labels.data.streams import keyed
from meta_pseudo_labels.data.streams.record_checks import decoder, error_namer

# Records that are tried, one after another, where the first ones are damaged.
_ATTEMPTS = 16


def crop_batches(records, spec, *, batch_size, seed, stream, labeled=True):
    """A function from a turn to a data set of one batch of random crops.

    Args:
      records: `Records`, at least one.
      spec: `DatasetSpec`, for the size and the range of labels.
      batch_size: crops in a whole batch, B.
      seed, stream: what order and crops are keyed by, see keyed.py.
      labeled: whether a record must have a label.

    Returns:
      A function from `shares.Turn` to a tf.data.Dataset of one dict, of the b
      rows whose turn it is: "image" [b, H, W, 3] uint8; "label" [b] int32;
      "number" [b] int64, the record that was wanted; "skipped" [b] int64, how
      many were tried in vain.
    """
    read = records.reader()
    first_or_error = error_namer(records)
    attempts = 1 if records.strict else min(_ATTEMPTS, len(records))

    def crop(number, position):
        key = keyed.key(seed, stream, keyed.CROP, position)
        decode = decoder(
            spec,
            lambda encoded: photo_views.decode_random_crop(
                encoded, image_size=spec.image_size, seed=key
            ),
            labeled=labeled,
        )

        def attempt(skipped):
            return read(
                (number + skipped) % len(records),
                lambda x: decode(x) | {"number": number, "skipped": skipped},
            )

        # A map goes on after an error; a flat_map would ask a file that cannot
        # be opened again and again, for ever.
        found = tf.data.Dataset.range(attempts).map(
            lambda skipped: attempt(skipped).get_single_element()
        )
        return first_or_error(found.ignore_errors(), number, attempts)

    def batch(turn):
        wanted = dict(batch_size=batch_size, rows=turn.rows(batch_size))
        numbers = keyed.examples(
            turn.step, total=len(records), seed=seed, stream=stream, **wanted
        )
        positions = keyed.positions(turn.step, **wanted)
        examples = tf.data.Dataset.from_tensor_slices((numbers, positions))
        return examples.map(
            crop, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        ).batch(turn.size(batch_size), drop_remainder=True)

    return batch


def with_rows(batch, key, rows):
    """Adds to crops the rows of a table that belong to the records shown.

    Args:
      batch: a function from a turn to a data set of one dict that has
        "number" and "skipped" of `crop_batches`.
      key: name of the rows in the dict.
      rows: [records, ...], one for each record.

    Returns:
      A function like `batch`.
    """
    with tf.device("CPU:0"):  # Captured: not a constant of the graph.
        table = tf.convert_to_tensor(rows)

    def add(crop):
        shown = (crop["number"] + crop["skipped"]) % len(rows)
        return crop | {key: tf.gather(table, shown)}

    return lambda turn: batch(turn).map(add)
