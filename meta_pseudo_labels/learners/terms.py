"""The loss term of a method on unlabeled images, besides that of labels."""

import dataclasses
from typing import NamedTuple

import keras
import tensorflow as tf

from meta_pseudo_labels.learners.base import Learner
from meta_pseudo_labels.learners.passes import (
    forward_views,
    label_probabilities,
    own_losses,
)
from meta_pseudo_labels.utils.settings import Unread


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
    """A loss term on two views of unlabeled images.

    It is all that some methods have besides the labels, and what the teacher in
    mpl has besides labels and feedback.

    Attributes:
      name: that of the method.
      fields: its numbers; the setting of each is "<name>_<field>".
      batch_keys: what a batch must hold for it, see `Learner`.
    """

    name = "term"
    fields = ()
    batch_keys = ("labeled", "labels", "weak", "strong")

    @classmethod
    def arguments(cls, settings, networks):
        """Arguments to make it with, a dict, see `Method.from_settings`."""
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
          ValueError: for a second network, or one whose number of classes is
            not known.
        """
        classes = getattr(network, "output_shape", (None,))[-1]
        if classes is None:
            raise ValueError(
                f"{type(self).__name__} keeps a number for each class, but "
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
        """The next values of state variables that average further means.

        Returns:
          The new values in order, and the pairs that `TermValue.moves` takes.
        """
        values = [
            decay * average + (1.0 - decay) * mean
            for average, mean in zip(state, means, strict=True)
        ]
        return values, tuple(zip(state, values, strict=True))


def check_term(term, *, kind=Term, name):
    """Refuses what is no term, or one of another kind.

    Args:
      term: what a user gave.
      kind: the kind of `Term`.
      name: of the argument.

    Raises:
      ValueError: see above.
    """
    if isinstance(term, kind):
        return
    example = "UDASettings()" if kind is Term else f"{kind.__name__}()"
    if isinstance(term, type) and issubclass(term, kind):
        example = f"{term.__name__}()"
    raise ValueError(
        f"{name} must be a term, such as {example}; got {term!r:.80}."
    )


class TermLearner(Learner):
    """Learns labels, and one term on unlabeled images.

    Args:
      student: see `Learner`.
      term: `Term`; by default a `term_type`, with numbers from `kwargs`.
      **kwargs: those of the term, and of `Learner`.

    Attributes:
      term_type: the kind of `Term`.
      term_argument: what users know the term by.
      decay_log: see `Learner.take_step`.

    Raises:
      ValueError: as `Learner`, for another kind of term, and for a number of
        the term that is out of range, or given beside a term.
    """

    term_type = Term
    term_argument = "term"
    decay_log = None

    def __init__(self, student, *, term=None, **kwargs):
        own = {f: kwargs.pop(f) for f in self.term_type.fields if f in kwargs}
        super().__init__(student, **kwargs)
        if term is not None and own:
            raise ValueError(
                f"{type(self).__name__} got a term and {', '.join(own)}, which "
                "the term has already; give one of them."
            )
        if term is None:
            term = self.term_type(**own)
        check_term(term, kind=self.term_type, name=self.term_argument)
        self.term = term
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
      group: of settings, whose names begin with the method's.
    """
    flags = [f"--{field.name}" for field in dataclasses.fields(group)]
    method = flags[0].split("_")[0].removeprefix("--")
    return Unread(
        ("uda_",),
        f"--method={method} has {', '.join(flags[:-1])} and {flags[-1]} "
        "instead.",
        but=("uda_data", "uda_data_growth_steps"),
    )
