"""Meta Pseudo Labels: a teacher that learns from how its student fares."""

import functools
import math

import keras
import tensorflow as tf

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.learners import updates
from meta_pseudo_labels.learners.base import Learner
from meta_pseudo_labels.learners.checks import (
    check_apart,
    check_count,
    check_model,
    check_pair,
    check_positive,
    check_range,
)
from meta_pseudo_labels.learners.estimator_code import differentiates
from meta_pseudo_labels.learners.feedback import (
    ESTIMATORS,
    Baseline,
    draw_labels,
    resolve,
    saved_name,
)
from meta_pseudo_labels.learners.method import register
from meta_pseudo_labels.learners.mpl_method import MPLMethod, check_label_view
from meta_pseudo_labels.learners.passes import (
    ViewLogits,
    check_weak_pass,
    forward_together,
    forward_views,
    label_probabilities,
    own_losses,
)
from meta_pseudo_labels.learners.rates import Rates
from meta_pseudo_labels.learners.student_step import (
    check_moves_always,
    check_update_derivative,
    logs_of_waiting,
    take_student_step,
)
from meta_pseudo_labels.learners.teacher_step import (
    TeacherLoss,
    checked_teacher_loss,
    take_teacher_step,
    weighted_feedback,
)
from meta_pseudo_labels.learners.terms import check_term
from meta_pseudo_labels.learners.trainer import first_due
from meta_pseudo_labels.learners.uda import RELEASE_UDA
from meta_pseudo_labels.optimizers import (
    learning_rate_of,
)


