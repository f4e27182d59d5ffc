"""Unsupervised Data Augmentation (Xie et al. 2019), alone and for a teacher."""

import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.learners.base import Learner
from meta_pseudo_labels.learners.checks import check_positive, check_range
from meta_pseudo_labels.learners.losses import align, consistency_loss
from meta_pseudo_labels.learners.method import register
from meta_pseudo_labels.learners.passes import (
    WEAK_PASSES,
    check_weak_pass,
    forward_views,
    view_passes,
)
from meta_pseudo_labels.learners.terms import (
    StatefulTerm,
    Term,
    TermLearner,
    TermValue,
)
from meta_pseudo_labels.utils.settings import Unread, setting


@keras.saving.register_keras_serializable("meta_pseudo_labels")
@dataclasses.dataclass(frozen=True)
class UDASettings(Term):
    """The consistency term: confident weak views as targets of strong views.

    Attributes:
      weight: of the term once its ramp is over; 0 turns it off.
      ramp_steps: steps over which the weight grows linearly from 0.
      temperature: of the weak view's logits; below 1 sharpens.
      threshold: an image counts when its largest sharpened probability is at
        least this, in [0, 1].
      num_train_steps: length of the run, for the log uda/l_ratio only (quirk
        15); None leaves that log out.
    """

    name = "uda"

    weight: float = 1.0
    ramp_steps: int = 10_000
    temperature: float = 0.75
    threshold: float = 0.6
    num_train_steps: int | None = None

    def get_config(self):
        return dataclasses.asdict(self)

    def value(self, logits, labels, *, batch, step):
        return TermValue(*consistency_term(self, logits, labels, step=step))

    def __post_init__(self):
        check_range("uda weight", self.weight, low=0, high=float("inf"))
        check_range("uda ramp_steps", self.ramp_steps, low=1, high=2**53)
        check_range("uda threshold", self.threshold, low=0, high=1)
        check_positive("uda temperature", self.temperature)


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class AlignedUDA(StatefulTerm):
    """The consistency term with distribution alignment (arXiv 1911.09785).

    The probabilities of a weak view are multiplied by the frequency of each
    class among labels over its frequency among the weak views' probabilities,
    and normalized to sum to 1, before they are sharpened. Both are averages
    over the run that start at one over the number of classes, and are updated
    before they are used.

    Args:
      decay: of the averages, in [0, 1]; 0 uses those of the batch.
      **numbers: see `UDASettings`.

    Attributes:
      settings: `UDASettings`.
      labels: average of the labels, before smoothing, [classes].
      guesses: average of the probabilities of weak views, [classes].
    """

    name = "uda"

    def __init__(self, *, decay=0.999, **numbers):
        super().__init__()
        check_range("decay", decay, low=0, high=1)
        self.settings = UDASettings(**numbers)
        self.decay = decay

    def get_config(self):
        return {**self.settings.get_config(), "decay": self.decay}

    def make_state(self, classes, dtype):
        even = 1.0 / classes
        self.labels = self.keep("labels", (classes,), even, dtype)
        self.guesses = self.keep("guesses", (classes,), even, dtype)

    def value(self, logits, labels, *, batch, step):
        said = tf.stop_gradient(tf.nn.softmax(logits.weak))
        (wanted, found), moves = self.averages(
            (self.labels, self.guesses),
            replicas.mean([tf.reduce_mean(x, axis=0) for x in (labels, said)]),
            self.decay,
        )
        aligned = tf.math.log(align(said, wanted=wanted, found=found))
        values = consistency_term(
            self.settings, logits._replace(weak=aligned), labels, step=step
        )
        return TermValue(*values, moves)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencySettings:
    """The consistency term, of uda and of the teacher in mpl."""

    absent: ClassVar = "has no consistency term."
    unread: ClassVar = (
        Unread(
            ("uda_alignment_decay",),
            "without --uda_distribution_alignment nothing is aligned.",
            when=lambda settings: not settings["uda_distribution_alignment"],
        ),
    )

    uda_weight: float = setting(1.0, "Weight of the UDA loss.", low=0)
    uda_steps: int = setting(
        10_000, "Ramp of the UDA weight from 0, in steps.", low=1
    )
    uda_temp: float = setting(
        0.75, "Temperature that sharpens weak views.", low=1e-6
    )
    uda_threshold: float = setting(
        0.6, "Minimum confidence at which a weak view counts.", low=0, high=1
    )

    uda_distribution_alignment: bool = setting(
        False,
        "Multiply the probabilities of weak views by the frequency of each "
        "class among labels over its frequency among these probabilities, both "
        "averaged over the run, and normalize them, before they are sharpened.",
    )
    uda_alignment_decay: float = setting(
        0.999,
        "Decay of the two average class distributions of "
        "--uda_distribution_alignment; 0 uses those of the batch.",
        low=0,
        high=1,
    )
    uda_weak_pass: str = setting(
        "joint",
        "How weak views pass through the network: joint, in one batch with "
        "labeled and strong ones, as in the release; or apart, which leaves "
        "out their backward pass and gives them batch statistics of their own.",
        choices=WEAK_PASSES,
    )

    def uda(self):
        """`UDASettings` with these values, or `AlignedUDA`."""
        numbers = dict(
            weight=self.uda_weight,
            ramp_steps=self.uda_steps,
            temperature=self.uda_temp,
            threshold=self.uda_threshold,
            num_train_steps=self.num_train_steps,
        )
        if self.uda_distribution_alignment:
            return AlignedUDA(decay=self.uda_alignment_decay, **numbers)
        return UDASettings(**numbers)


RELEASE_UDA = UDASettings()  # The defaults of the release's flags.


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
class UDA(TermLearner):
    """Supervised loss plus consistency on unlabeled images, the second control.

    The student learns from the labels and from itself (release `UDA.step_fn`).

    Args:
      student: see `Learner`.
      uda: `UDASettings`, or `AlignedUDA()`.
      weak_pass: see `forward_views`.
      **kwargs: see `Learner`.
    """

    settings = (ConsistencySettings,)
    term_argument = "uda"
    decay_log = "loss/weight_dec"  # The release's own spelling.

    def __init__(
        self, student, *, uda=RELEASE_UDA, weak_pass="joint", **kwargs
    ):
        check_weak_pass(weak_pass)
        if uda is None:
            raise ValueError(
                "UDA needs UDASettings; got uda=None. Leave uda out for the "
                "release's, or use Supervised."
            )
        super().__init__(student, term=uda, **kwargs)
        self.weak_pass = weak_pass

    @property
    def uda(self):
        return self.term

    @classmethod
    def from_settings(cls, settings, networks, **common):
        common["weak_pass"] = settings.uda_weak_pass
        return cls(networks.student(), uda=settings.uda(), **common)

    @classmethod
    def passes(cls, settings):
        return view_passes(settings, apart=settings.uda_weak_pass == "apart")

    def get_config(self):
        uda = keras.saving.serialize_keras_object(self.term)
        own = {"uda": uda, "weak_pass": self.weak_pass}
        return {**Learner.get_config(self), **own}  # The term as a whole.

    def view_logits(self, batch):
        """`ViewLogits` of what the student sees."""
        return forward_views(
            self.student,
            batch,
            weak_pass=self.weak_pass,
            slices=self.batch_slices,
        )
