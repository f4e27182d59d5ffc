"""Which labels to doubt, which images to label next: rankings of arrays."""

import keras
import numpy as np
import tensorflow as tf
from sklearn.metrics import pairwise_distances_argmin_min

from meta_pseudo_labels.data.class_distributions import ordered_images
from meta_pseudo_labels.evaluation.evaluate import traced

_PENALTY = 0.1  # Of the regression, relative to the features' mean square.
_TINY = 1e-12


def look(network, images, spec, *, batch_size):
    """A network's predictions for images, and the input of its last layer.

    Args:
      network: a functional Keras model that returns logits.
      images: [N, H, W, 3] uint8.
      spec: `DatasetSpec` of the images.
      batch_size: images at a time.

    Returns:
      Probabilities [N, classes] and features [N, d], float64, the latter of
      length 1. If the last layer's input is not flat features, the logits are
      the features.
    """
    before = network.layers[-1].input
    if len(getattr(before, "shape", ())) != 2:
        before = network.output
    if not len(images):
        return tuple(
            np.zeros([0, x.shape[-1]]) for x in (network.output, before)
        )
    batches = ordered_images(images, spec, batch_size=batch_size)
    model = keras.Model(network.inputs, [network.output, before])
    forward = traced(model, batches.element_spec[0])
    found = zip(*(forward(batch) for batch, _ in batches), strict=True)
    logits, features = (
        np.concatenate(rows).astype(np.float64) for rows in found
    )
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return (
        tf.nn.softmax(logits).numpy(),
        features / np.maximum(lengths, _TINY),
    )


def leave_one_out(features, labels, num_classes):
    """What a ridge regression on all other images predicts for each.

    Exact, from its hat matrix: nothing is fitted twice.

    Args:
      features: [N, features] float.
      labels: [N] ints.
      num_classes: int.

    Returns:
      [N, classes] float64, about 1 for the class of the image and 0 for the
      others.
    """
    x = np.hstack([features - features.mean(axis=0), np.ones([len(labels), 1])])
    y = np.eye(num_classes)[labels]
    penalty = np.full(x.shape[1], _PENALTY * np.square(x[:, :-1]).sum())
    penalty /= max(len(labels), 1)
    penalty[-1] = _TINY  # The mean is not penalized.
    inverse = np.linalg.inv(x.T @ x + np.diag(penalty + _TINY))
    leverage = np.einsum("nd,de,ne->n", x, inverse, x, optimize=True)
    fitted = x @ (inverse @ (x.T @ y))
    rest = np.maximum(1 - leverage, 1e-6)[:, None]
    return y + (fitted - y) / rest


def doubts(probabilities, others, labels):
    """How much networks and neighbors doubt each label.

    Args:
      probabilities: [N, classes], of the networks.
      others: [N, classes], see `leave_one_out`.
      labels: [N] ints.

    Returns:
      doubts, [N] in 0..1; suggested, [N] ints, the likeliest of the other
      classes; likely, [N, classes], how likely each class is: the mean of
      the networks' probabilities and the neighbors' votes.
    """
    places = np.arange(len(labels))
    votes = np.clip(others, 0, None) + _TINY
    likely = (probabilities + votes / votes.sum(axis=1, keepdims=True)) / 2
    rest = likely.copy()
    rest[places, labels] = -1
    return 1 - likely[places, labels], rest.argmax(axis=1), likely


def uncertainty(student, teacher=None):
    """How uncertain networks are about an image, in nats.

    The entropy of their mean, which is their mean entropy plus their
    disagreement (the Jensen-Shannon divergence).

    Args:
      student, teacher: [N, classes] probabilities; None for no teacher.

    Returns:
      Entropy of the mean [N], and the part that is disagreement [N].
    """
    each = [student] if teacher is None else [student, teacher]
    total = _entropy(np.mean(each, axis=0))
    return total, np.maximum(total - np.mean([*map(_entropy, each)], axis=0), 0)


def _entropy(rows):
    return -(rows * np.log(np.maximum(rows, _TINY))).sum(axis=-1)


def next_to_label(scores, features, labeled, count):
    """Images that are uncertain and unlike those that have a label.

    They are chosen one by one: always the image with the largest score times
    distance to the nearest image that is labeled or already chosen.

    Args:
      scores: [N] >= 0, see `uncertainty`.
      features: [N, features].
      labeled: [L, features].
      count: how many at most.

    Returns:
      Their places in the order chosen, an int array.
    """
    scores, chosen = np.array(scores, np.float64), []
    far = np.full(len(features), np.inf)
    if len(labeled) and len(features):
        far = pairwise_distances_argmin_min(features, labeled)[1]
    for _ in range(min(count, len(scores))):
        far = np.where(np.isinf(far), 1.0, far)
        gain = scores * far
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        row = features[chosen[-1]]
        far = np.minimum(far, np.linalg.norm(features - row, axis=1))
    return np.array(chosen, int)
