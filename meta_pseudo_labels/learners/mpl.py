"""Meta Pseudo Labels: a teacher that learns from how its student fares."""

import keras
import tensorflow as tf

from meta_pseudo_labels.learners.base import Learner
from meta_pseudo_labels.learners.checks import (
    check_model,
    check_pair,
    check_same_classes,
)
from meta_pseudo_labels.learners.feedback import (
    Baseline,
    StudentStep,
    draw_labels,
    exact,
    resolve,
)
from meta_pseudo_labels.learners.passes import (
    concat,
    forward,
    gradients_of,
    label_probabilities,
    own_losses,
    split,
)
from meta_pseudo_labels.learners.uda import (
    UDASettings,
    consistency_term,
    forward_views,
)
from meta_pseudo_labels.losses import mean_cross_entropy, smooth_labels
from meta_pseudo_labels.optimizers import (
    check_differentiable,
    update_pullback,
)


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class MetaPseudoLabels(Learner):
    """The student learns pseudo labels, the teacher from the student's gain.

    Pham et al. 2021 (arXiv 2003.10580), algorithm 1; release `MPL.step_fn`.

    Args:
      student: see `Learner`.
      teacher: a built Keras model with as many logits as the student; any
        architecture. It is thrown away after training.
      feedback: "exact", "reinforce", "release", "off", or a function of the
        signature in `learners.feedback` (which `load_model` cannot restore).
      pseudo_labels: "soft", "hard", "sampled", or None for the estimator's own.
      uda: `UDASettings` of the teacher's consistency term.
      baseline_decay: of the moving average of the feedback, in [0, 1].
      update_teacher_moments: whether the teacher's batch norm keeps moving
        averages. The release never does, so that its teacher is meaningless in
        inference mode (quirk 12).
      **kwargs: see `Learner`.

    Raises:
      ValueError: for models or settings that do not fit together.
    """

    def __init__(
        self,
        student,
        teacher,
        *,
        feedback="exact",
        pseudo_labels=None,
        uda=None,
        baseline_decay=0.99,
        update_teacher_moments=True,
        **kwargs,
    ):
        super().__init__(student, **kwargs)
        check_model(teacher, role="teacher")
        check_pair(student, teacher)
        self.teacher = teacher
        self.feedback, self.label_kind = resolve(feedback, pseudo_labels)
        self.uda = uda or UDASettings()
        self.update_teacher_moments = update_teacher_moments
        self.baseline = Baseline(decay=baseline_decay, dtype=self.float_type)
        self.feedback_grad_ratio = self.add_weight(
            name="feedback_grad_ratio",
            shape=(),
            dtype=self.float_type,
            initializer="zeros",
            trainable=False,
        )

    def compile(self, optimizer="sgd", teacher_optimizer=None, **kwargs):
        """As `Learner.compile`, with a second optimizer for the teacher.

        Args:
          optimizer: of the student.
          teacher_optimizer: of the teacher; by default like the student's.
          **kwargs: see `Learner.compile`.
        """
        super().compile(optimizer=optimizer, **kwargs)
        if self.feedback is exact:
            check_differentiable(self.optimizer)
        if teacher_optimizer is None:
            teacher_optimizer = type(self.optimizer).from_config(
                self.optimizer.get_config()
            )
        self.teacher_optimizer = keras.optimizers.get(teacher_optimizer)
        if self.teacher_optimizer is self.optimizer:
            raise ValueError(
                "The student and the teacher share one optimizer object; give "
                "teacher_optimizer a second one."
            )
        self.teacher_optimizer.build(self.teacher.trainable_variables)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "teacher": serialize(self.teacher),
            "feedback": self.feedback.__name__,
            "pseudo_labels": self.label_kind,
            "uda": serialize(self.uda),
            "baseline_decay": self.baseline.decay,
            "update_teacher_moments": self.update_teacher_moments,
        }

    def get_compile_config(self):
        optimizer = keras.saving.serialize_keras_object(self.teacher_optimizer)
        return {**super().get_compile_config(), "teacher_optimizer": optimizer}

    def train_step(self, batch):
        """One step of Meta Pseudo Labels, all on one batch (spec, 1)."""
        self.check_batch(batch)
        with tf.GradientTape(persistent=True) as tape:
            # 1. The teacher looks at all images.
            logits = forward_views(
                self.teacher, batch, update_moments=self.update_teacher_moments
            )
            labels = label_probabilities(batch["labels"], logits.labeled)
            # 2 to 4. It labels the strong views; the student learns these
            # labels, and then does better or worse on the labeled images.
            with tape.stop_recording():
                pseudo_labels = self.draw_pseudo_labels(logits.strong)
                student_step, student_logs = self.student_step(
                    batch, labels=labels, pseudo_labels=pseudo_labels
                )
            # 5. The teacher learns from labels, consistency and feedback.
            feedback = self.feedback(student_step, logits.strong)
            cross_entropy = self.labeled_loss(labels, logits.labeled)
            weighted, consistency, uda_logs = consistency_term(
                self.uda, logits, labels, step=self.step.value
            )
            loss = cross_entropy + weighted + feedback
            loss += own_losses(self.teacher)
        gradients = gradients_of(tape, loss, self.teacher)
        ratio = self.measure_feedback(tape, feedback, gradients)
        learning_rate, _ = self.update(
            self.teacher, self.teacher_optimizer, gradients
        )
        # 6. The average is taken at the step before its increment (quirk 16).
        self.average_student()
        self.step.assign_add(1)
        return {
            **student_logs,
            **uda_logs,
            "cross_entropy/teacher_on_u": consistency,
            "cross_entropy/teacher_on_l": cross_entropy,
            "lr/teacher": learning_rate,
            "mpl/feedback_grad_ratio": ratio,
        }

    def set_step(self, step):
        """As `Learner.set_step`, for both optimizers."""
        super().set_step(step)
        self.teacher_optimizer.iterations.assign(step)

    def draw_pseudo_labels(self, logits):
        """The teacher's labels for the strong views, [unlabeled, classes]."""
        seed = tf.stack([tf.cast(self.seed, "int64"), self.step.value])
        return draw_labels(logits, kind=self.label_kind, seed=seed)

    def student_step(self, batch, *, labels, pseudo_labels):
        """The student learns the pseudo labels; its labeled loss moves.

        Returns:
          A `StudentStep`, and a dict of logs.
        """
        student = self.student
        views = (batch["strong"], batch["labeled"])
        with tf.GradientTape() as label_tape:
            label_tape.watch(pseudo_labels)
            with tf.GradientTape() as tape:
                logits = forward(student, concat(*views))
                check_same_classes(
                    student=logits.shape[-1], teacher=pseudo_labels.shape[-1]
                )
                strong_logits, labeled_logits = split(logits, *views)
                targets = smooth_labels(pseudo_labels, self.label_smoothing)
                cross_entropy = mean_cross_entropy(targets, strong_logits)
                loss = cross_entropy + own_losses(student)
            prepared, _ = self.prepare_gradients(
                gradients_of(tape, loss, student), student
            )
        old = mean_cross_entropy(labels, labeled_logits)
        learning_rate = tf.convert_to_tensor(self.optimizer.learning_rate)
        pullback = update_pullback(
            self.optimizer, prepared, student.trainable_variables
        )
        self.optimizer.apply(prepared, student.trainable_variables)
        with tf.GradientTape() as new_tape:
            labeled_logits = forward(
                student, batch["labeled"], update_moments=False
            )
            new = mean_cross_entropy(labels, labeled_logits)

        def label_gradient():
            upstream = gradients_of(new_tape, new, student)
            return label_tape.gradient(
                prepared, pseudo_labels, pullback(upstream)
            )

        dot_product = self.baseline.center(new - old)
        logs = {
            "cross_entropy/student_on_u": cross_entropy,
            "cross_entropy/student_on_l": new,
            "cross_entropy/student_on_l_old": old,
            "lr/student": learning_rate,
            "mpl/dot_product": dot_product,
            "mpl/moving_dot_product": self.baseline.average.value,
        }
        step = StudentStep(
            pseudo_labels=pseudo_labels,
            learning_rate=learning_rate,
            labeled_loss_old=old,
            labeled_loss_new=new,
            dot_product=dot_product,
            label_gradient=label_gradient,
        )
        return step, logs

    def measure_feedback(self, tape, feedback, gradients):
        """Norm of the feedback's gradient over that of the teacher's whole one.

        Both before weight decay and clipping. Costs one backward pass of the
        teacher, so it is computed every `log_every` steps and kept between.

        Returns:
          A scalar, at least 0; 0 before it was computed first.
        """

        def measure():
            part = gradients_of(tape, feedback, self.teacher)
            ratio = tf.math.divide_no_nan(
                tf.linalg.global_norm(part),
                tf.linalg.global_norm(gradients),
            )
            self.feedback_grad_ratio.assign(ratio)

        # The steps that are logged: counted from 1, multiples of log_every.
        due = tf.equal((self.step.value + 1) % self.log_every, 0)
        tf.cond(due, measure, lambda: None)
        return self.feedback_grad_ratio.value
