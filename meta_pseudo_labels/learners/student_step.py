"""The student's step on pseudo labels, and what it leaves for the feedback."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
from absl import logging

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.learners import updates
from meta_pseudo_labels.learners.checks import check_same_classes
from meta_pseudo_labels.learners.losses import (
    mean_cross_entropy,
    smooth_labels,
    weights_of,
)
from meta_pseudo_labels.learners.passes import (
    forward,
    forward_together,
    gradients_of,
    label_probabilities,
    own_losses,
)
from meta_pseudo_labels.optimizers import (
    check_differentiable,
    learning_rate_of,
    parts_of,
    update_pullback,
    update_rates,
)


# Without ==, each has a hash, which a tf.function needs for its arguments.
@dataclasses.dataclass(frozen=True, eq=False)
class StudentStep:
    """What the student's step leaves for an estimator to use.

    A change below is one of the labeled loss, new - old: negative if the pseudo
    labels made the student better. "Labeled" refers to the images on which the
    student is judged, those of a held-out split if the batch has one. Losses,
    gradients and changes are those of the global batch.

    Attributes:
      pseudo_labels: what the student trained on, [unlabeled, classes]; of
        this replica.
      learning_rate: of the student's update, scalar.
      moved: whether the student moved, scalar boolean; it does not if the
        gradient is not finite, nor while gradients are accumulated.
      labeled_loss_old: cross-entropy on the labeled batch before the update,
        scalar, nats, no label smoothing.
      labeled_loss_new: the same after the update.
      dot_product: new - old less its moving average, scalar, nats. The release
        logs it under this name.
      label_gradient: computes d(new labeled loss) / d(pseudo labels),
        [unlabeled, classes], through the student's whole update; for this
        replica's labels.
      gradients: computes the student's gradient on the pseudo labels (and on
        labels, if it learns these too), before weight decay and clipping,
        and d(new labeled loss) / d(student); two lists of tensors, one per
        trainable weight.
      first_order_change: computes the change as the product of these two
        gradients and the rates of the update, for SGD minus the learning rate;
        see `update_rates`. Clipping is left out. Scalar, nats.
      center: subtracts from a change, scalar or [unlabeled], the moving average
        of the means of earlier changes; call it once per step.
      taken: whether the optimizer took the student's gradient, scalar boolean.
      scale: of the loss, which may be too large for the feedback; or None.
    """

    pseudo_labels: tf.Tensor
    learning_rate: tf.Tensor
    moved: tf.Tensor
    labeled_loss_old: tf.Tensor
    labeled_loss_new: tf.Tensor
    dot_product: tf.Tensor
    label_gradient: Callable[[], tf.Tensor]
    gradients: Callable[[], tuple[list, list]]
    first_order_change: Callable[[], tf.Tensor]
    center: Callable[[tf.Tensor], tf.Tensor]
    taken: tf.Tensor | bool = True
    scale: tf.Tensor | None = None

    def heard(self):
        """Whether its labels moved the student, so that they have a feedback.

        Otherwise the change of its loss would be noise, mostly of batch norm.
        """
        return self.moved & (self.learning_rate > 0)


def check_update_derivative(learner):
    """Refuses an optimizer whose update a feedback cannot differentiate.

    Logs a line where nothing checks the layers.

    Args:
      learner: `MetaPseudoLabels`, compiled with the student's optimizer.

    Raises:
      ValueError: see `optimizers.check_differentiable`.
    """
    name = getattr(learner.feedback, "__name__", str(learner.feedback))
    check_differentiable(learner.optimizer, f"feedback={name!r}")
    several = learner.distribute_strategy.num_replicas_in_sync > 1
    if learner.run_eagerly and several:
        logging.warning(
            "With run_eagerly and several replicas nothing checks for layers "
            "without a second derivative, whose part of feedback=%r is lost; "
            "train a step without run_eagerly.",
            name,
        )


def check_moves_always(optimizer, every):
    """Refuses an optimizer that moves the student in some calls only.

    The steps with feedback might all be others.

    Args:
      optimizer: the student's.
      every: steps from one feedback to the next, more than 1.

    Raises:
      ValueError: if it accumulates gradients.
    """
    for part in parts_of(optimizer):
        if count := part.gradient_accumulation_steps:
            raise ValueError(
                f"feedback_every={every} with gradient_accumulation_steps="
                f"{count} of the student's {type(part).__name__}: feedback "
                "needs steps that move the student. Leave one of them out."
            )


def take_student_step(learner, batch, *, pseudo_labels):
    """The student learns the pseudo labels; its labeled loss moves.

    Args:
      learner: `MetaPseudoLabels`, whose student moves.
      batch: see `Learner`.
      pseudo_labels: of the strong views, [unlabeled, classes].

    Returns:
      A `StudentStep`, and a dict of logs.
    """
    # Before any gradient, as TensorFlow lacks some derivatives of gradients.
    from meta_pseudo_labels.models import second_derivative

    judged, labels, key = _judged_on(batch)
    learn = functools.partial(_learn, learner, batch, judged)
    learned = learn(pseudo_labels)
    labels = label_probabilities(labels, learned.judged_logits)
    weights = weights_of(batch, key, learned.judged_logits)
    old = mean_cross_entropy(labels, learned.judged_logits, weights)
    learning_rate = learning_rate_of(learner.optimizer)
    derivative, applied = _apply(learner, learned)
    new_tape, new = _judge(learner, judged, labels, weights)
    slopes = _Slopes(
        student=learner.student,
        learned=learned,
        new_loss=(new_tape, new),
        derivative=derivative,
        check=functools.partial(
            second_derivative.check, learner, learn, learned
        ),
    )
    old, new, cross_entropy = replicas.mean([old, new, learned.cross_entropy])
    dot_product = learner.baseline.center(new - old, counts=applied.moved)
    logs = {
        "cross_entropy/student_on_u": cross_entropy,
        "cross_entropy/student_on_l": new,
        "cross_entropy/student_on_l_old": old,
        "lr/student": learning_rate,
        "mpl/dot_product": dot_product,
        "mpl/moving_dot_product": learner.baseline.average.value,
    }
    step = StudentStep(
        pseudo_labels=pseudo_labels,
        learning_rate=learning_rate,
        moved=applied.moved,
        labeled_loss_old=old,
        labeled_loss_new=new,
        dot_product=dot_product,
        label_gradient=slopes.label_gradient,
        gradients=slopes.gradients,
        first_order_change=slopes.first_order_change,
        center=functools.partial(
            learner.estimator_baseline.subtract, counts=applied.moved
        ),
        taken=applied.taken,
        scale=learned.scale,
    )
    return step, logs


def logs_of_waiting(learner):
    """The logs of `take_student_step` when no step is taken."""
    unknown = tf.constant(math.nan, learner.float_type)
    return {
        "cross_entropy/student_on_u": unknown,
        "cross_entropy/student_on_l": unknown,
        "cross_entropy/student_on_l_old": unknown,
        "lr/student": learning_rate_of(learner.optimizer),
        "mpl/dot_product": unknown,
        "mpl/moving_dot_product": learner.baseline.average.value,
    }


class _Learned(NamedTuple):
    """The student's pass over pseudo labels, before its update.

    Attributes:
      tape: from the pseudo labels to `prepared`.
      pseudo_labels: [unlabeled, classes].
      cross_entropy: on the pseudo labels, of this replica, scalar.
      judged_logits: of the images on which the student is judged.
      gradients: one per trainable weight, means over replicas.
      prepared: the same, decayed and clipped, to be applied.
      norm: of the gradients before clipping, scalar.
      scale: of the loss, see `updates.loss_scale`.
    """

    tape: tf.GradientTape
    pseudo_labels: tf.Tensor
    cross_entropy: tf.Tensor
    judged_logits: tf.Tensor
    gradients: list
    prepared: list
    norm: tf.Tensor
    scale: tf.Tensor | None


def _learn(learner, batch, judged, pseudo_labels):
    """`_Learned` of one joint pass over strong views and judged images.

    Over the labeled images too if the student learns from labels, unless it is
    judged on these.
    """
    learns_labels = learner.student_labeled_weight > 0
    inputs = [batch["strong"], judged]
    if learns_labels and "feedback" in batch:
        inputs.append(batch["labeled"])
    student, scale = learner.student, updates.loss_scale(learner.optimizer)
    # Derivatives with respect to the labels only: for the weights, replicas
    # would compute, and reduce, what nobody asks for.
    with tf.GradientTape(watch_accessed_variables=False) as label_tape:
        label_tape.watch(pseudo_labels)
        with tf.GradientTape() as tape:
            logits = forward_together(
                student, *inputs, slices=learner.batch_slices
            )
            strong_logits, judged_logits = logits[:2]
            check_same_classes(
                student=strong_logits.shape[-1], teacher=pseudo_labels.shape[-1]
            )
            targets = smooth_labels(pseudo_labels, learner.label_smoothing)
            cross_entropy = mean_cross_entropy(targets, strong_logits)
            loss = cross_entropy + own_losses(student)
            if learns_labels:
                labeled = logits[-1]
                labels = label_probabilities(batch["labels"], labeled)
                loss += learner.student_labeled_weight * learner.labeled_loss(
                    labels, labeled, batch
                )
        gradients = gradients_of(tape, loss, student, scale=scale)
        gradients = replicas.mean(gradients)
        prepared, norm = learner.prepare_gradients(gradients, student)
    return _Learned(
        tape=label_tape,
        pseudo_labels=pseudo_labels,
        cross_entropy=cross_entropy,
        judged_logits=judged_logits,
        gradients=gradients,
        prepared=prepared,
        norm=norm,
        scale=scale,
    )


class _Derivative(NamedTuple):
    """Functions of an update, see `update_pullback` and `update_rates`."""

    pullback: Callable
    rates: Callable


def _apply(learner, learned):
    """Moves the student; the update's `_Derivative`, and `updates.Applied`."""
    variables = learner.student.trainable_variables
    update = learner.optimizer, learned.prepared, variables
    derivative = _Derivative(update_pullback(*update), update_rates(*update))
    return derivative, updates.apply_gradients(*update, norm=learned.norm)


