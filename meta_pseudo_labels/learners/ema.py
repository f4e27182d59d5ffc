"""Averages of a model's weights, and a model that answers with them."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.learners.batch_checks import (
    check_labeled,
    check_normalized,
    warn_of_levels,
)
from meta_pseudo_labels.learners.checks import check_model
from meta_pseudo_labels.learners.passes import (
    class_numbers,
    float_type,
    label_errors,
)
from meta_pseudo_labels.learners.trainer import Trainer
from meta_pseudo_labels.models.stateless import call_with

_FINISHED = "finished"  # A key in files of learners.


def ema_rate(step, *, decay, start=0, dtype="float32"):
    """How far the average moves towards the weights at a step, in [0, 1].

    `1 - min(decay, (s + 1) / (s + 10))` with s = step - start, so that early
    averages forget fast; 1 before `start` (quirk 16).

    Args:
      step: scalar integer.
      decay: the decay in the long run, in [0, 1].
      start: the first step that averages.
      dtype: float type of the result.

    Returns:
      A scalar of type `dtype`.
    """
    since_start = tf.cast(step - start, dtype)
    ramp = (since_start + 1.0) / (since_start + 10.0)
    rate = 1.0 - tf.minimum(tf.constant(decay, dtype), ramp)
    return tf.where(since_start < 0, tf.ones_like(rate), rate)


class WeightAverages(keras.layers.Layer):
    """Moving averages of all floating-point variables of a model.

    The moments of batch norm are averaged too, as in the release (the
    `use_ema` of Keras optimizers averages trainable weights only). A layer, so
    that checkpoints include it; it keeps no reference to the model, which is
    therefore saved once.

    Args:
      model: a built `keras.Model`; the averages start at its weights.
      decay: see `ema_rate`.
      start: see `ema_rate`.

    Raises:
      ValueError: if decay is outside [0, 1].
    """

    def __init__(self, model, *, decay, start=0, name="student_ema"):
        if not 0 <= decay <= 1:
            raise ValueError(f"ema_decay must be in [0, 1]; got {decay}.")
        super().__init__(name=name)
        self.decay = decay
        self.start = start
        self.averages = [
            self.add_weight(
                name=variable.path.replace("/", "."),
                shape=variable.shape,
                # In 16 bits it would stand still: its moves are too small.
                dtype=("float64" if variable.dtype == "float64" else "float32"),
                initializer="zeros",
                trainable=False,
                autocast=False,  # Read as it is, in mixed precision too.
            )
            for variable in _float_variables(model)
        ]
        # Attributes too: TensorFlow's checkpoints do not look into the lists
        # of a Keras layer, and would silently leave the averages out.
        for index, average in enumerate(self.averages):
            setattr(self, f"average_{index}", average)
        self.built = True
        self.reset(model)

    def reset(self, model):
        """Starts again at the model's current weights."""
        for average, variable in self._pairs(model):
            average.assign(variable)

    def reset_as_release(self):
        """Starts at the release's constants instead of the weights (quirk 16).

        One if the name has "beta" or "variance", otherwise zero, even for
        batch norm's gamma. The ramp forgets them within about twenty steps.
        """
        for average in self.averages:
            ones = any(word in average.name for word in ("beta", "variance"))
            average.assign(tf.fill(average.shape, tf.cast(ones, average.dtype)))

    def update(self, model, *, step, moved=True):
        """Moves every average towards the model's weights.

        Args:
          model: see `WeightAverages`.
          step: see `ema_rate`.
          moved: scalar boolean; if it is false, the averages stand still, as
            the model did.
        """

        def rate(dtype):
            rate = ema_rate(
                step, decay=self.decay, start=self.start, dtype=dtype
            )
            return tf.where(moved, rate, tf.zeros_like(rate))

        rates = {
            dtype: rate(dtype)
            for dtype in {average.dtype for average in self.averages}
        }
        # On each replica by itself, as all have the same weights.
        replicas.merge(self._move, model, rates)

    def _move(self, strategy, model, rates):
        for average, variable in self._pairs(model):
            strategy.extended.update(
                average.value,
                _approach,
                args=(variable.value, rates[average.dtype]),
                group=False,
            )

    def apply(self, model, inputs):
        """Inference with the averages as the model's weights.

        Returns:
          The outputs; the losses that the model adds, a list of scalars.
        """
        averaged = {
            id(variable): average.value
            for average, variable in self._pairs(model)
        }
        outputs, _, losses = call_with(model, averaged, inputs, training=False)
        return outputs, losses

    def copy_to(self, model):
        """Overwrites the model's weights with the averages."""
        for average, variable in self._pairs(model):
            variable.assign(average)

    @contextlib.contextmanager
    def lent_to(self, model):
        """Sets the model's weights to the averages, within the context."""
        before = [tf.identity(v.value) for v in _float_variables(model)]
        self.copy_to(model)
        try:
            yield
        finally:
            for variable, value in zip(
                _float_variables(model), before, strict=True
            ):
                variable.assign(value)

    def _pairs(self, model):
        return zip(self.averages, _float_variables(model), strict=True)


