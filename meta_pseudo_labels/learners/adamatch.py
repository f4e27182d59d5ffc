"""AdaMatch (Berthelot et al. 2022): aligned class distributions."""

import dataclasses
import math
from typing import ClassVar

import keras
import tensorflow as tf

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.learners.checks import check_range
from meta_pseudo_labels.learners.losses import align, confident_loss
from meta_pseudo_labels.learners.method import register
from meta_pseudo_labels.learners.passes import forward_together
from meta_pseudo_labels.learners.terms import (
    StatefulTerm,
    TermLearner,
    TermValue,
    in_place_of_uda,
)
from meta_pseudo_labels.utils.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaMatchSettings:
    """Threshold, alignment and passes of adamatch."""

    absent: ClassVar = "is not AdaMatch."

    adamatch_weight: float = setting(
        1.0, "Weight of AdaMatch's unlabeled loss after its ramp.", low=0
    )
    adamatch_threshold: float = setting(
        0.9,
        "AdaMatch's threshold, as a share of the mean confidence on labeled "
        "images.",
        low=0,
        high=1,
    )
    adamatch_decay: float = setting(
        0.999,
        "Decay of the two average class distributions that AdaMatch aligns; 0 "
        "uses those of the batch.",
        low=0,
        high=1,
    )
    adamatch_soft: bool = setting(
        True,
        "Train strong views on the aligned distributions, as in the paper; "
        "otherwise on their most likely class, as in its authors' program.",
    )
    adamatch_interpolate: bool = setting(
        True,
        "Mix the labeled logits at random with those of a second pass over "
        "the labeled images alone. The teacher in mpl never does this.",
    )


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class AdaMatchTerm(StatefulTerm):
    """Aligned distributions and a relative threshold (arXiv 2106.04732).

    Args: see `AdaMatch`.

    Attributes:
      labeled: average probabilities of labeled images, [classes].
      unlabeled: average probabilities of weak views, [classes].
    """

    name = "adamatch"
    fields = ("weight", "threshold", "decay", "soft", "num_train_steps")

    def __init__(
        self,
        *,
        weight=1.0,
        threshold=0.9,
        decay=0.999,
        soft=True,
        num_train_steps=None,
    ):
        super().__init__()
        check_range("weight", weight, low=0, high=math.inf)
        check_range("threshold", threshold, low=0, high=1)
        check_range("decay", decay, low=0, high=1)
        if num_train_steps is not None:
            check_range("num_train_steps", num_train_steps, low=1, high=2**53)
        self.weight = weight
        self.threshold = threshold
        self.decay = decay
        self.soft = soft
        self.num_train_steps = num_train_steps

    @classmethod
    def arguments(cls, settings, networks):
        return dict(
            weight=settings.adamatch_weight,
            threshold=settings.adamatch_threshold,
            decay=settings.adamatch_decay,
            soft=settings.adamatch_soft,
            num_train_steps=settings.num_train_steps,
        )

    def make_state(self, classes, dtype):
        even = 1.0 / classes
        self.labeled = self.keep("labeled", (classes,), even, dtype)
        self.unlabeled = self.keep("unlabeled", (classes,), even, dtype)

    def value(self, logits, labels, *, batch, step):
        on_labeled, on_weak = (
            tf.stop_gradient(tf.nn.softmax(x))
            for x in (logits.labeled, logits.weak)
        )
        *means, confidence = replicas.mean(
            [
                tf.reduce_mean(on_labeled, axis=0),
                tf.reduce_mean(on_weak, axis=0),
                tf.reduce_mean(tf.reduce_max(on_labeled, axis=-1)),
            ]
        )
        (labeled, unlabeled), moves = self.averages(
            (self.labeled, self.unlabeled), means, self.decay
        )
        aligned = align(on_weak, wanted=labeled, found=unlabeled)
        threshold = self.threshold * confidence
        losses, mask = confident_loss(
            probabilities=aligned,
            strong_logits=logits.strong,
            threshold=threshold,
            soft=self.soft,
        )
        loss = tf.reduce_mean(losses)
        weight = self.weight * self.ramp(step, loss.dtype)
        logs = {
            "adamatch/threshold": threshold,
            "adamatch/u_ratio": tf.reduce_mean(mask),
            "adamatch/weight": weight,
        }
        return TermValue(weight * loss, loss, logs, moves)

    def ramp(self, step, dtype):
        """From 0 at the first step to 1 in the middle of the run, scalar."""
        if self.num_train_steps is None:
            return tf.ones([], dtype)
        turn = 2.0 * math.pi * tf.cast(step, dtype) / self.num_train_steps
        return 0.5 - tf.cos(tf.minimum(turn, math.pi)) / 2.0


@register("adamatch")
@keras.saving.register_keras_serializable("meta_pseudo_labels")
class AdaMatch(TermLearner):
    """Learns labels, and weak views aligned with the labeled images.

    The loss is the cross-entropy of the labels plus, ramped up, that of the
    weak views' labels on strong views (arXiv 2106.04732, section 3, for one
    domain). The weak views' probabilities are multiplied by the ratio of the
    expected probabilities of labeled images to those of unlabeled ones, and
    count if the largest is at least `threshold` times the mean confidence on
    labeled images. Labeled logits are mixed, each by a random share, with those
    of a pass over the labeled images alone, which updates no moving averages
    and costs an extra pass over these images.

    The paper's labeled images have strong views too; here, as in fixmatch,
    they have weak ones.

    Args:
      student: see `Learner`; its number of classes must be known.
      interpolate: whether to mix labeled logits.
      weight: of the unlabeled loss, at least 0.
      threshold: in [0, 1]; tau in the paper.
      decay: of the averages used as expectations, in [0, 1]; both start at one
        over the number of classes. 0 uses the batch's means.
      soft: whether strong views learn distributions, not most likely classes.
      num_train_steps: length of the run; the unlabeled loss has its full
        weight from the middle on. None leaves the ramp out.
      **kwargs: see `Learner`.

    Raises:
      ValueError: for a number out of range.
    """

    settings = (AdaMatchSettings,)
    unread = (in_place_of_uda(AdaMatchSettings),)
    term_type = AdaMatchTerm

    def __init__(self, student, *, interpolate=True, **kwargs):
        super().__init__(student, **kwargs)
        self.interpolate = interpolate

    @classmethod
    def from_settings(cls, settings, networks, **common):
        common["interpolate"] = settings.adamatch_interpolate
        return super().from_settings(settings, networks, **common)

    @classmethod
    def passes(cls, settings):
        alone = {1} if settings.adamatch_interpolate else set()
        return super().passes(settings) | alone

    def get_config(self):
        return {**super().get_config(), "interpolate": self.interpolate}

    def view_logits(self, batch):
        """`ViewLogits` of the student's inputs, the labeled ones mixed."""
        if not self.interpolate:
            return super().view_logits(batch)
        (alone,) = forward_together(
            self.student,
            batch["labeled"],
            update_moments=False,
            slices=self.batch_slices,
        )
        logits = super().view_logits(batch)
        shares = replicas.uniform(
            tf.stack([tf.cast(self.seed, "int64"), self.step.value]),
            rows=tf.shape(alone)[0],
            width=alone.shape[-1],
        )
        mixed = logits.labeled + tf.cast(shares, alone.dtype) * (
            alone - logits.labeled
        )
        return logits._replace(labeled=mixed)
