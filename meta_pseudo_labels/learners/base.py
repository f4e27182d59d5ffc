"""What all learners share: settings, checks, and the update of a model."""

import functools

import keras
import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.learners import batch_checks, updates
from meta_pseudo_labels.learners.checks import (
    check_jit_compile,
    check_range,
    check_replicas,
    check_weights,
)
from meta_pseudo_labels.learners.compile_metrics import (
    on_logits,
    read_on_logits,
)
from meta_pseudo_labels.learners.ema import AveragedStudent
from meta_pseudo_labels.learners.losses import (
    mean_cross_entropy,
    smooth_labels,
    weights_of,
    with_class_weights,
)
from meta_pseudo_labels.learners.method import Method
from meta_pseudo_labels.learners.passes import (
    gradients_of,
    label_errors,
    with_checked_labels,
)
from meta_pseudo_labels.optimizers import learning_rate_of, parts_of
from meta_pseudo_labels.utils import compat


class Learner(Method, AveragedStudent):
    """Trains a student; callers see its moving average, or else itself.

    Subclasses implement `train_step(batch)`, name the `batch_keys` that it
    needs, and define the rest of `Method`. An update whose gradients are not
    finite is skipped: neither weights nor averages move. A batch is a dict:
      labeled: [batch, ...] inputs of the student, weakly augmented;
      labels: [batch] integers, or [batch, classes] probabilities;
      weak, strong: [unlabeled, ...] two views of the same unlabeled inputs.
    It may hold weights for the labeled losses, as in `keras.Model.fit`:
      sample_weight: [batch], one per label.

    Args:
      student: a built Keras model whose output is logits, [batch, classes].
        Its own regularizers and losses are included.
      label_smoothing: of the labeled losses, in [0, 1].
      ema_decay: decay of the student's moving average, in [0, 1]; 0 is off.
      ema_start: first step that averages; before it the average is a copy.
      log_every: steps between two logged steps; see `logs_are_due`.
      seed: together with the step, seeds the pseudo labels that a step draws.

    Raises:
      ValueError: for a student that is not built or does not return logits,
        for settings out of range, or for models that were built outside the
        scope of the current strategy.
    """

    batch_slices = 1  # Until `compile` says otherwise.

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
        check_range("label_smoothing", label_smoothing, low=0, high=1)
        super().__init__(
            student,
            ema_decay=ema_decay,
            ema_start=ema_start,
            log_every=log_every,
            name=name,
        )
        self.label_smoothing = label_smoothing
        self.seed = seed
        self.built = True

    def compile(
        self,
        optimizer="sgd",
        *,
        weight_decay=0.0,
        grad_bound=None,
        loss=None,
        jit_compile=False,
        width_splits=1,
        batch_slices=1,
        auto_scale_loss=True,
        backbone_lr_factor=1.0,
        freeze_backbone_steps=0,
        layer_lr_decay=1.0,
        **kwargs,
    ):
        """Sets the optimizer, and how gradients are processed on their way.

        Args:
          optimizer: of the student; a Keras optimizer or its name.
          weight_decay: adds `weight_decay * w` to the gradient of every weight
            except those of normalization layers, before clipping (quirk 17).
          grad_bound: clips the gradient of a whole model to this norm (quirk
            18); None does not clip.
          loss: what `evaluate` reports, of logits; by default the cross-entropy
            of integer labels. The student's own regularizers and losses are
            added to it, as in Keras. Training does not use it.
          jit_compile: whether XLA compiles the step. Off by default: it is
            slower on the CPU. Not for several replicas, except those of TPUs.
          width_splits: cores of a TPU replica over which images are split by
            width.
          batch_slices: number of slices into which every replica's batch is
            cut, to fit it into memory; see `learners.slices`.
          auto_scale_loss: whether the optimizer of a network with layers that
            compute in float16 gets a `LossScaleOptimizer` around it, as in
            Keras.
          backbone_lr_factor: multiplies an optimizer's rate for all weights
            except those of a network's head, see `models.backbone_weights`; at
            least 0.
          freeze_backbone_steps: first updates of a network that leave these
            weights unchanged; -1 for all. Batch norm's moving averages still
            move, except in layers with trainable = False.
          layer_lr_decay: ratio of a layer's rate to that of the layer above
            it, from the head down, see `models.backbone_depths`; in (0, 1].
          **kwargs: those of `keras.Model.compile`, e.g. metrics=["accuracy"].

        With several replicas this sets `synchronized` on the networks' Keras
        `BatchNormalization` layers, so that they normalize the global batch.

        Raises:
          ValueError: for a number out of range, for a loss or metric that
            expects probabilities, for jit_compile with several replicas, and
            for an optimizer that does not support them.
        """
        if weight_decay < 0:
            raise ValueError(
                f"weight_decay must not be negative; got {weight_decay}."
            )
        if grad_bound is not None and grad_bound <= 0:
            raise ValueError(f"grad_bound must be positive; got {grad_bound}.")
        self.weight_decay = weight_decay
        self.grad_bound = grad_bound
        check_range("batch_slices", batch_slices, low=1, high=2**31)
        check_jit_compile(jit_compile, self.distribute_strategy)
        if self.distribute_strategy.num_replicas_in_sync > 1:
            for layer in compat.layers_of(self):
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = True
        self.width_splits = width_splits
        self.batch_slices = batch_slices
        self.auto_scale_loss = auto_scale_loss
        self.backbone_lr_factor = backbone_lr_factor
        self.freeze_backbone_steps = freeze_backbone_steps
        self.layer_lr_decay = layer_lr_decay
        for name in kwargs.keys() & {"metrics", "weighted_metrics"}:
            kwargs[name] = on_logits(kwargs[name], keras.metrics)
        super().compile(
            optimizer=self.ready_optimizer(optimizer, self.student),
            loss=on_logits(
                loss or "sparse_categorical_crossentropy", keras.losses
            ),
            jit_compile=jit_compile,
            auto_scale_loss=False,  # Keras looks at the learner's policy.
            **kwargs,
        )
        self.compiled = False  # Until nothing below refused anything.
        self.build_optimizer(self.optimizer, self.student)
        self.optimizer.finalize_variable_values = self._finalize
        self.compiled = True

    def ready_optimizer(self, optimizer, model):
        """The optimizer of a model, wrapped if its loss needs a scale."""
        with self.distribute_strategy.scope():
            optimizer = keras.optimizers.get(optimizer)
            if self.auto_scale_loss:
                optimizer = updates.scaled_for(model, optimizer)
        return optimizer

    def build_optimizer(self, optimizer, model):
        """Makes an optimizer's variables, and has it accept reduced gradients.

        Making them while the first step is traced fails under a strategy
        (keras-team/keras issue 23085).

        Raises:
          ValueError: for a model that has nothing left to train.
        """
        check_weights(model, role="network")
        try:
            with self.distribute_strategy.scope():
                optimizer.build(model.trainable_variables)
        except RuntimeError as error:  # Slots of one scope, weights of another.
            raise ValueError(
                f"{type(optimizer).__name__} was made outside of the scope of "
                "the learner's strategy; make it within strategy.scope()."
            ) from error
        for part in parts_of(optimizer):
            check_replicas(part, self.distribute_strategy)
            compat.take_reduced(part)
            updates.spare_normalization(part, model)
        updates.set_pace(
            optimizer,
            model,
            lr_factor=self.backbone_lr_factor,
            layer_decay=self.layer_lr_decay,
            freeze_steps=self.freeze_backbone_steps,
            backbone=self.backbone_weights,
        )

    def backbone_weights(self, model):
        """Weights for `backbone_lr_factor` and `freeze_backbone_steps`."""
        return models.backbone_weights(model)

    def optimized(self):
        """(optimizer, network) for each network that trains."""
        return [(self.optimizer, self.student)]

    def _finalize(self, _=None):
        """Runs as `fit` ends, when Keras calls it for one optimizer only."""
        for optimizer, model in self.optimized():
            type(optimizer).finalize_variable_values(
                optimizer, model.trainable_variables
            )

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
        if not self.compiled:
            return None
        return {
            **super().get_compile_config(),
            "weight_decay": self.weight_decay,
            "grad_bound": self.grad_bound,
            "width_splits": self.width_splits,
            "batch_slices": self.batch_slices,
            "auto_scale_loss": self.auto_scale_loss,
            "backbone_lr_factor": self.backbone_lr_factor,
            "freeze_backbone_steps": self.freeze_backbone_steps,
            "layer_lr_decay": self.layer_lr_decay,
        }

    def compile_from_config(self, config):
        seen = config.keys() & {"loss", "metrics", "weighted_metrics"}
        read = {key: read_on_logits(config[key]) for key in seen}
        others = {key: x for key, x in config.items() if key not in seen}
        self.compile(**keras.saving.deserialize_keras_object(others), **read)

    def fit(self, x=None, *args, class_weight=None, **kwargs):
        """As `Trainer.fit`; under XLA, labels are checked in the data pipeline.

        Args:
          x: see `Trainer.fit`.
          class_weight: weights of the labeled losses by class; see
            `losses.with_class_weights`. Batches may hold weights of their
            own instead, see `Learner`.

        Raises:
          ValueError: see `passes.label_probabilities`; or for a network that
            must first be adapted to images, see `models.adapt`, or that has
            no weights left to train.
        """
        self.check_compiled()
        for _, network in self.optimized():
            check_weights(network, role="network")
            models.check_adapted(network)
        is_tpu = isinstance(self.distribute_strategy, tf.distribute.TPUStrategy)
        classes = getattr(self.student, "output_shape", (None,))[-1]
        if class_weight is not None:
            if classes is None:
                classes = 1 + max(class_weight, default=0)
            x = with_class_weights(x, class_weight, classes)
        rows = getattr(x, "element_spec", None)
        if (self.jit_compile or is_tpu) and isinstance(x, tf.data.Dataset):
            if classes and isinstance(rows, dict):
                check = functools.partial(with_checked_labels, classes=classes)
                x = x.map(tf.autograph.experimental.do_not_convert(check))
        with label_errors():
            return super().fit(x, *args, **kwargs)

    def check_compiled(self):
        """Raises ValueError before `compile`, as Keras does."""
        if not self.compiled:
            raise ValueError("You must call compile() before any training.")

    def check_batch(self, batch):
        """Raises ValueError for a batch that lacks what the step needs.

        It does so before `compile` too, as every step calls this first.
        """
        self.check_compiled()
        batch_checks.check_batch(
            batch,
            needed=self.batch_keys,
            learner=type(self).__name__,
            networks=self.image_networks(),
        )

    def image_networks(self):
        """The networks that see the images of a batch."""
        return [self.student]

    def labeled_loss(self, labels, logits, batch=()):
        """Mean cross-entropy of smoothed labels, scalar, nats.

        Args:
          labels: probabilities, [batch, classes].
          logits: [batch, classes].
          batch: the one they belong to; its weights, if any, are used.
        """
        targets = smooth_labels(labels, self.label_smoothing)
        weights = weights_of(batch, "sample_weight", logits)
        return mean_cross_entropy(targets, logits, weights)

    def take_step(self, tape, loss, logs, *, decay_log=None, moves=()):
        """The update, count and average of a step that has no teacher.

        Args:
          tape: the one that recorded the loss.
          loss: of the student, scalar.
          logs: scalars; "loss/total" becomes the loss with weight decay.
          decay_log: name of the log of the squared weights.
          moves: of a state, see `updates.move`.

        Returns:
          The logs, with those of the update.
        """
        logs = replicas.mean({"loss/total": loss, **logs})
        weight_decay = updates.half_squared_norm(self.student)
        learning_rate, norm, applied = self.update(
            self.student,
            self.optimizer,
            gradients_of(
                tape,
                loss,
                self.student,
                scale=updates.loss_scale(self.optimizer),
            ),
        )
        skipped = self.count_step(applied.taken)
        self.average_student(applied.moved)
        updates.move(moves, applied.taken)
        logs["loss/total"] += tf.cast(
            self.weight_decay * weight_decay, logs["loss/total"].dtype
        )
        return logs | {
            decay_log or "loss/weight_decay": weight_decay,
            "loss/grad_norm": norm,
            "loss/lr": learning_rate,
            "skipped_steps": skipped,
        }

    def update(self, model, optimizer, gradients, *, condition=True):
        """Averages gradients over replicas, decays, clips and applies them.

        If their norm is not finite, nothing moves.

        Args:
          model: the one whose trainable weights move.
          optimizer: its optimizer.
          gradients: one per trainable weight, of this replica and of the
            unscaled loss, whatever the optimizer scales it by.
          condition: scalar boolean, the same on all replicas; if it is false,
            nothing moves either.

        Returns:
          The learning rate of the update; the norm of the gradients after
          weight decay and before clipping; `updates.Applied`.
        """
        gradients = replicas.mean(gradients)
        gradients, norm = self.prepare_gradients(gradients, model)
        learning_rate = learning_rate_of(optimizer)
        applied = updates.apply_gradients(
            optimizer,
            gradients,
            model.trainable_variables,
            norm=norm,
            condition=condition,
        )
        return learning_rate, norm, applied

    def prepare_gradients(self, gradients, model):
        """`updates.decay_and_clip` with the settings given to `compile`."""
        return updates.decay_and_clip(
            gradients,
            model,
            weight_decay=self.weight_decay,
            grad_bound=self.grad_bound,
        )
