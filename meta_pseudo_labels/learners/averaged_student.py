"""What callers see of a learner: its student, with averaged weights."""

from contextlib import nullcontext

import keras
import tensorflow as tf

from meta_pseudo_labels.learners.checks import (
    check_model,
    check_normalized,
    warn_of_levels,
)
from meta_pseudo_labels.learners.ema import WeightAverages
from meta_pseudo_labels.learners.passes import (
    class_numbers,
    float_type,
    label_errors,
)
from meta_pseudo_labels.learners.trainer import Trainer


class AveragedStudent(Trainer):
    """A `Trainer` around a student that answers with averaged weights.

    `call`, `predict` and `evaluate` use the moving average of the student's
    weights if `ema_decay` is above 0, otherwise the student itself.

    Args:
      student: a built Keras model whose output is logits, [batch, classes].
      ema_decay: decay of the student's moving average, in [0, 1]; 0 is off.
      ema_start: first step that averages; before it the average is a copy.
      log_every: steps between two logged steps; see `logs_are_due`.

    Raises:
      ValueError: see `checks.check_model`; or for settings out of range.
    """

    def __init__(self, student, *, ema_decay, ema_start, log_every, name=None):
        check_model(student, role="student")
        # Not the global policy: under a mixed one Keras would round the
        # learner's variables to 16 bits wherever `call` reads them.
        super().__init__(
            log_every=log_every, name=name, dtype=float_type(student)
        )
        self.student = student
        self.float_type = float_type(student)
        self.student_ema = (
            WeightAverages(student, decay=ema_decay, start=ema_start)
            if ema_decay
            else None
        )

    def call(self, inputs, training=False):
        """The student's logits, [batch, classes].

        Raises:
          ValueError: for uint8 images, unless the student rescales them
            itself.
        """
        check_normalized(inputs, self.student)
        if training or self.student_ema is None:
            logits, losses = self.student(inputs, training=training), None
        else:
            logits, losses = self.student_ema.apply_all(self.student, inputs)
        vars(self)["_average_losses"] = losses  # Hidden from Keras.
        return tf.cast(logits, self.float_type)

    def predict(self, x, *args, **kwargs):
        """As `keras.Model.predict`, after a check of the images' range."""
        warn_of_levels(x, self.student)
        return super().predict(x, *args, **kwargs)

    def evaluate(self, x=None, *args, **kwargs):
        """As `keras.Model.evaluate`, after a check of images and labels.

        Raises:
          ValueError: for labels that are not class numbers, if the loss
            expects these.
        """
        if not kwargs.get("_use_cached_eval_dataset"):  # Not within `fit`.
            warn_of_levels(x, self.student)
        with label_errors():
            return super().evaluate(x, *args, **kwargs)

    def compute_loss(self, x=None, y=None, y_pred=None, *args, **kwargs):
        """As `keras.Model.compute_loss`, for `evaluate`; checks the labels."""
        if type(self.loss) is keras.losses.SparseCategoricalCrossentropy:
            y = class_numbers(y, y_pred)
        return super().compute_loss(x, y, y_pred, *args, **kwargs)

    @property
    def losses(self):
        """Losses that `evaluate` adds: the student's own, from its last call.

        Keras's would be those of all networks of the learner.
        """
        losses = vars(self).get("_average_losses")
        return self.student.losses if losses is None else losses

    @property
    def metrics(self):
        """The metrics of `compile` and of the student's layers.

        Without the latter if the average is evaluated, which they do not see.
        """
        shown = [] if self.student_ema else [self.student]
        hidden = {
            id(metric)
            for part in self.layers
            if part not in shown
            for metric in part.metrics
        }
        return [x for x in super().metrics if id(x) not in hidden]

    def export(self, filepath, *args, **kwargs):
        """As `keras.Model.export`, of the student with its averaged weights.

        The signature is the student's. Training can continue.
        """
        average = self.student_ema
        lent = average.lent_to(self.student) if average else nullcontext()
        with lent:
            return self.student.export(filepath, *args, **kwargs)

    def finished_student(self):
        """The student with its averaged weights, to finetune or to export.

        Overwrites the student's weights with their averages, if there are
        any, so this ends the training of this learner.
        """
        if self.student_ema is not None:
            self.student_ema.copy_to(self.student)
        return self.student

    def average_student(self, moved):
        """Moves the student's average, if it has one and the student moved."""
        if self.student_ema is not None:
            self.student_ema.update(
                self.student, step=self.step.value, moved=moved
            )
