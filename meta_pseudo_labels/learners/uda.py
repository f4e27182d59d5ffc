"""Unsupervised Data Augmentation (Xie et al. 2019), alone and for a teacher."""

import dataclasses
from typing import ClassVar, NamedTuple

import keras
import tensorflow as tf

from meta_pseudo_labels.learners.base import Learner
from meta_pseudo_labels.learners.checks import check_positive, check_range
from meta_pseudo_labels.learners.losses import consistency_loss
from meta_pseudo_labels.learners.passes import (
    forward_together,
    label_probabilities,
    own_losses,
)
from meta_pseudo_labels.learners.registry import register
from meta_pseudo_labels.utils.settings import setting


@keras.saving.register_keras_serializable("meta_pseudo_labels")
@dataclasses.dataclass(frozen=True)
class UDASettings:
    """The consistency term: what a confident weak view asks of a strong one.

    Attributes:
      weight: of the term once its ramp is over; 0 turns it off.
      ramp_steps: steps over which the weight grows linearly from 0.
      temperature: of the weak view's logits; below 1 sharpens.
      threshold: an image counts when its largest sharpened probability is at
        least this, in [0, 1].
      num_train_steps: length of the run, for the log uda/l_ratio only (quirk
        15); None leaves that log out.
    """

    weight: float = 1.0
    ramp_steps: int = 10_000
    temperature: float = 0.75
    threshold: float = 0.6
    num_train_steps: int | None = None

    def get_config(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __post_init__(self):
        check_range("uda weight", self.weight, low=0, high=float("inf"))
        check_range("uda ramp_steps", self.ramp_steps, low=1, high=2**53)
        check_range("uda threshold", self.threshold, low=0, high=1)
        check_positive("uda temperature", self.temperature)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencySettings:
    """The consistency term, of uda and of the teacher in mpl."""

    absent: ClassVar = "has no consistency term."

    uda_weight: float = setting(1.0, "Weight of the UDA loss.", low=0)
    uda_steps: int = setting(
        10_000, "Ramp of the UDA weight from 0, in steps.", low=1
    )
    uda_temp: float = setting(
        0.75, "Temperature that sharpens weak views.", low=1e-6
    )
    uda_threshold: float = setting(
        0.6, "Confidence from which a weak view counts.", low=0, high=1
    )

    def uda(self):
        """`UDASettings` of these."""
        return UDASettings(
            weight=self.uda_weight,
            ramp_steps=self.uda_steps,
            temperature=self.uda_temp,
            threshold=self.uda_threshold,
            num_train_steps=self.num_train_steps,
        )


RELEASE_UDA = UDASettings()  # The defaults of the release's flags.


class ViewLogits(NamedTuple):
    """Logits of one joint batch, each [.., classes]; weak None where unused."""

    labeled: tf.Tensor
    weak: tf.Tensor | None
    strong: tf.Tensor


def forward_views(model, batch, **settings):
    """One training-mode call on labeled, weak and strong together (quirk 1).

    See `passes.forward_together`, of which the settings are.
    """
    views = (batch["labeled"], batch["weak"], batch["strong"])
    return ViewLogits(*forward_together(model, *views, **settings))


def consistency_term(settings, logits, labels, *, step):
    """The UDA term of a network's loss, ramped up, and what to log of it.

    Args:
      settings: `UDASettings`.
      logits: `ViewLogits` of the network that learns.
      labels: probabilities of the labeled images, [batch, classes].
      step: scalar integer, before this step's increment, so that the weight is
        0 at the first step (quirk 9).

    Returns:
      The weighted term; the term before weighting; a dict of logs. Scalars.
    """
    losses, confident = consistency_loss(
        weak_logits=logits.weak,
        strong_logits=logits.strong,
        temperature=settings.temperature,
        threshold=settings.threshold,
    )
    loss = tf.reduce_mean(losses)
    steps = tf.cast(step, loss.dtype)
    ramp = tf.clip_by_value(steps / settings.ramp_steps, 0.0, 1.0)
    weight = settings.weight * ramp
    logs = {"uda/u_ratio": tf.reduce_mean(confident), "uda/weight": weight}
    if settings.num_train_steps is not None:
        chance = 1.0 / labels.shape[-1]
        bound = chance + steps / settings.num_train_steps * (1.0 - chance)
        correct = tf.reduce_sum(labels * tf.nn.softmax(logits.labeled), axis=-1)
        unsure = tf.cast(correct <= bound, loss.dtype)
        logs["uda/l_ratio"] = tf.reduce_mean(unsure)
    return weight * loss, loss, logs


@register("uda")
@keras.saving.register_keras_serializable("meta_pseudo_labels")
class UDA(Learner):
    """Supervised plus consistency on unlabeled images, the second control.

    The student learns from the labels and from itself (release `UDA.step_fn`).

    Args:
      student: see `Learner`.
      uda: `UDASettings`.
      **kwargs: see `Learner`.
    """

    settings = (ConsistencySettings,)

    def __init__(self, student, *, uda=RELEASE_UDA, **kwargs):
        super().__init__(student, **kwargs)
        if uda is None:
            raise ValueError(
                "UDA needs UDASettings; got uda=None. Leave uda out for the "
                "release's, or use Supervised."
            )
        self.uda = uda

    @classmethod
    def from_settings(cls, settings, networks, **common):
        return cls(networks.student(), uda=settings.uda(), **common)

    def get_config(self):
        uda = keras.saving.serialize_keras_object(self.uda)
        return {**super().get_config(), "uda": uda}

    def train_step(self, batch):
        """One update of the student on both losses."""
        self.check_batch(batch)
        with tf.GradientTape() as tape:
            logits = forward_views(
                self.student, batch, slices=self.batch_slices
            )
            labels = label_probabilities(batch["labels"], logits.labeled)
            cross_entropy = self.labeled_loss(labels, logits.labeled, batch)
            weighted, consistency, uda_logs = consistency_term(
                self.uda, logits, labels, step=self.step.value
            )
            loss = cross_entropy + weighted + own_losses(self.student)
        logs = {
            "loss/cross_entropy": cross_entropy,
            "uda/cross_entropy": consistency,
            **uda_logs,
        }
        # The release's own spelling.
        return self.take_step(tape, loss, logs, decay_log="loss/weight_dec")
