"""Losses per example, and the soft labels they compare with.

Losses return one value per example, in nats, unless their name says mean.
"""

import inspect

import keras
import numpy as np
import tensorflow as tf

TINY = np.finfo(np.float32).tiny  # Has a logarithm; 0 has none.


def smooth_labels(labels, smoothing):
    """Mixes labels with the uniform distribution.

    Args:
      labels: probabilities, [batch, classes]; rows sum to 1.
      smoothing: weight of the uniform distribution, in [0, 1].

    Returns:
      `labels * (1 - smoothing) + smoothing / classes`, [batch, classes].
    """
    if not smoothing:
        return labels
    classes = labels.shape[-1]
    return labels * (1.0 - smoothing) + smoothing / classes


def soft_cross_entropy(*, targets, logits):
    """Cross-entropy of soft targets against logits, in nats, [batch].

    Written out rather than through
    `tf.nn.softmax_cross_entropy_with_logits`: the gradient that TensorFlow
    registers for that op forgets that the gradient with respect to the logits
    depends on the targets, so a tape around a tape (the `exact` feedback)
    would find nothing there.

    Args:
      targets: probabilities, [batch, classes]; rows sum to 1.
      logits: unnormalized scores, [batch, classes].
    """
    return -tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=-1)


def mean_cross_entropy(targets, logits, weights=None):
    """Mean of `soft_cross_entropy` over the batch, scalar, nats.

    Args:
      targets, logits: see `soft_cross_entropy`.
      weights: one per example, [batch]; as in Keras, the sum is divided by the
        number of examples, not by the sum of weights.
    """
    losses = soft_cross_entropy(targets=targets, logits=logits)
    return tf.reduce_mean(losses if weights is None else losses * weights)


# From the key of weights in a batch to the key of their labels.
WEIGHT_KEYS = {
    "sample_weight": "labels",
    "feedback_sample_weight": "feedback_labels",
}


def weights_of(batch, key, logits):
    """Weights of a batch's labeled examples, [batch]; None if it has none.

    Args:
      batch: a dict.
      key: in `WEIGHT_KEYS`.
      logits: of these examples, [batch, classes].

    Raises:
      ValueError: for weights of another shape.
    """
    if key not in batch:
        return None
    weights = tf.convert_to_tensor(batch[key])
    fits = weights.shape[:1].is_compatible_with(logits.shape[:1])
    if weights.shape[1:] not in ([], [1]) or not fits:
        raise ValueError(
            f"{key} must be [batch], a number for each label; got shape "
            f"{weights.shape} for {logits.shape[0]} examples."
        )
    return tf.cast(tf.reshape(weights, [-1]), logits.dtype)


def balanced_weights(labels, classes):
    """Weights that make classes count equally in a mean over labeled examples.

    Args:
      labels: class numbers, [n].
      classes: number of classes.

    Returns:
      A dict for `class_weight`: n / (classes that occur * examples of the
      class), so that the mean weight of these labels is 1.
    """
    counts = np.bincount(labels, minlength=classes)
    even = counts.sum() / np.count_nonzero(counts)
    return {number: even / n for number, n in enumerate(counts) if n}


def with_class_weights(dataset, class_weight, classes):
    """Adds the `class_weight` of `fit` to batches, as sample weights.

    Args:
      dataset: `tf.data.Dataset` of dicts.
      class_weight: from class numbers to weights, at least 0; a class that is
        left out has weight 1. Labels that are probabilities have the weight of
        their most likely class.
      classes: number of classes.

    Raises:
      ValueError: for any other data set or weights, and for batches that have
        sample weights already.
    """
    spec = getattr(dataset, "element_spec", None)
    if isinstance(dataset, keras.utils.PyDataset) or inspect.isgenerator(
        dataset
    ):
        raise ValueError(
            f"class_weight cannot be added to a {type(dataset).__name__}: put "
            "sample_weight, [batch], into its batches."
        )
    if not isinstance(dataset, tf.data.Dataset) or not isinstance(spec, dict):
        raise ValueError(
            "class_weight needs a tf.data.Dataset of dicts, before it is "
            f"distributed; got {type(dataset).__name__}."
        )
    if not spec.keys().isdisjoint(WEIGHT_KEYS):
        raise ValueError(
            "The batches have sample weights already; give these or "
            "class_weight."
        )
    if not isinstance(class_weight, dict):
        raise ValueError(
            f"class_weight is {class_weight!r}; give a dict from class numbers "
            "to weights, such as that of losses.balanced_weights."
        )
    for number, weight in class_weight.items():
        if number not in range(classes) or not 0 <= weight < float("inf"):
            raise ValueError(
                f"class_weight must map classes from 0 to {classes - 1} to "
                f"numbers of at least 0; got {number!r}: {weight!r}."
            )
    table = [float(class_weight.get(c, 1.0)) for c in range(classes)]

    def add(batch):
        added = {
            key: tf.gather(table, _class_numbers(batch[labels], classes))
            for key, labels in WEIGHT_KEYS.items()
            if labels in batch
        }
        return {**batch, **added}

    return dataset.map(tf.autograph.experimental.do_not_convert(add))


