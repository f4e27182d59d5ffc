"""FlexMatch (Zhang et al. 2021): lower thresholds for classes that lag."""

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
class FlexMatchSettings:
    """Weight and threshold of flexmatch."""

    absent: ClassVar = "is not FlexMatch."

    flexmatch_weight: float = setting(
        1.0, "Weight of FlexMatch's unlabeled loss.", low=0
    )
    flexmatch_threshold: float = setting(
        0.95,
        "FlexMatch's threshold for the class that is learned best.",
        low=0,
        high=1,
    )


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class FlexMatchTerm(StatefulTerm):
    """Curriculum pseudo labels (arXiv 2110.08263).

    Args: see `FlexMatch`.

    Attributes:
      chosen: the class that the weak view of each unlabeled image was last sure
        of, [unlabeled]; -1 if it never was.
    """

    name = "flexmatch"
    fields = ("weight", "threshold", "unlabeled")
    batch_keys = (*StatefulTerm.batch_keys, "unlabeled_indices")

    def __init__(self, *, unlabeled, weight=1.0, threshold=0.95):
        super().__init__()
        check_range("unlabeled", unlabeled, low=1, high=2**31 - 1)
        check_range("weight", weight, low=0, high=math.inf)
        check_range("threshold", threshold, low=0, high=1)
        self.unlabeled = unlabeled
        self.weight = weight
        self.threshold = threshold

    @classmethod
    def arguments(cls, settings, networks):
        return dict(
            weight=settings.flexmatch_weight,
            threshold=settings.flexmatch_threshold,
            unlabeled=networks.unlabeled,
        )

    def make_state(self, classes, dtype):
        self.classes = classes
        self.chosen = self.keep("chosen", (self.unlabeled,), -1, "int64")

    def value(self, logits, labels, *, batch, step):
        probabilities = tf.stop_gradient(tf.nn.softmax(logits.weak))
        thresholds = self.thresholds(probabilities.dtype)
        losses, mask = confident_loss(
            probabilities=probabilities,
            strong_logits=logits.strong,
            threshold=thresholds,
        )
        loss = tf.reduce_mean(losses)
        logs = {
            "flexmatch/threshold": tf.reduce_mean(thresholds),
            "flexmatch/u_ratio": tf.reduce_mean(mask),
        }
        chosen = self._moved(probabilities, batch["unlabeled_indices"])
        move = (self.chosen, chosen)
        return TermValue(self.weight * loss, loss, logs, (move,))

    def thresholds(self, dtype):
        """One per class, [classes], from what was chosen before."""
        # Images without a chosen class come first, then those of each class.
        counts = tf.math.unsorted_segment_sum(
            tf.ones([self.unlabeled], dtype), self.chosen + 1, self.classes + 1
        )
        effects = counts[1:] / tf.reduce_max(counts)
        return self.threshold * effects / (2.0 - effects)

    def _moved(self, probabilities, indices):
        """What is chosen now: by this batch, otherwise as before."""
        sure = tf.reduce_max(probabilities, axis=-1) >= self.threshold
        classes = replicas.all_rows(tf.argmax(probabilities, axis=-1))
        # For an image that occurs twice in a batch, the last row counts.
        sure = replicas.all_rows(tf.cast(sure, tf.int64)) > 0
        rows = tf.range(tf.size(classes, tf.int64))
        last = tf.math.unsorted_segment_max(
            tf.where(sure, rows, -1),
            replicas.all_rows(tf.cast(indices, tf.int64)),
            self.unlabeled,
        )
        return tf.where(
            last >= 0, tf.gather(classes, tf.maximum(last, 0)), self.chosen
        )


@register("flexmatch")
@keras.saving.register_keras_serializable("meta_pseudo_labels")
class FlexMatch(TermLearner):
    """Learns labels, and classes of weak views that reach a class's threshold.

    The loss is the cross-entropy of the labels plus `weight` times that of the
    weak views' classes on strong views (arXiv 2110.08263, equations 5 to 12).
    For each class, the unlabeled images are counted whose weak view was of this
    class when it last had a probability of at least `threshold`. This count
    over that of the largest class, or over the number of images that were never
    so sure if that is larger (the warm-up), is the class's learning effect b.
    The class's threshold is `threshold` b / (2 - b).

    Args:
      student: see `Learner`; its number of classes must be known.
      unlabeled: number of unlabeled images.
      weight: of the unlabeled loss, at least 0; lambda in the paper.
      threshold: in [0, 1]; tau in the paper.
      **kwargs: see `Learner`.

    The batch also needs "unlabeled_indices", [unlabeled in the batch] integers
    from 0: the numbers of the images in "weak" and "strong"; see
    `data.training_dataset`.

    Raises:
      ValueError: for a number out of range.
    """

    settings = (FlexMatchSettings,)
    unread = (in_place_of_uda(FlexMatchSettings),)
    term_type = FlexMatchTerm
    batch_keys = FlexMatchTerm.batch_keys
