"""FreeMatch (Wang et al. 2023): thresholds that the network sets itself."""

import dataclasses
import math
from typing import ClassVar

import keras
import tensorflow as tf

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.learners.checks import check_range
from meta_pseudo_labels.learners.losses import confident_loss
from meta_pseudo_labels.learners.method import register
from meta_pseudo_labels.learners.terms import (
    StatefulTerm,
    TermLearner,
    TermValue,
    in_place_of_uda,
)
from meta_pseudo_labels.utils.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class FreeMatchSettings:
    """Thresholds and fairness of freematch."""

    absent: ClassVar = "is not FreeMatch."

    freematch_weight: float = setting(
        1.0, "Weight of FreeMatch's unlabeled loss.", low=0
    )
    freematch_fairness: float = setting(
        0.01, "Weight of FreeMatch's class fairness loss.", low=0
    )
    freematch_decay: float = setting(
        0.999,
        "Decay of the averages that FreeMatch's thresholds are based on.",
        low=0,
        high=1,
    )


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class FreeMatchTerm(StatefulTerm):
    """Self-adaptive thresholds and fairness (arXiv 2205.07246).

    Args: see `FreeMatch`.

    Attributes:
      confidence: average of the largest probability of weak views, scalar;
        the global threshold.
      shares: average of their probabilities, [classes].
      histogram: average share of images with each most likely class, [classes].
    """

    name = "freematch"
    fields = ("weight", "fairness", "decay")

    def __init__(self, *, weight=1.0, fairness=0.01, decay=0.999):
        super().__init__()
        check_range("weight", weight, low=0, high=math.inf)
        check_range("fairness", fairness, low=0, high=math.inf)
        check_range("decay", decay, low=0, high=1)
        self.weight = weight
        self.fairness = fairness
        self.decay = decay

    def make_state(self, classes, dtype):
        even = 1.0 / classes
        self.confidence = self.keep("confidence", (), even, dtype)
        self.shares = self.keep("shares", (classes,), even, dtype)
        self.histogram = self.keep("histogram", (classes,), even, dtype)

    def value(self, logits, labels, *, batch, step):
        probabilities = tf.stop_gradient(tf.nn.softmax(logits.weak))
        means = replicas.mean(
            [
                tf.reduce_mean(tf.reduce_max(probabilities, axis=-1)),
                tf.reduce_mean(probabilities, axis=0),
                class_shares(probabilities),
            ]
        )
        (confidence, shares, histogram), moves = self.averages(
            (self.confidence, self.shares, self.histogram), means, self.decay
        )
        thresholds = confidence * shares / tf.reduce_max(shares)
        losses, mask = confident_loss(
            probabilities=probabilities,
            strong_logits=logits.strong,
            threshold=thresholds,
        )
        loss = tf.reduce_mean(losses)
        unfair = fairness_loss(
            logits.strong, mask, shares=shares, histogram=histogram
        )
        logs = {
            "freematch/fairness": unfair,
            "freematch/threshold": confidence,
            "freematch/u_ratio": tf.reduce_mean(mask),
        }
        return TermValue(
            self.weight * loss + self.fairness * unfair, loss, logs, moves
        )


@register("freematch")
@keras.saving.register_keras_serializable("meta_pseudo_labels")
class FreeMatch(TermLearner):
    """Learns labels, and classes of weak views surer than average so far.

    The loss is the cross-entropy of the labels, plus `weight` times that of
    the weak views' classes on strong views, plus `fairness` times a loss that
    keeps all classes in use (arXiv 2205.07246, equations 5 to 12). The
    threshold is the average confidence of weak views so far, and less for rarer
    classes, in proportion to their average probability. All averages start at
    one over the number of classes, and are updated before they are used.

    Args:
      student: see `Learner`; its number of classes must be known.
      weight: of the unlabeled loss, at least 0; w_u in the paper.
      fairness: of the fairness loss, at least 0; w_f in the paper, 0.001 to
        0.05 there.
      decay: of the averages, in [0, 1]; lambda in the paper.
      **kwargs: see `Learner`.

    Raises:
      ValueError: for a number out of range.
    """

    settings = (FreeMatchSettings,)
    unread = (in_place_of_uda(FreeMatchSettings),)
    term_type = FreeMatchTerm


def class_shares(probabilities, mask=None):
    """Share of images for which each class is the most likely one, [classes].

    Args:
      probabilities: or logits, [batch, classes].
      mask: [batch], 1 for images that are counted, otherwise 0; by default
        all. The counts are divided by the number of all images.
    """
    chosen = tf.one_hot(
        tf.argmax(probabilities, axis=-1),
        probabilities.shape[-1],
        dtype=probabilities.dtype,
    )
    if mask is not None:
        chosen *= mask[:, tf.newaxis]
    return tf.reduce_mean(chosen, axis=0)


def fairness_loss(strong_logits, mask, *, shares, histogram):
    """How alike class probabilities are on strong views and so far, scalar.

    Minus a cross-entropy, so at most 0, of the average probabilities of weak
    views and the mean probabilities of strong views that count, both divided by
    how often each class is the most likely one. A class that no strong view
    chooses has no such quotient, and is left out; if no view counts, this is 0.

    Args:
      strong_logits: of this replica, [batch, classes].
      mask: [batch], 1 for images that count, otherwise 0.
      shares, histogram: averages of weak views, [classes].
    """
    strong = tf.nn.softmax(strong_logits)
    mean, chosen = replicas.mean(
        [
            tf.reduce_mean(strong * mask[:, tf.newaxis], axis=0),
            class_shares(tf.stop_gradient(strong), mask),
        ]
    )
    there = chosen > 0
    quotient = tf.where(there, mean / tf.where(there, chosen, 1.0), 0.0)
    found = tf.math.divide_no_nan(quotient, tf.reduce_sum(quotient))
    wanted = tf.math.divide_no_nan(shares, histogram)
    wanted /= tf.reduce_sum(wanted)
    return tf.reduce_sum(wanted * tf.math.log(tf.where(there, found, 1.0)))
