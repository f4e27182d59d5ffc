"""Unusable records: how they are noticed, reported and counted.

In the graph, where little can be said about one (`decoder`, `error_namer`,
`skip_reporter`), and in Python (`check_records`, `explain_input_error`).
"""

import re
import sys

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.images import photo_views

# The graph's message if all tried records are unusable, and how to parse it.
_IN_A_ROW = " record(s) in a row cannot be used, from number "
_OF_ITS_SPLIT = " of its split on, in "
_ERROR = re.compile(
    rf"(\d+){re.escape(_IN_A_ROW)}(\d+){re.escape(_OF_ITS_SPLIT)}(.*?)\]?$",
    re.MULTILINE,
)


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
            [tf.Assert(in_range, ["label out of range (from 0):", label])]
            if labeled
            else []
        ):
            image = decode(tf.identity(record["image"]))
        return {"image": image, "label": label}

    return apply


def error_namer(records):
    """A function that returns what was read, or fails with the record's name.

    Args:
      records: `Records`.

    Returns:
      A function of a data set, the number of its record, [] int64, and how many
      records were tried from there on. It returns the first element. Its error
      is one that `explain_input_error` recognizes.
    """
    path_of = _path_finder(records)

    def first_or_error(found, number, attempts=1):
        def fail(number):
            words = (
                tf.as_string(attempts),
                _IN_A_ROW,
                tf.as_string(number),
                _OF_ITS_SPLIT,
                path_of(number),
            )
            never = tf.Assert(number < 0, [tf.strings.join(words)])
            with tf.control_dependencies([never] if never is not None else []):
                return tf.nest.map_structure(
                    lambda spec: tf.zeros(spec.shape, spec.dtype),
                    found.element_spec,
                )

        failure = tf.data.Dataset.from_tensors(number).map(fail)
        # Nothing is read beyond the first element.
        return found.concatenate(failure).take(1).get_single_element()

    return first_or_error


def explain_input_error(error, data):
    """What an error of an input pipeline means, for the user.

    Args:
      error: tf.errors.OpError.
      data: `ShardedData` or `ImageData` that was read.

    Returns:
      A line of text; None if the error was not made by `error_namer`.
    """
    match = _ERROR.search(error.message)
    if match is None:
        return None
    attempts, number, path = int(match[1]), int(match[2]), match[3]
    reason = _reason_again(data, number, path)
    if attempts > 1:
        return (
            f"{attempts} records in a row cannot be used. The first is "
            f"{reason}. Copy the files again."
        )
    return (
        f"{reason}. Copy the file again, or go on without strict reading: "
        "then such records are skipped."
    )


def _reason_again(data, number, path):
    """Which record it was and why it failed, found by reading it again."""
    for part, labeled in (
        ("labeled", True),
        ("unlabeled", False),
        ("test", True),
    ):
        records = getattr(data, f"{part}_images")
        paths = getattr(records, "paths", ())
        if path in paths and number < len(records):
            if paths[records.shards[number]] == path:
                damaged = check_records(
                    records, data.spec, [number], labeled=labeled
                )
                if damaged:
                    return damaged[0]
    return f"number {number} of its split, in {path}"


def _path_finder(records):
    """A TensorFlow function from a record's number to its file."""
    with tf.device("CPU:0"):  # Captured, so not constants of the graph.
        paths, shards = tf.constant(records.paths), tf.constant(records.shards)
    return lambda number: tf.gather(paths, tf.gather(shards, number))


def skip_reporter(records, counter=None):
    """A function that logs and counts what a batch skipped.

    Args:
      records: `Records` from which the batch comes.
      counter: [] int64 variable to add to, or None.

    Returns:
      A function of "number" and "skipped" of `record_rows`, which returns the
      operation.
    """
    path_of = _path_finder(records)

    def say(number, skipped):
        first = number[tf.argmax(skipped)]
        operations = [
            tf.print(
                "Skipped",
                tf.reduce_sum(skipped),
                "damaged record(s), the first of them number",
                first,
                "of its split, in",
                path_of(first),
                output_stream=sys.stderr,
            )
        ]
        if counter is not None:
            operations.append(counter.assign_add(tf.reduce_sum(skipped)))
        return tf.group(*operations)

    return lambda number, skipped: tf.cond(
        tf.reduce_any(skipped > 0), lambda: say(number, skipped), tf.no_op
    )


def once(found):
    """A data set of one element that fails only once if reading it fails.

    It is read within a map, which continues after an error: otherwise a file
    that cannot be opened would be tried again, and fail again, forever.
    """
    return tf.data.Dataset.range(1).map(lambda _: found.get_single_element())


def in_turn(*found, log_warning=False):
    """The element of the first of some data sets that has one; empty if none.

    Data sets that are not reached are not prepared either.

    Args:
      *found: data sets of one element, which may fail.
      log_warning: whether TensorFlow logs why the last one failed.
    """
    *others, last = map(once, found)
    found = last.ignore_errors(log_warning=log_warning)
    for one in reversed(others):
        found = one.ignore_errors().concatenate(found)
    return found.take(1)


def check_records(records, spec, numbers, *, labeled=True):
    """Reads and decodes some records.

    Args:
      records: `Records`.
      spec: `DatasetSpec`, for the range of labels.
      numbers: which records, ints.
      labeled: whether they must have a label.

    Returns:
      A list of strings, "record 3 of /data/train-00000-of-00004: why not", one
      for each damaged record.
    """
    read = records.reader()
    decode = center_decoder(spec, labeled=labeled)

    def is_sound(number):
        found = once(read(number, decode))
        sound = found.map(lambda _: True).ignore_errors()
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


def center_decoder(spec, *, labeled=True, plain=False):
    """The `decoder` of test images; for `plain`, see `decode_random_crop`."""
    return decoder(
        spec,
        lambda encoded: photo_views.decode_center_crop(
            encoded, image_size=spec.image_size, plain=plain
        ),
        labeled=labeled,
    )


def _reason(number, read, decode):
    """TensorFlow's one-line reason why it cannot read a record."""
    dataset = tf.data.Dataset.from_tensors(number)
    try:
        next(iter(dataset.flat_map(lambda i: read(i, decode))))
    except tf.errors.OpError as error:
        # Without the names of operations and iterators around the reason.
        text = re.sub(r"\{\{.*?\}\} ", "", error.message.split("\n")[0])
        text = re.sub(r"Error in user-defined .* Iterator::\S* ", "", text)
        return text.split(" [Op:")[0]
    return "it could not be read"
