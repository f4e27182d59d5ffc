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
from meta_pseudo_labels.utils.settings import Unread, setting

WEAK_PASSES = ("joint", "apart")


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

    uda_weak_pass: str = setting(
        "joint",
        "How weak views pass: joint, in one batch with labeled and strong "
        "ones, as in the release; or apart, which leaves out their backward "
        "pass, and gives them batch statistics of their own.",
        choices=WEAK_PASSES,
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
    """Logits of the views, each [.., classes]; weak None where unused."""

    labeled: tf.Tensor
    weak: tf.Tensor | None
    strong: tf.Tensor


def forward_views(model, batch, *, weak_pass="joint", **settings):
    """Training-mode logits of labeled, weak and strong views (quirk 1).

    Args:
      model: see `passes.forward`.
      batch: see `Learner`.
      weak_pass: "joint", or "apart": weak views pass first and alone, with
        moments of their own, and no gradient goes back through them.
      **settings: of `passes.forward_together`.
    """
    views = (batch["labeled"], batch["weak"], batch["strong"])
    if weak_pass == "joint":
        return ViewLogits(*forward_together(model, *views, **settings))
    labeled, weak, strong = views
    (weak,) = forward_together(model, weak, **settings)
    labeled, strong = forward_together(model, labeled, strong, **settings)
    return ViewLogits(labeled, tf.stop_gradient(weak), strong)


def view_passes(settings, *, apart):
    """The passes of `forward_views`, see `Method.passes`."""
    if not apart:
        return {1 + 2 * settings.uda_data}
    return {1 + settings.uda_data, settings.uda_data}


def check_weak_pass(weak_pass):
    """Raises ValueError for what `forward_views` does not know."""
    if weak_pass not in WEAK_PASSES:
        raise ValueError(
            f"weak_pass is {weak_pass!r}; choose one of "
            f"{', '.join(WEAK_PASSES)}."
        )


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
      **kwargs: those of the term, and of `Learner`.

    Attributes:
      term_type: the kind of `Term`.

    Raises:
      ValueError: as `Learner`, and for a number of the term's out of range.
    """

    term_type = Term

    def __init__(self, student, **kwargs):
        own = {f: kwargs.pop(f) for f in self.term_type.fields if f in kwargs}
        super().__init__(student, **kwargs)
        self.term = self.term_type(**own)
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
        return self.take_step(tape, loss, logs, moves=term.moves)


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
        but=("uda_data",),
    )


@register("uda")
@keras.saving.register_keras_serializable("meta_pseudo_labels")
class UDA(Learner):
    """Supervised plus consistency on unlabeled images, the second control.

    The student learns from the labels and from itself (release `UDA.step_fn`).

    Args:
      student: see `Learner`.
      uda: `UDASettings`.
      weak_pass: see `forward_views`.
      **kwargs: see `Learner`.
    """

    settings = (ConsistencySettings,)

    def __init__(
        self, student, *, uda=RELEASE_UDA, weak_pass="joint", **kwargs
    ):
        super().__init__(student, **kwargs)
        check_weak_pass(weak_pass)
        self.weak_pass = weak_pass
        if uda is None:
            raise ValueError(
                "UDA needs UDASettings; got uda=None. Leave uda out for the "
                "release's, or use Supervised."
            )
        self.uda = uda

    @classmethod
    def from_settings(cls, settings, networks, **common):
        common["weak_pass"] = settings.uda_weak_pass
        return cls(networks.student(), uda=settings.uda(), **common)

    @classmethod
    def passes(cls, settings):
        return view_passes(settings, apart=settings.uda_weak_pass == "apart")

    def get_config(self):
        uda = keras.saving.serialize_keras_object(self.uda)
        own = {"uda": uda, "weak_pass": self.weak_pass}
        return {**super().get_config(), **own}

    def train_step(self, batch):
        """One update of the student on both losses."""
        self.check_batch(batch)
        with tf.GradientTape() as tape:
            logits = forward_views(
                self.student,
                batch,
                weak_pass=self.weak_pass,
                slices=self.batch_slices,
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
