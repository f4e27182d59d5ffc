"""What the three learners share: the update, the averages, the step counter."""

import keras
import tensorflow as tf

from meta_pseudo_labels.ema import WeightAverages
from meta_pseudo_labels.learners.checks import (
    check_model,
    check_one_replica,
    check_range,
)
from meta_pseudo_labels.learners.passes import float_type
from meta_pseudo_labels.losses import mean_cross_entropy, smooth_labels
from meta_pseudo_labels.models.batch_norm import BatchNorm

_NORMALIZATION_LAYERS = (
    BatchNorm,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
)


class Learner(keras.Model):
    """Trains a student; what calls it sees is the student's average.

    `call`, `predict` and `evaluate` use the moving average of the student's
    weights where `ema_decay` is above 0, else the student itself.

    Subclasses implement `train_step(batch)` and name the `batch_keys` that it
    needs. A batch is a dict:
      labeled: [batch, ...] inputs of the student, weakly augmented;
      labels: [batch] integers, or [batch, classes] probabilities;
      weak, strong: [unlabeled, ...] two views of the same unlabeled inputs.

    Args:
      student: a built Keras model whose output is logits, [batch, classes].
        Its own regularizers and losses count.
      label_smoothing: of the labeled losses, in [0, 1].
      ema_decay: decay of the student's moving average, in [0, 1]; 0 is off.
      ema_start: first step that averages; before it the average is a copy.
      log_every: steps between two computations of the costly logs.
      seed: seeds the pseudo labels that a step draws, together with the step.

    Raises:
      ValueError: for a student that is not built or does not return logits,
        for settings out of range, or under a strategy of several replicas.
    """

    batch_keys = ("labeled", "labels", "weak", "strong")

    def __init__(
        self,
        student,
        *,
        label_smoothing=0.0,
        ema_decay=0.0,
        ema_start=0,
        log_every=10,
        seed=0,
        name=None,
    ):
        super().__init__(name=name)
        check_one_replica()
        check_model(student, role="student")
        check_range("label_smoothing", label_smoothing, low=0, high=1)
        if log_every < 1:
            raise ValueError(f"log_every must be at least 1; got {log_every}.")
        self.student = student
        self.label_smoothing = label_smoothing
        self.log_every = log_every
        self.seed = seed
        self.float_type = float_type(student)
        self.step = self.add_weight(
            name="global_step",
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
        )
        self.student_ema = (
            WeightAverages(student, decay=ema_decay, start=ema_start)
            if ema_decay
            else None
        )
        self.built = True

    def compile(
        self,
        optimizer="sgd",
        *,
        weight_decay=0.0,
        grad_bound=None,
        loss=None,
        jit_compile=False,
        **kwargs,
    ):
        """Sets the optimizer and what happens to gradients on their way there.

        Args:
          optimizer: of the student; a Keras optimizer or its name.
          weight_decay: adds `weight_decay * w` to the gradient of every weight
            but those of normalization layers, before clipping (quirk 17).
          grad_bound: clips the gradient of a whole model to this norm (quirk
            18); None does not clip.
          loss: what `evaluate` reports; by default the cross-entropy of integer
            labels. Training does not use it.
          jit_compile: whether XLA compiles the step. Off by default: on the CPU
            it is slower.
          **kwargs: those of `keras.Model.compile`, e.g. metrics=["accuracy"].
        """
        if weight_decay < 0:
            raise ValueError(
                f"weight_decay must not be negative; got {weight_decay}."
            )
        if grad_bound is not None and grad_bound <= 0:
            raise ValueError(f"grad_bound must be positive; got {grad_bound}.")
        self.weight_decay = weight_decay
        self.grad_bound = grad_bound
        super().compile(
            optimizer=optimizer,
            loss=loss
            or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=jit_compile,
            auto_scale_loss=False,  # Gradients are ours, not Keras's to scale.
            **kwargs,
        )
        # Built here, not while the first step is traced, which fails under a
        # distribution strategy (keras_notes 1).
        self.optimizer.build(self.student.trainable_variables)

    def fit(self, *args, shuffle=False, **kwargs):
        """As `keras.Model.fit`, on a data set of batches as they come."""
        return super().fit(*args, shuffle=shuffle, **kwargs)

    def call(self, inputs, training=False):
        """The student's logits, [batch, classes].

        Raises:
          ValueError: for uint8 images, which no learner was trained on.
        """
        if any(x.dtype == "uint8" for x in tf.nest.flatten(inputs)):
            raise ValueError(
                "Got uint8 images, but learners see normalised ones: pass them "
                "through data.normalize, or use data.evaluation_dataset."
            )
        if training or self.student_ema is None:
            logits = self.student(inputs, training=training)
        else:
            logits = self.student_ema.apply(self.student, inputs)
        return tf.cast(logits, self.float_type)

    def finished_student(self):
        """The student with its averaged weights, to finetune or to export.

        Overwrites the student's weights with their averages, where there are
        any, so it ends the training of this learner.
        """
        if self.student_ema is not None:
            self.student_ema.copy_to(self.student)
        return self.student

    def set_step(self, step):
        """Counts on from a step, in the learner and its optimizer."""
        self.step.assign(step)
        self.optimizer.iterations.assign(step)

    def get_config(self):
        return {
            "name": self.name,
            "student": keras.saving.serialize_keras_object(self.student),
            "label_smoothing": self.label_smoothing,
            "ema_decay": self.student_ema.decay if self.student_ema else 0.0,
            "ema_start": self.student_ema.start if self.student_ema else 0,
            "log_every": self.log_every,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**keras.saving.deserialize_keras_object(config))

    def get_compile_config(self):
        return {
            **super().get_compile_config(),
            "weight_decay": self.weight_decay,
            "grad_bound": self.grad_bound,
        }

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    def check_batch(self, batch):
        """Raises ValueError for a batch that lacks what the step needs."""
        keys = set(batch) if isinstance(batch, dict) else set()
        if not keys.issuperset(self.batch_keys):
            found = sorted(keys) if keys else type(batch).__name__
            raise ValueError(
                f"{type(self).__name__} trains on a tf.data.Dataset of dicts "
                f"with the keys {', '.join(self.batch_keys)}; got {found}. "
                "See data.training_dataset."
            )

    def labeled_loss(self, labels, logits):
        """Mean cross-entropy of smoothed labels, scalar, nats."""
        targets = smooth_labels(labels, self.label_smoothing)
        return mean_cross_entropy(targets, logits)

    def update(self, model, optimizer, gradients, *, skip_not_finite=False):
        """Decays, clips and applies gradients.

        Args:
          model: whose trainable weights move.
          optimizer: its optimizer.
          gradients: one per trainable weight.
          skip_not_finite: whether nothing moves where the norm is not finite.

        Returns:
          The learning rate of the update, and the norm of the gradients after
          weight decay and before clipping. Scalars.
        """
        gradients, norm = self.prepare_gradients(gradients, model)
        learning_rate = tf.convert_to_tensor(optimizer.learning_rate)

        def apply():
            optimizer.apply(gradients, model.trainable_variables)

        if skip_not_finite:
            tf.cond(tf.math.is_finite(norm), apply, lambda: None)
        else:
            apply()
        return learning_rate, norm

    def prepare_gradients(self, gradients, model):
        """Adds weight decay, then clips by the norm over the whole model.

        Returns:
          The gradients to apply, and their norm before clipping.
        """
        if self.weight_decay:
            decayed = _decayed_ids(model)
            gradients = [
                g + self.weight_decay * w if id(w) in decayed else g
                for g, w in zip(
                    gradients, model.trainable_variables, strict=True
                )
            ]
        norm = tf.linalg.global_norm(gradients)
        if self.grad_bound is not None:
            gradients, _ = tf.clip_by_global_norm(
                gradients, self.grad_bound, use_norm=norm
            )
        return gradients, norm

    def weight_decay_loss(self, model):
        """Half the sum of the squared weights under decay, scalar."""
        decayed = _decayed_ids(model)
        return tf.add_n(
            [
                tf.nn.l2_loss(w)
                for w in model.trainable_variables
                if id(w) in decayed
            ]
        )

    def average_student(self):
        """Moves the student's average, where there is one."""
        if self.student_ema is not None:
            self.student_ema.update(self.student, step=self.step.value)

    def get_metrics_result(self):
        """The metrics of `evaluate`; none before it has run.

        Keras asks after every epoch of training too, where they are not built
        yet: what training logs is what `train_step` returns.
        """
        compiled = self._compile_metrics
        if compiled is not None and not compiled.built:
            return {}
        return super().get_metrics_result()

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Does nothing: the models are built, and a batch here is no input."""


def _decayed_ids(model):
    """Identities of the trainable weights that weight decay applies to."""
    exempt = {
        id(weight)
        for layer in model._flatten_layers()
        if isinstance(layer, _NORMALIZATION_LAYERS)
        for weight in layer.weights
    }
    return {id(w) for w in model.trainable_variables} - exempt
