"""FixMatch (Sohn et al. 2020): hard labels from confident weak views."""

import dataclasses
import math
from typing import ClassVar

import keras
import tensorflow as tf

from meta_pseudo_labels.learners.checks import check_range
from meta_pseudo_labels.learners.losses import confident_loss
from meta_pseudo_labels.learners.method import register
from meta_pseudo_labels.learners.terms import (
    Term,
    TermLearner,
    TermValue,
    in_place_of_uda,
)
from meta_pseudo_labels.utils.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixMatchSettings:
    """Pseudo labels of confident weak views for strong ones, in fixmatch."""

    absent: ClassVar = "is not FixMatch."

    fixmatch_weight: float = setting(
        1.0, "Weight of FixMatch's unlabeled loss.", low=0
    )
    fixmatch_threshold: float = setting(
        0.95,
        "Minimum confidence at which a weak view labels its strong view in "
        "FixMatch.",
        low=0,
        high=1,
    )


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class FixMatchTerm(Term):
    """The cross-entropy of confident weak views' classes, on strong views.

    Args: see `FixMatch`.
    """

    name = "fixmatch"
    fields = ("weight", "threshold")

    def __init__(self, *, weight=1.0, threshold=0.95):
        check_range("weight", weight, low=0, high=math.inf)
        check_range("threshold", threshold, low=0, high=1)
        self.weight = weight
        self.threshold = threshold

    def value(self, logits, labels, *, batch, step):
        losses, confident = pseudo_label_loss(
            weak_logits=logits.weak,
            strong_logits=logits.strong,
            threshold=self.threshold,
        )
        loss = tf.reduce_mean(losses)
        logs = {"fixmatch/u_ratio": tf.reduce_mean(confident)}
        return TermValue(self.weight * loss, loss, logs)


@register("fixmatch")
@keras.saving.register_keras_serializable("meta_pseudo_labels")
class FixMatch(TermLearner):
    """Labels, and the most likely class of weak views that are sure of it.

    The loss is the cross-entropy of the labels plus `weight` times that of the
    pseudo labels on the strong views (arXiv 2001.07685, equations 3 and 4). A
    weak view labels its strong view if its largest probability is at least
    `threshold`; the mean is over all unlabeled images, labeled this way or not.

    Args:
      student: see `Learner`.
      weight: of the unlabeled loss, at least 0; lambda_u in the paper.
      threshold: in [0, 1]; tau in the paper.
      **kwargs: see `Learner`.

    Raises:
      ValueError: for a number out of range.
    """

    settings = (FixMatchSettings,)
    unread = (in_place_of_uda(FixMatchSettings),)
    term_type = FixMatchTerm

    @property
    def weight(self):
        return self.term.weight

    @property
    def threshold(self):
        return self.term.threshold


def pseudo_label_loss(*, weak_logits, strong_logits, threshold):
    """Cross-entropy of confident weak views' classes against strong views.

    No gradient flows into the classes.

    Args:
      weak_logits: logits of the weak views, [batch, classes].
      strong_logits: logits of the strong views, [batch, classes].
      threshold: an image counts when the largest probability of its weak view
        is at least this, in [0, 1].

    Returns:
      See `losses.confident_loss`.
    """
    return confident_loss(
        probabilities=tf.nn.softmax(weak_logits),
        strong_logits=strong_logits,
        threshold=threshold,
    )
