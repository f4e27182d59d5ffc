"""Unsupervised Data Augmentation (Xie et al. 2019), alone and for a teacher."""

import dataclasses
from typing import ClassVar, NamedTuple

import keras
import tensorflow as tf

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.learners.base import Learner
from meta_pseudo_labels.learners.checks import check_positive, check_range
from meta_pseudo_labels.learners.losses import align, consistency_loss
from meta_pseudo_labels.learners.passes import (
    WEAK_PASSES,
    check_weak_pass,
    forward_views,
    label_probabilities,
    own_losses,
    view_passes,
)
from meta_pseudo_labels.learners.registry import register
from meta_pseudo_labels.utils.settings import Unread, setting


class TermValue(NamedTuple):
    """A term in one step.

    Attributes:
      weighted: what it adds to the loss, scalar.
      loss: its cross-entropy before weighting, scalar, nats.
      logs: a dict of scalars.
      moves: pairs of a variable and its next value, for `updates.move`.
    """

    weighted: tf.Tensor
    loss: tf.Tensor
    logs: dict
    moves: tuple = ()


class Term:
    """What a network asks of two views of unlabeled images.

    All that some methods have beside the labels, and what the teacher in mpl
    has beside labels and feedback.

    Attributes:
      name: that of the method.
      fields: its numbers; the setting of each is "<name>_<field>".
      batch_keys: what a batch must hold for it, see `Learner`.
    """

    name = "uda"
    fields = ()
    batch_keys = ("labeled", "labels", "weak", "strong")

    @classmethod
    def arguments(cls, settings, networks):
        """What it is made with, a dict, see `Method.from_settings`."""
        return {f: getattr(settings, f"{cls.name}_{f}") for f in cls.fields}

    def get_config(self):
        return {field: getattr(self, field) for field in self.fields}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def prepare(self, network, dtype):
        """Makes its state, if it has any, for the network that learns it."""

    def value(self, logits, labels, *, batch, step):
        """`TermValue` of a step, with one state for all replicas.

        Args:
          logits: `ViewLogits` of the network that learns.
          labels: probabilities of the labeled images, [batch, classes].
          batch: a dict, see `Learner`; of this replica.
          step: scalar integer, before this step's increment.
        """
        raise NotImplementedError


class StatefulTerm(Term, keras.layers.Layer):
    """A term with a state, which is saved with its learner."""

    def __init__(self):
        keras.layers.Layer.__init__(self, name=self.name)

    def prepare(self, network, dtype):
        """See `Term`.

        Raises:
          ValueError: for a second network, or one that does not say how many
            classes it has.
        """
        classes = getattr(network, "output_shape", (None,))[-1]
        if classes is None:
            raise ValueError(
                f"{type(self).__name__} keeps a number for each class, and "
                f"{network.name!r} does not say how many there are; use a "
                "functional or a Sequential model."
            )
        if self.built:
            raise ValueError(
                f"Give each learner a {type(self).__name__} of its own."
            )
        self.make_state(classes, dtype)
        self.built = True

    def make_state(self, classes, dtype):
        """Adds the variables, with `keep`."""
        raise NotImplementedError

    def keep(self, name, shape, value, dtype):
        """A variable of the state, filled with a value."""
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            # Keras's Constant would round a float64 to float32.
            initializer=lambda shape, dtype: tf.fill(
                shape, tf.constant(value, dtype)
            ),
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    @staticmethod
    def averages(state, means, decay):
        """What variables of the state become as they average further means.

        Returns:
          The new values in order, and the pairs that `TermValue.moves` takes.
        """
        values = [
            decay * average + (1.0 - decay) * mean
            for average, mean in zip(state, means, strict=True)
        ]
        return values, tuple(zip(state, values, strict=True))


