"""The parts of a training batch, from arrays in memory.

Each function here returns another one, from a turn (`shares.Turn`: a step, and
whose rows of it) to a dict of tensors, which is a function of the seed and the
turn alone; see pipeline.py for what that is good for.
"""

import tensorflow as tf

from meta_pseudo_labels.data.images import views
from meta_pseudo_labels.data.streams import keyed
from meta_pseudo_labels.data.streams.keyed import UNLABELED


def labeled_batches(
    data,
    *,
    batch_size,
    seed,
    stream,
    part="labeled",
    strong_view=None,
    distributions=None,
):
    """A function from a turn to {"labeled", "labels"} and distributions.

    Of another part of the data, "feedback", the keys begin with its name.
    """
    images, labels = _hold(
        getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
    )
    label_key = "labels" if part == "labeled" else f"{part}_labels"
    extra = _extra("labeled_distributions", distributions)
    weak_images = _weak_images(images, data.spec, batch_size, seed, stream)

    def batch(turn):
        examples, view = weak_images(turn)
        if strong_view:
            key = keyed.key(seed, stream, keyed.STRONG, turn.step)
            view = strong_view(view, key, turn.rows(batch_size))
        return {
            part: _normalize(view, data.spec),
            label_key: tf.cast(tf.gather(labels, examples), tf.int32),
            **extra(examples),
        }

    return batch


def unlabeled_batches(
    data, *, batch_size, strong_view, seed, distributions=None
):
    """A function from a turn to {"weak", "strong"} and distributions."""
    (images,) = _hold(data.unlabeled_images)
    extra = _extra("unlabeled_distributions", distributions)
    weak_images = _weak_images(images, data.spec, batch_size, seed, UNLABELED)

    def batch(turn):
        examples, weak = weak_images(turn)
        key = keyed.key(seed, UNLABELED, keyed.STRONG, turn.step)
        strong = strong_view(weak, key, turn.rows(batch_size))
        return {
            "weak": _normalize(weak, data.spec),
            "strong": _normalize(strong, data.spec),
            **extra(examples),
        }

    return batch


def _weak_images(images, spec, batch_size, seed, stream):
    """A function from a turn to its examples, [b], and their weak views."""
    weak_view = views.weak_view(spec)

    def batch(turn):
        rows = turn.rows(batch_size)
        examples = keyed.examples(
            turn.step,
            batch_size=batch_size,
            total=len(images),
            seed=seed,
            stream=stream,
            rows=rows,
        )
        key = keyed.key(seed, stream, keyed.WEAK, turn.step)
        return examples, weak_view(tf.gather(images, examples), key, rows)

    return batch


def _extra(key, rows):
    """A function from examples, [b], to {key: their rows}; {} without rows."""
    if rows is None:
        return lambda examples: {}
    (rows,) = _hold(rows)
    return lambda examples: {key: tf.gather(rows, examples)}


def _hold(*arrays):
    """Puts arrays in host memory once; mapped functions capture the tensors.

    A captured tensor is not a constant of the graph, which is limited to 2 GB.
    """
    with tf.device("CPU:0"):
        return [tf.convert_to_tensor(array) for array in arrays]


def _normalize(images, spec):
    return views.normalize(images, mean=spec.mean, std=spec.std)
