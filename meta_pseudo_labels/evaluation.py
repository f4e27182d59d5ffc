"""How good a classifier is."""

import numpy as np
import tensorflow as tf
from sklearn.metrics import accuracy_score


def predict_logits(model, dataset):
    """A model's inference logits for every image, and the images' labels.

    Args:
      model: a Keras model that returns logits; a learner answers with the
        average of its student.
      dataset: finite `tf.data.Dataset` of batches (images, integer labels
        [batch]).

    Returns:
      Logits [images, classes] and labels [images], as NumPy arrays.

    Raises:
      ValueError: where the data set is empty.
    """
    forward = tf.function(
        lambda images: model(images, training=False),
        input_signature=[dataset.element_spec[0]],
    )
    batches = [(forward(images), labels) for images, labels in dataset]
    if not batches:
        raise ValueError("There are no images to evaluate on; give some.")
    logits, labels = zip(*batches, strict=True)
    return np.concatenate(logits), np.concatenate(labels)


def accuracy(model, dataset):
    """Share of images whose largest logit is the label's, in [0, 1].

    Args:
      model: see `predict_logits`.
      dataset: see `predict_logits`.
    """
    logits, labels = predict_logits(model, dataset)
    return float(accuracy_score(labels, logits.argmax(axis=-1)))
