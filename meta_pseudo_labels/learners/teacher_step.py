"""The teacher's step: what it learns, and what it hears from its student."""

from typing import NamedTuple

import tensorflow as tf

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.learners import updates
from meta_pseudo_labels.learners.checks import checked_loss
from meta_pseudo_labels.learners.passes import gradients_of
from meta_pseudo_labels.utils.settings import ConfigError


class TeacherLoss(NamedTuple):
    """What a teacher learns besides the feedback in one step.

    Attributes:
      loss: scalar, nats.
      logs: a dict of scalars.
      moves: pairs of a variable and its next value, for `updates.move`.
    """

    loss: tf.Tensor
    logs: dict
    moves: tuple = ()


def checked_teacher_loss(learner, batch, logits):
    """`MetaPseudoLabels.teacher_loss`, after a check of an override's result.

    Raises:
      ConfigError: if that is no `TeacherLoss`.
    """
    learned = learner.teacher_loss(batch, logits)
    if not isinstance(learned, TeacherLoss):
        raise ConfigError(
            f"{type(learner).__name__}.teacher_loss must return a "
            f"learners.TeacherLoss, got {type(learned).__name__}: change "
            "the result of super().teacher_loss(batch, logits) with "
            "_replace, see docs/extending.md."
        )
    return learned


def weighted_feedback(learner, student_step, label_logits, tape):
    """The feedback's part of the teacher's loss; 0 where no step is heard.

    Args:
      learner: `MetaPseudoLabels`.
      student_step: `StudentStep`.
      label_logits: what became pseudo labels, [unlabeled, classes].
      tape: a persistent one that records these logits.

    Returns:
      A scalar, of this replica.
    """
    feedback = checked_loss(
        learner.feedback, student_step, label_logits, tape, learner=learner
    )
    feedback *= learner.feedback_weight * learner.feedback_every
    return tf.where(student_step.heard(), feedback, tf.zeros_like(feedback))


def take_teacher_step(
    learner, tape, learned, *, feedback=None, student_step=None, costly=None
):
    """The teacher learns.

    Args:
      learner: `MetaPseudoLabels`, whose teacher moves.
      tape: that recorded the loss; a persistent one if there is feedback.
      learned: `TeacherLoss`, whose loss includes the feedback.
      feedback: its part of the loss, scalar; None if there is none.
      student_step: the `StudentStep` before it; None if the student waits.
      costly: see `MetaPseudoLabels.train_step`.

    Returns:
      Whether the optimizer took the gradient, scalar boolean; a dict of logs.
    """
    optimizer = learner.teacher_optimizer
    scale = updates.loss_scale(optimizer)
    gradients = gradients_of(tape, learned.loss, learner.teacher, scale=scale)
    ratio, condition = learner.feedback_grad_ratio.value, True
    if student_step is not None:
        condition = student_step.taken
    if feedback is not None:
        ratio = _feedback_ratio(
            learner,
            tape,
            feedback,
            gradients,
            costly,
            counts=student_step.heard(),
        )
        condition &= _student_scale_holds(learner, student_step, feedback)
    learning_rate, _, applied = learner.update(
        learner.teacher, optimizer, gradients, condition=condition
    )
    updates.move(learned.moves, applied.taken)
    return applied.taken, {
        **replicas.mean(learned.logs),
        "lr/teacher": learning_rate,
        "mpl/feedback_grad_ratio": ratio,
    }


def _student_scale_holds(learner, student_step, feedback):
    """Whether the feedback stayed finite under the student's loss scale.

    If it did not, that scale is lowered, not the teacher's.

    Args:
      learner, student_step, feedback: see `take_teacher_step`.

    Returns:
      Scalar boolean.
    """
    if student_step.scale is None:
        return True
    finite = tf.math.is_finite(replicas.mean(feedback))
    updates.lower_scale(
        learner.optimizer, student_step.scale, student_step.taken & ~finite
    )
    return finite


def _feedback_ratio(learner, tape, feedback, gradients, costly, *, counts):
    """Norm of the feedback's gradient over that of the whole gradient.

    Both are the teacher's, before weight decay and clipping. Costs one backward
    pass of the teacher, so it is computed when `logs_are_due`, and kept in
    between.

    Args:
      learner, tape, feedback: see `take_teacher_step`.
      gradients: of the teacher's whole loss.
      costly: whether to compute it now; None means when it is due, which
        replicas that must meet for it cannot decide within a step.
      counts: scalar boolean; if it is false, the ratio is left alone.

    Returns:
      A scalar, at least 0; NaN before it is first computed, and the previous
      one if it is not finite.
    """
    kept = learner.feedback_grad_ratio

    def measure():
        scale = updates.loss_scale(learner.teacher_optimizer)
        part = gradients_of(tape, feedback, learner.teacher, scale=scale)
        ratio = tf.math.divide_no_nan(
            tf.linalg.global_norm(replicas.mean(part)),
            tf.linalg.global_norm(replicas.mean(gradients)),
        )
        ratio = tf.cast(ratio, learner.float_type)
        kept.assign(tf.where(tf.math.is_finite(ratio) & counts, ratio, kept))

    if costly is None and not replicas.merges():
        tf.cond(learner.logs_are_due(), measure, lambda: None)
    elif costly:
        measure()
    return kept.value
