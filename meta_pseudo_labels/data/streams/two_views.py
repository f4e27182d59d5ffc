"""Training batches of anything that is held in arrays: text, tables, sounds.

    batches = data.two_view_dataset(
        labeled, labels, unlabeled, weak=None, strong=mask_words,
        batch_size=16, unlabeled_ratio=4, seed=0,
    )
    MetaPseudoLabels(student, teacher).compile(...).fit(batches, ...)

The order of the examples and the keys of their views are those of pipeline.py,
so this stream too is a function of (seed, step) alone.
"""

import keras
import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.streams import keyed
from meta_pseudo_labels.data.streams.keyed import LABELED, UNLABELED


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
):
    """The endless stream of training batches from inputs of any kind.

    A view is a function (inputs, seed) -> inputs of a whole batch: what
    changes an example, but not its class. It keeps shape and type, and draws
    from `tf.random.stateless_*` with `seed`, [2] int64: then the same seed
    gives the same stream, and a stream from a later step is its tail.

    Args:
      labeled: [N, ...] array, or a nest of such (a dict, for instance), as the
        models take it. float64 becomes Keras's floatx, as in `fit`.
      labels: [N] integers, or [N, classes] probabilities.
      unlabeled: [M, ...], like `labeled`; None where unlabeled_ratio is 0.
      strong: the strong view; it is given what `weak` returned.
      batch_size: labeled examples in a batch, B >= 1.
      unlabeled_ratio: unlabeled examples per labeled one, mu >= 0; U = B * mu.
      seed: int, all randomness of the stream.
      weak: the weak view, of labeled examples too; None leaves all as they are.
      start_step: the step of the first batch, >= 0.

    Returns:
      tf.data.Dataset of dicts: "labeled" [B, ...]; "labels" [B] or
      [B, classes]; and unless mu is 0, "weak" and "strong" [U, ...], two views
      of the same unlabeled examples.

    Raises:
      ValueError: if a setting is out of range, there is nothing to learn from,
        arrays are not equally long, or a view changes shape or type.
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
    weak = _no_view if weak is None else tf.function(weak)
    strong = tf.function(strong)
    common = dict(seed=seed, weak=weak)
    labeled_batch = _weak_batches(
        (labeled, labels),
        count,
        batch_size=batch_size,
        stream=LABELED,
        **common,
    )
    if unlabeled_ratio:
        unlabeled_batch = _weak_batches(
            (unlabeled, ()),
            _count(unlabeled, name="unlabeled"),
            batch_size=batch_size * unlabeled_ratio,
            stream=UNLABELED,
            **common,
        )

    def batch(step):
        inputs, classes = labeled_batch(step)
        parts = {"labeled": inputs, "labels": classes}
        if unlabeled_ratio:
            parts["weak"], _ = unlabeled_batch(step)
            key = keyed.key(seed, UNLABELED, keyed.STRONG, step)
            parts["strong"] = strong(parts["weak"], key)
        return parts

    # Nothing here needs AutoGraph, which makes tracing several times slower;
    # the views are functions of TensorFlow's, which convert what is in them.
    batch = tf.autograph.experimental.do_not_convert(batch)
    dataset = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max).map(
        batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    _check_views(dataset.element_spec)
    return dataset.prefetch(tf.data.AUTOTUNE)


def _weak_batches(arrays, count, *, batch_size, seed, weak, stream):
    """A function from a step to weak views of inputs, and what is beside them.

    Args:
      arrays: a pair of nests of arrays, the inputs and what is beside them,
        `count` rows each.
    """
    with tf.device("CPU:0"):  # In host memory once, not in the graph.
        arrays = tf.nest.map_structure(_tensor, arrays)

    def batch(step):
        rows = keyed.examples(
            step, batch_size=batch_size, total=count, seed=seed, stream=stream
        )
        inputs, beside = tf.nest.map_structure(
            lambda array: tf.gather(array, rows), arrays
        )
        return weak(inputs, keyed.key(seed, stream, keyed.WEAK, step)), beside

    return batch


def _tensor(array):
    """As Keras's `fit` takes arrays: NumPy's float64 becomes its floatx."""
    tensor = tf.convert_to_tensor(array)
    if tensor.dtype == tf.float64:
        tensor = tf.cast(tensor, keras.config.floatx())
    return tensor


def _no_view(inputs, seed):
    del seed
    return inputs


def _count(inputs, *, name):
    """How many examples the arrays of a nest hold, all of them as many."""
    given = [] if inputs is None else tf.nest.flatten(inputs)
    counts = {len(array) for array in given}
    if counts in (set(), {0}):
        raise ValueError(f"{name} holds no example; give at least one.")
    if len(counts) > 1:
        raise ValueError(
            f"The arrays of {name} have {sorted(counts)} rows; give equally "
            "many."
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
            "both, and unlabeled inputs be like labeled ones."
        )


def _of_one_example(spec):
    return f"{list(spec.shape[1:])} {spec.dtype.name}"