def _judge(learner, judged, labels, weights):
    """The tape, and the judged loss with the current weights, scalar."""
    with tf.GradientTape() as tape:
        logits = forward(
            learner.student,
            judged,
            update_moments=False,
            slices=learner.batch_slices,
        )
        loss = mean_cross_entropy(labels, logits, weights)
    return tape, loss


class _Slopes:
    """The derivatives of a student's step, each computed when it is asked for.

    Args:
      student: the one that took the step.
      learned: `_Learned`.
      new_loss: the tape and the labeled loss after the step, of this replica.
      derivative: of its update, a `_Derivative`.
      check: a function to call before the labels' gradient is computed.
    """

    def __init__(self, *, student, learned, new_loss, derivative, check):
        self._check = check
        self._student = student
        self._learned = learned
        self._new_loss = new_loss
        self._derivative = derivative
        # Tapes give their gradient once. Not cached_property: its lock is
        # shared by the class, and replicas, traced in threads, meet within.
        self._new_gradients = functools.cache(self._compute_new_gradients)
        self.label_gradient = functools.cache(self._compute_label_gradient)
        self.gradients = functools.cache(self._compute_gradients)

    def _compute_new_gradients(self):
        """d(new labeled loss) / d(student), of this replica's images alone."""
        tape, new = self._new_loss
        return gradients_of(tape, new, self._student, scale=self._learned.scale)

    def _compute_label_gradient(self):
        # The mean over replicas is on the tape, and its transpose takes that of
        # the new gradients. The result is for the sum of all replicas' new
        # losses, where one replica has each.
        upstream = self._derivative.pullback(self._new_gradients())
        factor = self._upstream_factor(upstream)
        if factor is not None:
            upstream = [u * tf.cast(factor, u.dtype) for u in upstream]
        self._check()
        gradient = self._learned.tape.gradient(
            self._learned.prepared, self._learned.pseudo_labels, upstream
        )
        gradient /= replicas.count()
        return gradient if factor is None else gradient / factor

    def _upstream_factor(self, upstream):
        """Brings what passes back through 16-bit floats to a norm of 16.

        It includes the loss scale, as the prepared gradients are divided by
        that. None without a loss scale.
        """
        scale = self._learned.scale
        if scale is None:
            return None
        squares = tf.add_n([tf.nn.l2_loss(u) for u in upstream])
        norm = tf.sqrt(2.0 * replicas.mean(squares))
        scale = tf.cast(scale, norm.dtype)
        return tf.where(norm > 0, 16.0 * scale / norm, scale)

    def _compute_gradients(self):
        return self._learned.gradients, replicas.mean(self._new_gradients())

    def first_order_change(self):
        gradients, new_gradients = self.gradients()
        parts = zip(
            self._derivative.rates(), new_gradients, gradients, strict=True
        )
        return tf.add_n(
            [
                tf.reduce_sum(rate * upstream * gradient)
                for rate, upstream, gradient in parts
            ]
        )


def _judged_on(batch):
    """What the student is judged on: inputs, labels, the weights' key."""
    if "feedback" in batch:
        key = "feedback_sample_weight"
        return batch["feedback"], batch["feedback_labels"], key
    return batch["labeled"], batch["labels"], "sample_weight"
