"""Training batches of anything held in arrays: text, tables, sounds.

    batches = data.two_view_dataset(
        labeled, labels, unlabeled, weak=None, strong=mask_words,
        batch_size=16, unlabeled_ratio=4, seed=0,
    )
    MetaPseudoLabels(student, teacher).compile(...).fit(batches, ...)

The order of the examples and the keys of their views come from engine.py, so
this stream too is a function of (seed, step) alone.
"""

import keras
import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.streams import engine, keyed
from meta_pseudo_labels.data.streams.array_rows import array_rows


def two_view_dataset(
    labeled,
    labels,
    unlabeled,
    *,
    strong,
    batch_size,
    unlabeled_ratio,
    seed,
    weak=None,
    start_step=0,
    indices=False,
):
    """The endless stream of training batches from inputs of any kind.

    A view is a function (inputs, seed) -> inputs of a whole batch that changes
    an example, but not its class. It must keep shape and type, and draw from
    `tf.random.stateless_*` with `seed`, [2] int64: then the same seed gives the
    same stream, and a stream from a later step is its tail.

    Args:
      labeled: [N, ...] array, or a nest of arrays (a dict, for instance), as
        the models expect. float64 becomes Keras's floatx, as in `fit`.
      labels: [N] integers, or [N, classes] probabilities.
      unlabeled: [M, ...], like `labeled`; None where unlabeled_ratio is 0.
      strong: the strong view; its input is what `weak` returned.
      batch_size: labeled examples in a batch, B >= 1.
      unlabeled_ratio: unlabeled examples per labeled one, mu >= 0; U = B * mu.
      seed: int, fixes all randomness of the stream.
      weak: the weak view, also of labeled examples; None leaves all unchanged.
      start_step: the step of the first batch, >= 0.
      indices: whether to add the indices of the unlabeled examples.

    Returns:
      tf.data.Dataset of dicts: "labeled" [B, ...]; "labels" [B] or
      [B, classes]; and unless mu is 0, "weak" and "strong" [U, ...], two views
      of the same unlabeled examples. With `indices` also "unlabeled_indices"
      [U] int64, from 0.

    Raises:
      ValueError: if a setting is out of range, there is nothing to train on,
        arrays differ in length, or a view changes shape or type.
    """
    keyed.check_stream(batch_size=batch_size, start_step=start_step)
    count = _count(labeled, name="labeled")
    if len(labels) != count:
        raise ValueError(
            f"There are {len(labels)} labels for {count} labeled examples; "
            "give one each."
        )
    if unlabeled_ratio < 0:
        raise ValueError(
            f"unlabeled_ratio is {unlabeled_ratio}; give an integer >= 0."
        )
    kind = engine.Views(weak=_view(weak), strong=_view(strong))
    arrays = {"inputs": labeled, "labels": labels}
    keys = dict(seed=seed, stream=keyed.LABELED, batch_size=batch_size)
    parts = [engine.labeled_part(_rows(arrays, count, keys), kind, **keys)]
    if unlabeled_ratio:
        count = _count(unlabeled, name="unlabeled")
        keys |= dict(
            stream=keyed.UNLABELED, batch_size=batch_size * unlabeled_ratio
        )
        arrays = {"inputs": unlabeled}
        if indices:
            arrays["unlabeled_indices"] = tf.range(count, dtype=tf.int64)
        read = _rows(arrays, count, keys)
        parts.append(engine.unlabeled_part(read, kind, **keys))
    dataset = engine.stream(parts, start_step=start_step)
    _check_views(dataset.element_spec)
    return dataset.prefetch(tf.data.AUTOTUNE)


def _rows(arrays, count, keys):
    arrays = tf.nest.map_structure(_tensor, arrays)
    return array_rows(arrays, count, **keys)


def _view(function):
    """A view as the engine calls it, of all rows; no change if None."""
    if function is None:
        return lambda inputs, seed, rows: inputs
    # The engine does not use AutoGraph; a `tf.function` does.
    function = tf.function(function)
    return lambda inputs, seed, rows: function(inputs, seed)


def _tensor(array):
    """Converts an array like Keras's `fit`: float64 becomes its floatx."""
    with tf.device("CPU:0"):
        tensor = tf.convert_to_tensor(array)
    if tensor.dtype == tf.float64:
        tensor = tf.cast(tensor, keras.config.floatx())
    return tensor


def _count(inputs, *, name):
    """How many examples each array of a nest holds; all must hold as many."""
    given = [] if inputs is None else tf.nest.flatten(inputs)
    if any(np.ndim(one) == 0 for one in given):
        raise ValueError(
            f"{name} is made of single numbers or texts, so lists in it are "
            "not rows; pass arrays, such as np.asarray(rows)."
        )
    counts = {len(array) for array in given}
    if counts in (set(), {0}):
        raise ValueError(f"{name} holds no example; give at least one.")
    if len(counts) > 1:
        raise ValueError(
            f"The arrays of {name} have {sorted(counts)} rows; give all of "
            "them the same number."
        )
    return counts.pop()


def _check_views(batch):
    """Refuses views that a network could not take in one batch.

    Args:
      batch: a nest of specs, as `two_view_dataset` makes it.
    """
    found = {
        name: tf.nest.map_structure(_of_one_example, batch[name])
        for name in ("labeled", "weak", "strong")
        if name in batch
    }
    if any(specs != found["labeled"] for specs in found.values()):
        raise ValueError(
            f"The views differ in shape or type: {found}. A view must keep "
            "both, and unlabeled inputs must be like labeled ones."
        )


def _of_one_example(spec):
    return f"{list(spec.shape[1:])} {spec.dtype.name}"
