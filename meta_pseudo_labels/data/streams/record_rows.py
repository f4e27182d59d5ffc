"""Rows of records in files, as random crops, in the keyed order.

A record that cannot be read or decoded is logged, counted, and replaced by the
next one of the source, deterministically, so a batch is always full.
"""

import tensorflow as tf

from meta_pseudo_labels.data.images import photo_views
from meta_pseudo_labels.data.streams import keyed
from meta_pseudo_labels.data.streams.record_checks import (
    decoder,
    error_namer,
    skip_reporter,
)

# Records that are tried, one after another, if the first ones are damaged.
_ATTEMPTS = 16
_REPORTED = ("number", "skipped")


def record_rows(records, spec, *, batch_size, seed, stream, name, beside=None):
    """A function from a turn to random crops of the records for that turn.

    Args:
      records: `Records`, at least one.
      spec: `DatasetSpec`, for the size and the range of labels.
      batch_size: crops in a whole batch, B.
      seed, stream: keys of the order and the crops, see keyed.py.
      name: of the part, "labeled" or "unlabeled"; the records of the former
        must have labels.
      beside: a dict of arrays, [records, ...]; the rows for the shown records
        are added to the result. None for none.

    Returns:
      A function from `shares.Turn` to a dict of its b rows: "inputs"
      [b, H, W, 3] uint8; "labels" [b] int32 for labeled ones; with `beside`
      its rows for the shown records; and for `reported`, [b] int64 each, the
      requested records and how many were tried in vain.
    """
    labeled = name == "labeled"
    crop = _cropper(records, spec, seed=seed, stream=stream, labeled=labeled)
    with tf.device("CPU:0"):  # Captured, so not constants of the graph.
        beside = {
            key: tf.convert_to_tensor(array)
            for key, array in (beside or {}).items()
        }

    def read(turn):
        wanted = dict(batch_size=batch_size, rows=turn.rows(batch_size))
        numbers = keyed.examples(
            turn.step, total=len(records), seed=seed, stream=stream, **wanted
        )
        positions = keyed.positions(turn.step, **wanted)
        crops = (
            tf.data.Dataset.from_tensor_slices((numbers, positions))
            .map(crop, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .batch(turn.size(batch_size), drop_remainder=True)
            .with_options(_untuned())
            .get_single_element()
        )
        rows = {"inputs": crops["image"]}
        rows |= {f"{name}_{key}": crops[key] for key in _REPORTED}
        if labeled:
            rows["labels"] = crops["label"]
        shown = (crops["number"] + crops["skipped"]) % len(records)
        return rows | {
            key: tf.gather(array, shown) for key, array in beside.items()
        }

    return read


def _untuned():
    """Options of a data set that lives for one batch.

    With autotuning it would start with one thread and end before it gets a
    second one.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def reported(batches, sources, counter):
    """Logs and counts, on this machine, what `record_rows` skipped.

    Args:
      batches: tf.data.Dataset of dicts of whole batches.
      sources: the `Records` of each part, by its name.
      counter: [] int64 variable to add to, or None.

    Returns:
      The data set without the numbers that only this needs.
    """
    reporters = {
        name: skip_reporter(records, counter)
        for name, records in sources.items()
    }

    @tf.autograph.experimental.do_not_convert
    def report(batch):
        reports = [
            reporter(*(batch.pop(f"{name}_{key}") for key in _REPORTED))
            for name, reporter in reporters.items()
        ]
        with tf.control_dependencies(reports):
            return tf.nest.map_structure(tf.identity, batch)

    return batches.map(report)


def _cropper(records, spec, *, seed, stream, labeled):
    """A function from a record's number and a position to a dict of one crop.

    Both are [] int64. The dict has "image" [H, W, 3] uint8, "label" [] int32,
    and "number" and "skipped", [] int64.
    """
    read = records.reader()
    first_or_error = error_namer(records)
    attempts = 1 if records.strict else min(_ATTEMPTS, len(records))

    def crop(number, position):
        key = keyed.key(seed, stream, keyed.CROP, position)

        def tried(attempts, *, plain):
            decode = decoder(
                spec,
                lambda encoded: photo_views.decode_random_crop(
                    encoded, image_size=spec.image_size, seed=key, plain=plain
                ),
                labeled=labeled,
            )

            def attempt(skipped):
                one = read(
                    (number + skipped) % len(records),
                    lambda x: (
                        decode(x) | {"number": number, "skipped": skipped}
                    ),
                )
                return one.get_single_element()

            # A map continues after an error; a flat_map would try a file that
            # cannot be opened again and again, forever.
            return tf.data.Dataset.range(attempts).map(attempt).ignore_errors()

        found = tried(1, plain=True).concatenate(tried(attempts, plain=False))
        return first_or_error(found, number, attempts)

    return crop