def _class_numbers(labels, classes):
    """[batch]; numbers out of range, which are refused later, are clipped."""
    if labels.dtype.is_floating:
        return tf.argmax(labels, axis=-1)
    numbers = tf.cast(tf.reshape(labels, [-1]), tf.int64)
    return tf.clip_by_value(numbers, 0, classes - 1)


def consistency_loss(*, weak_logits, strong_logits, temperature, threshold):
    """Cross-entropy of sharpened, confident weak views against strong views.

    Unsupervised Data Augmentation (Xie et al. 2019; release `UDA.step_fn`,
    quirk 14). No gradient flows into the targets. The mean of the returned
    losses divides by all images, not by the confident ones, as in the release.

    Args:
      weak_logits: logits of the weak views, [batch, classes].
      strong_logits: logits of the strong views, [batch, classes].
      temperature: divides the weak logits; below 1 sharpens.
      threshold: an image counts when its largest sharpened probability is at
        least this, in [0, 1].

    Returns:
      The losses, [batch] nats, zero where masked, and the mask, [batch] of 0
      and 1.
    """
    targets = tf.stop_gradient(tf.nn.softmax(weak_logits / temperature))
    confident = tf.reduce_max(targets, axis=-1) >= threshold
    mask = tf.cast(confident, strong_logits.dtype)
    losses = soft_cross_entropy(targets=targets, logits=strong_logits)
    return losses * mask, mask


def align(probabilities, *, wanted, found):
    """Adjusts distributions to other class frequencies.

    Distribution alignment (Berthelot et al. 2020, arXiv 1911.09785).

    Args:
      probabilities: [batch, classes]; rows sum to 1.
      wanted, found: the desired and the present class frequencies, [classes].

    Returns:
      [batch, classes]; rows in proportion to `probabilities * wanted / found`,
      or unchanged if that is 0 for every class.
    """
    aligned = probabilities * tf.math.divide_no_nan(wanted, found)
    total = tf.reduce_sum(aligned, axis=-1, keepdims=True)
    return tf.where(
        tf.equal(total, 0.0),
        probabilities,
        tf.math.divide_no_nan(aligned, total),
    )


def confident_loss(*, probabilities, strong_logits, threshold, soft=False):
    """Cross-entropy of confident pseudo labels against strong views.

    No gradient flows into the labels.

    Args:
      probabilities: those of weak views, [batch, classes].
      strong_logits: logits of the strong views, [batch, classes].
      threshold: an image counts when its largest probability is at least this,
        in [0, 1]; a scalar, or [classes] for one per most likely class.
      soft: whether the labels are the probabilities; otherwise they are the
        most likely classes.

    Returns:
      The losses, [batch] nats, zero where masked, and the mask, [batch] of 0
      and 1.
    """
    probabilities = tf.stop_gradient(probabilities)
    classes = tf.argmax(probabilities, axis=-1)
    threshold = tf.convert_to_tensor(threshold, probabilities.dtype)
    if threshold.shape.rank:
        threshold = tf.gather(threshold, classes)
    confident = tf.reduce_max(probabilities, axis=-1) >= threshold
    mask = tf.cast(confident, strong_logits.dtype)
    targets = probabilities
    if not soft:
        targets = tf.one_hot(
            classes, strong_logits.shape[-1], dtype=strong_logits.dtype
        )
    losses = soft_cross_entropy(targets=targets, logits=strong_logits)
    return losses * mask, mask