class AveragedStudent(Trainer):
    """A `Trainer` around a student that answers with averaged weights.

    `call`, `predict` and `evaluate` use the moving average of the student's
    weights if `ema_decay` is above 0, otherwise the student itself. They use
    the student itself after `finished_student` too, until `fit`,
    `train_on_batch`, `load_weights` or a checkpoint of a run.

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
        if training or not self._answers_with_average:
            logits, losses = self.student(inputs, training=training), None
        else:
            logits, losses = self.student_ema.apply(self.student, inputs)
        vars(self)["_average_losses"] = losses  # Hidden from Keras.
        return tf.cast(logits, self.float_type)

    def predict(self, x, *args, **kwargs):
        """As `keras.Model.predict`, after a check of the images' range."""
        warn_of_levels(x, self.student)
        return super().predict(x, *args, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """As `keras.Model.evaluate`, after a check of images and labels.

        Raises:
          ValueError: for images without labels, for batches to train on, and
            for labels that are not class numbers, if the loss expects these.
        """
        if not kwargs.get("_use_cached_eval_dataset"):  # Not within `fit`.
            check_labeled(x, y, taker="evaluate")
            warn_of_levels(x, self.student)
        with label_errors():
            return super().evaluate(x, y, *args, **kwargs)

    def fit(self, *args, **kwargs):
        """As `Trainer.fit`, after a check of the validation data.

        Raises:
          ValueError: see `evaluate`; for a `validation_split`.
        """
        split = kwargs.get("validation_split")
        if split and kwargs.get("validation_data") is None:
            raise ValueError(
                f"validation_split={split} would evaluate on batches to train "
                "on, which are no inputs with labels. Keep some images back: "
                "validation_data=(inputs, labels)."
            )
        x, y, _ = keras.utils.unpack_x_y_sample_weight(
            kwargs.get("validation_data")
        )
        check_labeled(x, y, taker="validation_data")
        return super().fit(*args, **kwargs)

    def make_train_function(self, force=False):
        """As Keras's; training moves the average again."""
        self.answer_with_average()
        super().make_train_function(force)

    def save_own_variables(self, store):
        """As Keras's; with whether the student is finished."""
        super().save_own_variables(store)
        if vars(self).get("_is_finished", False):
            store[_FINISHED] = np.ones([])  # The variables' keys are numbers.

    def load_own_variables(self, store):
        """As Keras's; it answers as the learner that was saved did."""
        super().load_own_variables(store)
        self.answer_with_average(_FINISHED not in store.keys())

    @property
    def _answers_with_average(self):
        is_finished = vars(self).get("_is_finished", False)
        return self.student_ema is not None and not is_finished

    def answer_with_average(self, yes=True):
        """Answers with the average, if there is one; or else the student.

        To be called where the weights of a learner are set from outside.
        """
        if yes == vars(self).get("_is_finished", False):
            vars(self)["_is_finished"] = not yes  # Hidden from Keras.
            self.test_function = self.predict_function = None
            vars(self).pop("_inference_graphs", None)  # See `evaluation`.

    def compute_loss(self, x=None, y=None, y_pred=None, *args, **kwargs):
        """As `keras.Model.compute_loss`, for `evaluate`; checks the labels."""
        if type(self.loss) is keras.losses.SparseCategoricalCrossentropy:
            y = class_numbers(y, y_pred, ignored=self.loss.ignore_class)
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
        shown = [] if self._answers_with_average else [self.student]
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
        with self.averaged_student() as student:
            return student.export(filepath, *args, **kwargs)

    @contextlib.contextmanager
    def averaged_student(self):
        """The student, which has its averaged weights within the context."""
        if not self._answers_with_average:
            yield self.student
        else:
            with self.student_ema.lent_to(self.student):
                yield self.student

    def finished_student(self):
        """The student with its averaged weights, to finetune or to export.

        Overwrites the student's weights with their averages, if there are
        any, so this ends the training of this learner. From then on the learner
        answers with the student itself, finetuned or not.
        """
        if self.student_ema is not None:
            self.student_ema.copy_to(self.student)
            self.answer_with_average(False)
        return self.student

    def average_student(self, moved):
        """Moves the student's average, if it has one and the student moved."""
        if self.student_ema is not None:
            self.student_ema.update(
                self.student, step=self.step.value, moved=moved
            )


def _approach(average, value, rate):
    """One move; none at rate 0, when the value need not be finite."""
    move = rate * (average - tf.cast(value, average.dtype))
    average.assign_sub(tf.where(rate > 0, move, tf.zeros_like(move)))


def _float_variables(model):
    """All variables except the integer ones, the states of random seeds."""
    return [v for v in model.variables if "float" in v.dtype]