@register("mpl")
@keras.saving.register_keras_serializable("meta_pseudo_labels")
class MetaPseudoLabels(MPLMethod, Learner):
    """The student learns pseudo labels, the teacher from the student's gain.

    Pham et al. 2021 (arXiv 2003.10580), algorithm 1; release `MPL.step_fn`.

    Args:
      student: see `Learner`.
      teacher: a built Keras model with as many logits as the student; any
        architecture. It is thrown away after training.
      feedback: a name in `learners.feedback.ESTIMATORS`, "off" for the control,
        or a function with their signature (which `load_model` cannot restore).
      feedback_weight: multiplies the feedback's part of the teacher's loss.
      feedback_every: steps from one feedback to the next, which weighs as many
        times as much; in between the teacher learns as with "off", and a step
        costs as much.
      pseudo_labels: "soft", "hard", "sampled", or None for the estimator's own.
      label_temperature: divides the teacher's logits when they become pseudo
        labels; below 1 sharpens.
      label_view: "strong" or "weak", the views from which the teacher makes the
        labels that the student learns on strong views.
      student_labeled_weight: of the labeled images' loss in the student's, at
        least 0; 0 as in the paper, whose student never learns from labels.
      student_wait_steps: first steps that skip the student's part: only the
        count that its learning rate depends on moves, and the teacher's step
        costs as much as one of UDA. Logs of the student are nan.
      uda: `UDASettings` of the teacher's consistency term, or another kind of
        `Term`, such as `AlignedUDA()` or `FreeMatchTerm()`; None for a teacher
        that learns from labels and feedback alone, and needs no weak views.
      weak_pass: how the teacher's weak views pass, see `passes.forward_views`;
        with "apart" no feedback can go back through weak labels.
      baseline_decay: of the moving average of the feedback, in (0, 1]; 1 keeps
        its first value forever.
      baseline_start: the average's first value, a change (new - old) in what
        the estimator measures: nats; minus a cosine.
      update_teacher_moments: whether the teacher's batch norm keeps moving
        averages. In the release it never does, so that its teacher is
        meaningless in inference mode (quirk 12). Without them, losses that the
        teacher adds when it is called do not count.
      **kwargs: see `Learner`.

    Besides what `Learner` lists, a batch may hold `feedback`, [.., ...] inputs,
    `feedback_labels`, and `feedback_sample_weight`. The student is then judged
    on these, and no network learns these labels: the held-out split of the
    paper's first version.

    Raises:
      ValueError: for models or settings that do not fit together.
    """

    def __init__(
        self,
        student,
        teacher,
        *,
        feedback="exact",
        feedback_weight=1.0,
        feedback_every=1,
        pseudo_labels=None,
        label_temperature=1.0,
        label_view="strong",
        student_labeled_weight=0.0,
        student_wait_steps=0,
        uda=RELEASE_UDA,
        weak_pass="joint",
        baseline_decay=0.99,
        baseline_start=0.0,
        update_teacher_moments=True,
        **kwargs,
    ):
        super().__init__(student, **kwargs)
        check_model(teacher, role="teacher")
        check_pair(student, teacher)
        check_range("feedback_weight", feedback_weight, low=0, high=math.inf)
        check_count("feedback_every", feedback_every, high=2**53)
        check_positive("label_temperature", label_temperature)
        check_range(
            "student_labeled_weight",
            student_labeled_weight,
            low=0,
            high=math.inf,
        )
        check_range("student_wait_steps", student_wait_steps, low=0, high=2**53)
        check_weak_pass(weak_pass)
        if uda is not None:
            check_term(uda, name="uda")
        check_label_view(label_view, uda, weak_pass)
        self.teacher = teacher
        self.feedback, self.label_kind = resolve(feedback, pseudo_labels)
        self.feedback_weight = feedback_weight
        self.feedback_every = feedback_every
        self.label_temperature = label_temperature
        self.label_view = label_view
        self.student_labeled_weight = student_labeled_weight
        self.student_wait_steps = student_wait_steps
        self.uda = uda
        self.weak_pass = weak_pass
        if uda is None:
            self.batch_keys = ("labeled", "labels", "strong")
        else:
            uda.prepare(teacher, self.float_type)
            self.batch_keys = uda.batch_keys
        self.update_teacher_moments = update_teacher_moments
        baseline = functools.partial(
            Baseline,
            decay=baseline_decay,
            start=baseline_start,
            dtype=self.float_type,
        )
        # The first is logged, and used by `reinforce`; the other estimators
        # measure changes of another size.
        self.baseline = baseline(name="feedback_baseline")
        self.estimator_baseline = baseline(name="estimator_baseline")
        self.feedback_grad_ratio = self.add_weight(
            name="feedback_grad_ratio",
            shape=(),
            dtype=self.float_type,
            initializer=keras.initializers.Constant(math.nan),
            trainable=False,
            aggregation="only_first_replica",
        )

    def compile(
        self,
        optimizer="sgd",
        teacher_optimizer=None,
        *,
        teacher_follows=True,
        **kwargs,
    ):
        """As `Learner.compile`, with a second optimizer for the teacher.

        Args:
          optimizer: of the student.
          teacher_optimizer: of the teacher; by default like the student's.
          teacher_follows: whether a change of the student's learning rate
            changes the teacher's in proportion, see `fit`.
          **kwargs: see `Learner.compile`.
        """
        super().compile(optimizer=optimizer, **kwargs)
        self.compiled = False  # Until nothing below refused anything.
        if differentiates(self.feedback):
            check_update_derivative(self)
        # What a function of the user's uses may have been defined since.
        resolve(self.feedback, self.label_kind)
        if self.feedback_every > 1 and self.feedback is not ESTIMATORS["off"]:
            check_moves_always(self.optimizer, self.feedback_every)
        if teacher_optimizer is None:
            with self.distribute_strategy.scope():
                teacher_optimizer = updates.like(self.optimizer)
        self.teacher_optimizer = self.ready_optimizer(
            teacher_optimizer, self.teacher
        )
        updates.check_apart(self.optimizer, self.teacher_optimizer)
        self.build_optimizer(self.teacher_optimizer, self.teacher)
        with self.distribute_strategy.scope():
            rates = Rates(
                self.optimizer, self.teacher_optimizer, follows=teacher_follows
            )
        self.teacher_follows = teacher_follows
        # Not an attribute that Keras tracks, so it is not saved.
        object.__setattr__(self, "_rates", rates)
        self.compiled = True

    def fit(self, *args, **kwargs):
        """As `Learner.fit`; setting the student's rate moves the teacher's too.

        The teacher's stays in proportion, unless it is set to another value as
        well: `teacher_optimizer.learning_rate`. With `teacher_follows=False` of
        `compile`, each is what it was set to.
        """
        self.check_compiled()
        before = self._rates.leading()
        history = super().fit(*args, **kwargs)
        self._rates.catch_up(since=before)
        return history

    def optimized(self):
        return [*super().optimized(), (self.teacher_optimizer, self.teacher)]

    def image_networks(self):
        return [self.student, self.teacher]

    def get_config(self):
        check_apart(self.student, self.teacher)
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "teacher": serialize(self.teacher),
            "feedback": saved_name(self.feedback),
            "feedback_weight": self.feedback_weight,
            "feedback_every": self.feedback_every,
            "pseudo_labels": self.label_kind,
            "label_temperature": self.label_temperature,
            "label_view": self.label_view,
            "student_labeled_weight": self.student_labeled_weight,
            "student_wait_steps": self.student_wait_steps,
            "uda": serialize(self.uda),
            "weak_pass": self.weak_pass,
            "baseline_decay": self.baseline.decay,
            "baseline_start": self.baseline.start,
            "update_teacher_moments": self.update_teacher_moments,
        }

    def get_compile_config(self):
        if not self.compiled:
            return None
        self._rates.keep_proportion()
        optimizer = keras.saving.serialize_keras_object(self.teacher_optimizer)
        return {
            **super().get_compile_config(),
            "teacher_optimizer": optimizer,
            "teacher_follows": self.teacher_follows,
        }

    def save_own_variables(self, store):
        """As Keras's; it comes before the optimizers are saved."""
        super().save_own_variables(store)
        kept = self._rates.kept() if self.compiled else None
        if kept is not None:
            store["rates"] = kept  # The variables' keys are numbers.

    def load_own_variables(self, store):
        """As Keras's; it comes before the optimizers are loaded."""
        super().load_own_variables(store)
        if self.compiled:
            kept = store["rates"][()] if "rates" in store.keys() else None
            self._rates.restore(kept)

    def load_weights(self, *args, **kwargs):
        """As Keras's; older files do not tell the proportion of the rates."""
        super().load_weights(*args, **kwargs)
        if self.compiled:
            self._rates.settle()

    def train_step(self, batch, costly=None, part=None):
        """One step of Meta Pseudo Labels, all on one batch (docs/feedback.md).

        Args:
          batch: see `Learner`; of this replica.
          costly: whether to compute the costly log, see `teacher_step`;
            by default when it is due.
          part: "all" of the step, "no feedback" for all but that, or
            "teacher" for what does not need the student. None asks
            `step_parts`, unless replicas must meet, which cannot decide
            within a step: then `step_choices` tells.

        Raises:
          ValueError: where replicas must meet, if `part` was not passed on.
        """
        self.check_batch(batch)
        self._rates.keep_proportion()
        steps = {
            "all": lambda: self._learn(batch, costly),
            "no feedback": lambda: self._learn(batch, costly, feeds_back=False),
            "teacher": lambda: self._teach_alone(batch),
        }
        parts = self.step_parts() if part is None else [(part, None)]
        if len(parts) > 1 and replicas.merges():
            raise ValueError(
                "On several replicas train_step does not decide which part of "
                "a step is due: pass on what it takes beside the batch, "
                "train_step(batch, *choices, **more); see docs/extending.md."
            )
        return first_due(parts, lambda part: steps[part]())

    def _learn(self, batch, costly, *, feeds_back=True):
        """The step of the paper, with or without feedback; its logs."""
        with tf.GradientTape(persistent=True) as tape:
            # 1. The teacher looks at all images.
            logits = self.teacher_logits(batch)
            label_logits = self.label_logits(logits)
            # 2 to 4. It labels the strong views; the student learns these
            # labels, and then does better or worse on the labeled images.
            with tape.stop_recording():
                pseudo_labels = self.draw_pseudo_labels(label_logits)
                student_step, student_logs = take_student_step(
                    self, batch, pseudo_labels=pseudo_labels
                )
            # 5. The teacher learns from labels, consistency and feedback.
            learned, feedback = checked_teacher_loss(self, batch, logits), None
            if feeds_back:
                feedback = weighted_feedback(
                    self, student_step, label_logits, tape
                )
                learned = learned._replace(loss=learned.loss + feedback)
        teacher_taken, teacher_logs = take_teacher_step(
            self,
            tape,
            learned,
            feedback=feedback,
            student_step=student_step,
            costly=costly,
        )
        # 6. The average is taken at the step before its increment (quirk 16).
        self.average_student(student_step.moved)
        skipped = self.count_step(student_step.taken, teacher_taken)
        return {**student_logs, **teacher_logs, "skipped_steps": skipped}

    def _teach_alone(self, batch):
        """The teacher's step while the student's part is skipped; its logs."""
        with tf.GradientTape() as tape:
            logits = self.teacher_logits(batch)
            learned = checked_teacher_loss(self, batch, logits)
        taken, teacher_logs = take_teacher_step(self, tape, learned)
        student_logs = logs_of_waiting(self)
        updates.count_call(self.optimizer)
        skipped = self.count_step(True, taken)
        return {**student_logs, **teacher_logs, "skipped_steps": skipped}

    def step_parts(self):
        """The parts of `train_step` that steps consist of, for `first_due`."""
        parts = []
        if self.student_wait_steps:
            parts.append(("teacher", self.student_waits))
        if self.feedback_every > 1:
            parts.append(("no feedback", self.feedback_rests))
        return [*parts, ("all", None)]

    def step_choices(self):
        *parts, _ = self.step_parts()
        whole = {"part": "all"} if parts else {}
        return [
            *(({"part": part}, is_due) for part, is_due in parts),
            (whole | {"costly": True}, self.logs_are_due),
            (whole | {"costly": False}, None),
        ]

    def student_waits(self):
        """Whether the next step skips the student, scalar boolean tensor."""
        return self.step.value < self.student_wait_steps

    def feedback_rests(self):
        """Whether the next step, counted from 1, has no feedback."""
        return tf.not_equal((self.step.value + 1) % self.feedback_every, 0)

    def teacher_logits(self, batch):
        """`ViewLogits` of one training-mode pass over the teacher's inputs."""
        settings = dict(
            update_moments=self.update_teacher_moments,
            slices=self.batch_slices,
            dtype=self.float_type,
        )
        if self.uda is not None:
            return forward_views(
                self.teacher, batch, weak_pass=self.weak_pass, **settings
            )
        labeled, strong = forward_together(
            self.teacher, batch["labeled"], batch["strong"], **settings
        )
        return ViewLogits(labeled=labeled, weak=None, strong=strong)

    def teacher_loss(self, batch, logits):
        """What the teacher learns besides the feedback.

        Methods that change it override this; see docs/extending.md.

        Args:
          batch: see `Learner`; of this replica.
          logits: `ViewLogits` of the teacher.

        Returns:
          `TeacherLoss`.

        Raises:
          ConfigError: by the step, if an override returns anything else.
        """
        labels = label_probabilities(batch["labels"], logits.labeled)
        cross_entropy = self.labeled_loss(labels, logits.labeled, batch)
        loss = cross_entropy + own_losses(self.teacher, self.float_type)
        logs = {"cross_entropy/teacher_on_l": cross_entropy}
        if self.uda is None:
            return TeacherLoss(loss, logs)
        term = self.uda.value(logits, labels, batch=batch, step=self.step.value)
        logs |= {"cross_entropy/teacher_on_u": term.loss, **term.logs}
        return TeacherLoss(loss + term.weighted, logs, term.moves)

    def label_logits(self, logits):
        """What becomes pseudo labels, of the teacher's `ViewLogits`."""
        return getattr(logits, self.label_view) / self.label_temperature

    def draw_pseudo_labels(self, logits):
        """The teacher's labels for the strong views, [unlabeled, classes]."""
        seed = tf.stack([tf.cast(self.seed, "int64"), self.step.value])
        return draw_labels(logits, kind=self.label_kind, seed=seed)

    def logs_are_due(self):
        """As `Trainer.logs_are_due`, and in the first step with feedback.

        If not every step has feedback, in the next one that has.
        """
        has_feedback = learning_rate_of(self.optimizer) > 0
        is_first = tf.math.is_nan(self.feedback_grad_ratio) & has_feedback
        is_due = super().logs_are_due(within=self.feedback_every)
        return (is_due | is_first) & ~self.feedback_rests()
