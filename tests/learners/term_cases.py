"""What the tests of FreeMatch, FlexMatch and AdaMatch begin with."""

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.learners.passes import ViewLogits
from tests.learners.helpers import CLASSES, conv_net

__all__ = ["CLASSES"]


def softmax(logits):
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def cross_entropy(targets, logits):
    """[batch] nats."""
    return -(targets * np.log(softmax(logits))).sum(1)


def prepared(term):
    """A term with its state, for a network of three classes, in float64."""
    term.prepare(conv_net("student"), "float64")
    return term


def logits_of_steps(steps, *, unlabeled=6, scale=1.0):
    """A list of random `ViewLogits`, the first class ahead of the others."""
    random = np.random.default_rng(5)

    def draw(count):
        logits = random.normal(size=(count, CLASSES)) * scale
        return tf.constant(logits + [scale / 2, 0, 0])

    return [
        ViewLogits(draw(4), draw(unlabeled), draw(unlabeled))
        for _ in range(steps)
    ]
