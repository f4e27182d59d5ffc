"""FixMatch (Sohn et al. 2020): hard labels from confident weak views."""

import dataclasses
import math
from typing import ClassVar

import keras
import tensorflow as tf

from meta_pseudo_labels.learners.base import Learner
from meta_pseudo_labels.learners.checks import check_range
from meta_pseudo_labels.learners.losses import soft_cross_entropy
from meta_pseudo_labels.learners.passes import label_probabilities, own_losses
from meta_pseudo_labels.learners.registry import register
from meta_pseudo_labels.learners.uda import forward_views
from meta_pseudo_labels.utils.settings import Unread, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixMatchSettings:
    """What a confident weak view asks of a strong one, in fixmatch."""

    absent: ClassVar = "is not FixMatch."

    fixmatch_weight: float = setting(
        1.0, "Weight of FixMatch's unlabeled loss.", low=0
    )
    fixmatch_threshold: float = setting(
        0.95,
        "Confidence from which a weak view labels its strong one in FixMatch.",
        low=0,
        high=1,
    )


@register("fixmatch")
@keras.saving.register_keras_serializable("meta_pseudo_labels")
class FixMatch(Learner):
    """Labels, and the most likely class of weak views that are sure of it.

    The loss is the cross-entropy of the labels plus `weight` times that of the
    pseudo labels on the strong views (arXiv 2001.07685, equations 3 and 4). A
    weak view labels its strong one where its largest probability is at least
    `threshold`; the mean is over all unlabeled images, labeled so or not.

    Args:
      student: see `Learner`.
      weight: of the unlabeled loss, at least 0; lambda_u in the paper.
      threshold: in [0, 1]; tau in the paper.
      **kwargs: see `Learner`.

    Raises:
      ValueError: for a number out of range.
    """

    settings = (FixMatchSettings,)
    unread = (
        Unread(
            ("uda_",),
            "--method=fixmatch has --fixmatch_weight and --fixmatch_threshold "
            "in its place.",
            but=("uda_data",),
        ),
    )

    def __init__(self, student, *, weight=1.0, threshold=0.95, **kwargs):
        super().__init__(student, **kwargs)
        check_range("weight", weight, low=0, high=math.inf)
        check_range("threshold", threshold, low=0, high=1)
        self.weight = weight
        self.threshold = threshold

    @classmethod
    def from_settings(cls, settings, networks, **common):
        return cls(
            networks.student(),
            weight=settings.fixmatch_weight,
            threshold=settings.fixmatch_threshold,
            **common,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "weight": self.weight,
            "threshold": self.threshold,
        }

    def train_step(self, batch):
        """One update of the student on both losses."""
        self.check_batch(batch)
        with tf.GradientTape() as tape:
            logits = forward_views(
                self.student, batch, slices=self.batch_slices
            )
            labels = label_probabilities(batch["labels"], logits.labeled)
            on_labeled = self.labeled_loss(labels, logits.labeled, batch)
            losses, confident = pseudo_label_loss(
                weak_logits=logits.weak,
                strong_logits=logits.strong,
                threshold=self.threshold,
            )
            on_unlabeled = tf.reduce_mean(losses)
            loss = on_labeled + self.weight * on_unlabeled
            loss += own_losses(self.student)
        logs = {
            "loss/cross_entropy": on_labeled,
            "fixmatch/cross_entropy": on_unlabeled,
            "fixmatch/u_ratio": tf.reduce_mean(confident),
        }
        return self.take_step(tape, loss, logs)


def pseudo_label_loss(*, weak_logits, strong_logits, threshold):
    """Cross-entropy of confident weak views' classes against strong views.

    No gradient flows into the classes.

    Args:
      weak_logits: logits of the weak views, [batch, classes].
      strong_logits: logits of the strong views, [batch, classes].
      threshold: an image counts when the largest probability of its weak view
        is at least this, in [0, 1].

    Returns:
      The losses, [batch] nats, zero where masked, and the mask, [batch] of 0
      and 1.
    """
    probabilities = tf.stop_gradient(tf.nn.softmax(weak_logits))
    confident = tf.reduce_max(probabilities, axis=-1) >= threshold
    mask = tf.cast(confident, strong_logits.dtype)
    targets = tf.one_hot(
        tf.argmax(probabilities, axis=-1),
        strong_logits.shape[-1],
        dtype=strong_logits.dtype,
    )
    losses = soft_cross_entropy(targets=targets, logits=strong_logits)
    return losses * mask, mask