@keras.saving.register_keras_serializable("meta_pseudo_labels")
@dataclasses.dataclass(frozen=True)
class UDASettings(Term):
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

    What a weak view says is multiplied by how frequent each class is among
    labels over how frequent it is among what weak views say, and made a
    distribution again, before it is sharpened. Both are averages over the run
    that begin at one over the number of classes, and move before they are
    used.

    Args:
      decay: of the averages, in [0, 1]; 0 takes those of the batch.
      **numbers: see `UDASettings`.

    Attributes:
      settings: `UDASettings`.
      labels: average of the labels, [classes]; not of smoothed ones.
      guesses: average of the probabilities of weak views, [classes].
    """

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
        0.6, "Confidence from which a weak view counts.", low=0, high=1
    )

    uda_distribution_alignment: bool = setting(
        False,
        "Multiply what weak views say by how frequent each class is among "
        "labels over how frequent it is among what they say, over the run, and "
        "make it a distribution again, before it is sharpened.",
    )
    uda_alignment_decay: float = setting(
        0.999,
        "Decay of the two average class distributions of "
        "--uda_distribution_alignment; 0 takes those of the batch.",
        low=0,
        high=1,
    )
    uda_weak_pass: str = setting(
        "joint",
        "How weak views pass: joint, in one batch with labeled and strong "
        "ones, as in the release; or apart, which leaves out their backward "
        "pass, and gives them batch statistics of their own.",
        choices=WEAK_PASSES,
    )

    def uda(self):
        """`UDASettings` of these, or `AlignedUDA`."""
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


class TermLearner(Learner):
    """Labels, and one term of unlabeled images.

    Args:
      student: see `Learner`.
      term: `Term`; by default one of `term_type`, of numbers among `kwargs`.
      **kwargs: those of the term, and of `Learner`.

    Attributes:
      term_type: the kind of `Term`.
      decay_log: see `Learner.take_step`.

    Raises:
      ValueError: as `Learner`, and for a number of the term's out of range.
    """

    term_type = Term
    decay_log = None

    def __init__(self, student, *, term=None, **kwargs):
        own = {f: kwargs.pop(f) for f in self.term_type.fields if f in kwargs}
        super().__init__(student, **kwargs)
        self.term = term or self.term_type(**own)
        self.term.prepare(student, self.float_type)

    @classmethod
    def from_settings(cls, settings, networks, **common):
        own = cls.term_type.arguments(settings, networks)
        return cls(networks.student(), **own, **common)

    def get_config(self):
        return {**super().get_config(), **self.term.get_config()}

    def view_logits(self, batch):
        """`ViewLogits` of what the student sees."""
        return forward_views(self.student, batch, slices=self.batch_slices)

    def train_step(self, batch):
        """One update of the student on both losses."""
        self.check_batch(batch)
        with tf.GradientTape() as tape:
            logits = self.view_logits(batch)
            labels = label_probabilities(batch["labels"], logits.labeled)
            on_labeled = self.labeled_loss(labels, logits.labeled, batch)
            term = self.term.value(
                logits, labels, batch=batch, step=self.step.value
            )
            loss = on_labeled + term.weighted + own_losses(self.student)
        logs = {
            "loss/cross_entropy": on_labeled,
            f"{self.term.name}/cross_entropy": term.loss,
            **term.logs,
        }
        return self.take_step(
            tape, loss, logs, decay_log=self.decay_log, moves=term.moves
        )


def in_place_of_uda(group):
    """The rule that a method reads a group of settings, and not those of uda.

    Args:
      group: of settings, whose names begin with that of the method.
    """
    flags = [f"--{field.name}" for field in dataclasses.fields(group)]
    method = flags[0].split("_")[0].removeprefix("--")
    return Unread(
        ("uda_",),
        f"--method={method} has {', '.join(flags[:-1])} and {flags[-1]} in "
        "its place.",
        but=("uda_data", "uda_data_growth_steps"),
    )


@register("uda")
@keras.saving.register_keras_serializable("meta_pseudo_labels")
class UDA(TermLearner):
    """Supervised plus consistency on unlabeled images, the second control.

    The student learns from the labels and from itself (release `UDA.step_fn`).

    Args:
      student: see `Learner`.
      uda: `UDASettings`, or `AlignedUDA()`.
      weak_pass: see `forward_views`.
      **kwargs: see `Learner`.
    """

    settings = (ConsistencySettings,)
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
