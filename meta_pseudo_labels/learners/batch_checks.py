"""What learners refuse of the batches and arrays that they are given."""

import functools

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from meta_pseudo_labels.learners.losses import WEIGHT_KEYS
from meta_pseudo_labels.utils import compat
from meta_pseudo_labels.utils.registry import nearest

_LOOKED_AT = 64  # Images of an array.
# Keys that `data.training_dataset` makes for one method or another.
_KEYS = (
    *("labeled", "labels", "weak", "strong", "feedback", "feedback_labels"),
    *("labeled_distributions", "unlabeled_distributions"),
)
_LABELED = {"labeled", "labels"}  # In every batch to train on.
_NORMALIZED = 30  # Deviations; more than normalized images have.


def check_lengths(arrays):
    """Refuses a dict of arrays to train on that have different lengths."""
    shapes = {key: getattr(x, "shape", None) for key, x in arrays.items()}
    lengths = {key: shape[0] for key, shape in shapes.items() if shape}
    if len(set(lengths.values())) > 1:
        got = ", ".join(f"{n} of {key}" for key, n in lengths.items())
        raise ValueError(
            "fit cannot make batches of arrays of different lengths; got "
            f"{got}. data.training_dataset makes them of data.from_arrays, and "
            "data.two_view_dataset of inputs of any kind."
        )


def batch_of(data):
    """The batch in what Keras feeds to a step: that alone, or in a tuple."""
    if not isinstance(data, tuple):
        return data
    batch, *others = (  # None that comes from a generator.
        None if isinstance(x, tf.experimental.Optional) else x for x in data
    )
    check_only_batch(**dict(zip(("y", "sample_weight"), others, strict=False)))
    return batch


def check_only_batch(**others):
    """Refuses what Keras takes beside a batch and learners want in it.

    Raises:
      ValueError: if any of the values is not None.
    """
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise ValueError(
            f"Learners train on dicts, without {' and '.join(given)} beside "
            "them: put the labels into each under the key labels, and weights "
            "under sample_weight. class_weight is an argument of fit."
        )


def check_batch(batch, *, needed, learner, networks):
    """Refuses a batch that lacks what a step needs; logs a mistyped key.

    Args:
      batch: see `Learner`.
      needed: keys that the step reads.
      learner: the name of its class.
      networks: those that see its images.

    Raises:
      ValueError: for a batch without some of these keys, for images that
        `check_normalized` refuses, and for images to judge the student on
        that have no labels.
    """
    keys = set(batch) if isinstance(batch, dict) else set()
    if not keys.issuperset(needed):
        found = sorted(keys) if keys else type(batch).__name__
        raise ValueError(
            f"{learner} trains on a tf.data.Dataset of dicts with the keys "
            f"{', '.join(needed)}; got {found}. See data.training_dataset."
        )
    known = {*_KEYS, *WEIGHT_KEYS, *needed}
    for key in keys - known:
        _tell_of_unread(learner, key, nearest(key, known))
    for key in keys & {"labeled", "weak", "strong", "feedback"}:
        for network in networks:
            check_normalized(batch[key], network, key=key)
    if "feedback" in keys and "feedback_labels" not in keys:
        raise ValueError(
            "The batch has images to judge the student on under the key "
            "feedback, but no labels for them; add feedback_labels."
        )


@functools.cache
def _tell_of_unread(learner, key, hint):
    """Logs a key that nobody reads, once, if it looks like a typo."""
    if hint:
        logging.warning("%s does not read the key %r%s", learner, key, hint)


def check_normalized(inputs, model, *, key=None):
    """Refuses uint8 images, which have not been normalized yet.

    They are allowed if the model accepts uint8, or begins by rescaling levels.
    Only images are looked at, [batch, height, width, channels]: text and
    numbers may be bytes.

    Args:
      inputs: of the model, a nest of tensors.
      model: the one they are for.
      key: their key in a batch, for the message.

    Raises:
      ValueError: see above.
    """
    levels = any(
        x.dtype == "uint8" and tf.TensorShape(x.shape).rank in (4, None)
        for x in tf.nest.flatten(inputs)
    )
    if levels and not _brings_to_a_range(model):
        raise ValueError(
            f"Got uint8 images{f' under the key {key}' if key else ''}, but "
            "learners need normalized ones: pass them through data.normalize, "
            "or use data.training_dataset and data.evaluation_dataset."
        )


def check_labeled(x, y, *, taker):
    """Refuses what cannot be evaluated on: no labels, or training batches.

    Args:
      x, y: of `keras.Model.evaluate`; nothing is known of generators, nor of
        the data sets of other libraries.
      taker: the name of the argument or method, for the message.
    """
    found = getattr(x, "element_spec", x)  # Of a data set of TensorFlow.
    if isinstance(x, keras.utils.PyDataset):
        found = x[0]
    known = isinstance(found, (dict, tuple, list)) or hasattr(found, "shape")
    if x is None or y is not None or not known:
        return
    if found is not x and isinstance(found, (tuple, list)) and len(found) > 1:
        return
    if isinstance(found, dict) and not _LABELED - found.keys():
        got = "got batches to train on"
    else:
        got = "got no labels"
    raise ValueError(
        f"{taker} takes inputs and labels, as arrays or as batches of both, "
        f"such as those of data.evaluation_dataset; {got}."
    )


def warn_of_levels(x, model):
    """Logs a line if images to predict on do not look normalized.

    Args:
      x: input of `predict` or `evaluate`: of arrays the first 64 images are
        checked, of a tf.data.Dataset or a PyDataset the first batch.
      model: the one that will see them.
    """
    if _brings_to_a_range(model):
        return
    if isinstance(x, (tf.data.Dataset, keras.utils.PyDataset)):
        is_data = isinstance(x, tf.data.Dataset)
        x = next(iter(x.take(1)), None) if is_data else x[0]
        x = x[0] if isinstance(x, tuple) else x
    for images in tf.nest.flatten(x):
        if len(getattr(images, "shape", ())) != 4 or not len(images):
            continue
        images = np.asarray(images[:_LOOKED_AT])
        low, high = images.min(), images.max()
        if np.issubdtype(images.dtype, np.integer) or not (
            low >= 0
            and (high <= 1 and high > low or high > _NORMALIZED)
            or not np.isfinite(low + high)
        ):
            continue
        logging.warning(
            "The images have values from %.4g to %.4g, as if they were not "
            "normalized: networks expect (levels / 255 - mean) / std, see "
            "data.normalize. This is fine if they were trained on such images.",
            low,
            high,
        )


def _brings_to_a_range(model):
    """Whether a model accepts levels as they are in files."""
    scales = keras.layers.Rescaling, keras.layers.Normalization
    inputs = getattr(model, "inputs", None) or ()
    return any(
        [isinstance(layer, scales) for layer in compat.layers_of(model)]
        + [one.dtype == "uint8" for one in inputs]
    )
