"""`fit` under every strategy: its input, what it calls, what it counts."""

import functools
import inspect
import math

import keras
import tensorflow as tf
from absl import logging

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.learners.batch_checks import (
    batch_of,
    check_lengths,
    check_only_batch,
)
from meta_pseudo_labels.learners.checks import check_count
from meta_pseudo_labels.optimizers import parts_of
from meta_pseudo_labels.utils import compat

# A third more time in each of these is less than a hundredth overall.
_COSTLY_APART = 50


class Trainer(keras.Model):
    """A Keras model whose `fit` gives each replica its rows of every batch.

    Attributes:
      position: batches of the run's input taken so far.
      step: how many of them moved the student.
      skipped_steps: how many of them skipped a network's update.
      log_every: steps between two logged steps; see `logs_are_due`.
    """

    def __init__(self, *, log_every, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        check_count("log_every", log_every)
        self.log_every = log_every
        self.step, self.position, self.skipped_steps = (
            self.add_weight(
                name=name,
                shape=(),
                dtype="int64",
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",
            )
            for name in ("global_step", "position", "skipped_steps")
        )

    def set_step(self, step):
        """Continues counting from a step, in the learner and its optimizers.

        As if no step before it had been skipped; `skipped_steps` is kept.
        """
        self.step.assign(step)
        self.position.assign(step)
        for optimizer, _ in self.optimized():
            for part in parts_of(optimizer):
                compat.count_of(part).assign(step)

    def count_step(self, student_moved, teacher_moved=True):
        """Counts the batch, and what became of it.

        Args:
          student_moved, teacher_moved: scalar booleans, the same on all
            replicas.

        Returns:
          The log of the steps skipped so far, scalar float32.
        """
        skipped = tf.logical_not(student_moved & teacher_moved)
        self.step.assign_add(tf.cast(student_moved, tf.int64))
        self.position.assign_add(1)
        self.skipped_steps.assign_add(tf.cast(skipped, tf.int64))
        return tf.cast(self.skipped_steps.value, "float32")

    @property
    def costly_log_every(self):
        """Steps between two that compute the costly logs.

        Of the steps that are logged, those at least 50 steps apart; if every
        step is logged, every step.
        """
        if self.log_every == 1:
            return 1
        return self.log_every * math.ceil(_COSTLY_APART / self.log_every)

    def step_choices(self):
        """What `train_step` takes beside the batch, for `first_due`.

        Asked only where replicas must meet, which they cannot do in a branch of
        a step; elsewhere a step decides for itself.

        Returns:
          Pairs of keyword arguments, a dict, and a function, or None.
        """
        return [({}, None)]

    def logs_are_due(self, *, within=1):
        """Whether the next step, counted from 1, computes the costly logs.

        Args:
          within: so many steps, from each `costly_log_every`-th on, are due.

        Returns:
          Scalar boolean tensor.
        """
        return (self.step.value + 1) % self.costly_log_every < within

    def fit(self, x=None, *args, shuffle=False, **kwargs):
        """As `keras.Model.fit`, on a data set of batches as they come.

        Under a strategy each replica gets its rows of every global batch;
        a `tf.distribute.DistributedDataset` is used as it is. A data set that
        ends is repeated there until all steps of all epochs are taken. Logs a
        line if more than half of the steps were skipped.

        Raises:
          ValueError: for arrays of different lengths; if there are several
            replicas, for input of another kind, or that they cannot share.
        """
        if isinstance(x, dict):
            check_lengths(x)
        strategy = self.distribute_strategy
        if strategy.num_replicas_in_sync > 1:
            # Late: with one replica it is not needed.
            from meta_pseudo_labels.distribute import splitting

            x, kwargs = splitting.shared(strategy, x, shuffle=shuffle, **kwargs)
        elif inspect.isgenerator(x):  # Of which Keras takes tuples only.
            x = (data if isinstance(data, tuple) else (data,) for data in x)
        _tell_of_overshoot(self, kwargs.get("steps_per_epoch"))
        before = self._counts()
        history = super().fit(x, *args, shuffle=shuffle, **kwargs)
        given = callbacks_of(kwargs.get("callbacks"))
        if not any(getattr(x, "tells_of_skipped", False) for x in given):
            self._tell_of_skipped(since=before)
        return history

    def _tell_of_skipped(self, *, since):
        taken, skipped = (
            now - then for now, then in zip(self._counts(), since, strict=True)
        )
        if skipped > taken / 2:
            logging.warning(
                "%d of %d steps were skipped: their gradients were not finite. "
                "Look for NaN in the images, or use a lower learning rate.",
                skipped,
                taken,
            )

    def _counts(self):
        """Batches taken, and how many of these were skipped."""
        return int(self.position.numpy()), int(self.skipped_steps.numpy())

    def train_on_batch(
        self, x, y=None, sample_weight=None, class_weight=None, **kwargs
    ):
        """As `keras.Model.train_on_batch`, of one batch: a dict.

        Raises:
          ValueError: for anything that belongs into the batch.
        """
        check_only_batch(
            y=y, sample_weight=sample_weight, class_weight=class_weight
        )
        return super().train_on_batch(x, **kwargs)

    def save(self, *args, **kwargs):
        """As Keras's, which opens the file before it asks what to write."""
        self.get_config()  # A refusal must not cost an earlier file.
        super().save(*args, **kwargs)

    def load_own_variables(self, store):
        """As Keras's, which refuses keys beside the variables' numbers."""
        super().load_own_variables(
            {key: store[key] for key in store.keys() if key.isdigit()}
        )

    def make_train_function(self, force=False):
        """Makes what `fit` calls; see `build_train_function`."""
        if self.train_function is None or force:
            self.train_function = build_train_function(self)

    def get_metrics_result(self):
        """The metrics of `evaluate`; none before it has run.

        Keras asks after every epoch of training too, when they are not built
        yet: training logs what `train_step` returns.
        """
        if compat.unbuilt_metrics(self):
            return {}
        return super().get_metrics_result()

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Does nothing: the models are built, and a batch is not an input here.

        A private hook of Keras; tests/utils/compat_test.py checks that it is
        still called.
        """


def _tell_of_overshoot(learner, steps):
    """Logs a line if executions take more steps than an epoch has."""
    per_execution = learner.steps_per_execution
    if steps and steps % per_execution:
        logging.warning(
            "%d steps per epoch are no multiple of steps_per_execution=%d: an "
            "epoch takes %d if there are data; compile with a divisor of %d.",
            steps,
            per_execution,
            math.ceil(steps / per_execution) * per_execution,
            steps,
        )


def first_due(choices, run):
    """The result of `run` with the first choice that is due.

    Args:
      choices: pairs of a choice and a function that says whether it is due, a
        scalar boolean tensor; None for the last, which is if no other is.
      run: a function of a choice; all results have the same structure.
    """
    (choice, is_due), *others = choices
    if is_due is None:
        return run(choice)
    return tf.cond(
        is_due(), lambda: run(choice), lambda: first_due(others, run)
    )


def callbacks_of(given):
    """A list of the callbacks that somebody gave to something like `fit`.

    Args:
      given: None, one callback, a nest of several, or Keras's list of them.
    """
    given = getattr(given, "callbacks", given)
    return keras.tree.flatten(given) if given else []


def build_train_function(learner):
    """A function from an iterator to the logs of the last step it took.

    Keras's own fails if several workers return scalars (keras-team/keras
    issue 20585). Here the logs are those of the first replica: learners reduce
    them, so all are equal.

    Args:
      learner: a compiled `Learner`.
    """
    train_on = _step_on_all_replicas(learner)
    steps = learner.steps_per_execution

    def train(iterator):
        logs = train_on(batch_of(next(iterator)))
        for _ in range(steps - 1):
            try:
                batch = next(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):
                break
            logs = train_on(batch_of(batch))
        return logs

    def train_in_graph(iterator, endless):
        logs = train_on(batch_of(next(iterator)))
        if steps == 1:
            return logs

        def train_further(step, logs):
            if endless:  # To ask for the end would cost copies.
                return step + 1, train_on(batch_of(next(iterator)))
            following = iterator.get_next_as_optional()
            return tf.cond(
                following.has_value(),
                lambda: (step + 1, train_on(_batch_in(following, iterator))),
                lambda: (steps, logs),
            )

        return tf.while_loop(
            lambda step, logs: step < steps, train_further, [1, logs]
        )[1]

    if learner.run_eagerly:
        return train
    # TPUs compile what a strategy runs there, not what calls it.
    is_tpu = isinstance(learner.distribute_strategy, tf.distribute.TPUStrategy)
    train_on = tf.function(
        train_on,
        autograph=False,
        jit_compile=learner.jit_compile and not is_tpu,
    )
    in_graph = tf.function(train_in_graph, autograph=False)

    def train_any(data):
        if inspect.isgenerator(data):
            return train(data)
        # An argument: TensorFlow takes both kinds of iterators for one.
        return in_graph(data, compat.never_ends(data))

    return train_any


def _batch_in(following, iterator):
    """The batch in an optional of an iterator.

    Of several replicas, TensorFlow forgets there how many rows each one gets.
    """
    batch = following.get_value()
    parts, specs = (
        tf.nest.flatten(each, expand_composites=True)
        for each in (batch, iterator.element_spec)
    )
    parts = [
        tf.ensure_shape(part, spec.shape)
        for part, spec in zip(parts, specs, strict=True)
    ]
    batch = tf.nest.pack_sequence_as(batch, parts, expand_composites=True)
    return batch_of(batch)


def _step_on_all_replicas(learner):
    """A function from what a strategy feeds in a step to the step's logs."""
    strategy = learner.distribute_strategy
    with strategy.scope():
        meet = replicas.merges()

    def step(batch, **choices):
        if learner.width_splits > 1:
            batch = _split_by_width(strategy, batch, learner.width_splits)
        # Otherwise what needs no part of it, such as counters, would still move
        # when the data ends.
        with tf.control_dependencies(
            [tf.identity(x) for x in tf.nest.flatten(batch)]
        ):
            return learner.train_step(batch, **choices)

    def run(batch, **choices):
        logs = strategy.run(functools.partial(step, **choices), args=(batch,))
        return tf.nest.map_structure(
            lambda log: strategy.experimental_local_results(log)[0], logs
        )

    def run_choice(batch):
        return first_due(
            learner.step_choices(), lambda choices: run(batch, **choices)
        )

    return run_choice if meet else run


def _split_by_width(strategy, batch, splits):
    """Spreads images, [.., height, width, channels], over cores of a replica.

    The release's use_xla_sharding; only TPUs have replicas of several cores.
    """

    def split(x):
        if x.shape.rank != 4:
            return x
        return strategy.experimental_split_to_logical_devices(
            x, [1, 1, splits, 1]
        )

    return tf.nest.map_structure(split, batch)
