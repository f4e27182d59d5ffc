"""Models and learners from settings."""

import dataclasses
import functools

import keras

from meta_pseudo_labels import models
from meta_pseudo_labels.learners.finetuning import freeze_batch_norm
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.optimizers import build_optimizer
from meta_pseudo_labels.optimizers.schedules import (
    WaitWarmupDecay,
    scale_by_batch,
)
from meta_pseudo_labels.utils.settings import ConfigError, user_error


def sees(settings, role, model_type):
    """Which pixels a network sees: "network" or "dataset"; see `preprocessing`.

    Args:
      settings: of a run, by name; old runs have fewer.
      role: "student" or "teacher".
      model_type: its name.
    """
    if not models.has_preprocessing(model_type):
        return "dataset"
    of_weights = "network" if settings.get(f"{role}_weights") else "dataset"
    return settings.get("preprocessing") or of_weights


def build_model(config, spec, *, role, dtype=None):
    """The network for a role, with fresh weights.

    Args:
      config: `Config`.
      spec: `DatasetSpec` of the images it is for.
      role: "student" or "teacher".
      dtype: dtype or policy of its layers; by default mixed_bfloat16 or
        float32, depending on the settings.

    Raises:
      ConfigError: if a plug-in's family does not return one logit per class
        of the data set.
    """
    if dtype is None:
        dtype = "mixed_bfloat16" if config.use_bfloat16 else "float32"
    model_type = config.model_type
    if role == "teacher" and config.teacher_model_type:
        model_type = config.teacher_model_type
    own = sees(dataclasses.asdict(config), role, model_type) == "network"
    model = models.build(
        model_type,
        input_shape=(spec.image_size, spec.image_size, 3),
        num_classes=spec.num_classes,
        dropout_rate=config.dense_dropout_rate,
        batch_norm_decay=config.batch_norm_decay,
        batch_norm_epsilon=config.batch_norm_epsilon,
        batch_norm_batch_size=config.batch_norm_batch_size,
        stochastic_depth_drop_rate=config.stochastic_depth_drop_rate,
        small_images=spec.small_images,
        pixels=(spec.mean, spec.std) if own else None,
        name=role,
        dtype=dtype,
    )
    user_error(models.check_classifier, model, role=role)
    if model.output_shape[-1] != spec.num_classes:
        raise ConfigError(
            f"--model_type={model_type} returns {model.output_shape[-1]} "
            f"logits; the data set has {spec.num_classes} classes. Its family "
            "must heed num_classes."
        )
    return models.rematerialized(model) if config.remat else model


def _reduced_teacher(config, spec, *, dtype=None):
    """The teacher of Reduced MPL, small enough for float32 in any policy."""
    return models.reduced_teacher(
        num_classes=spec.num_classes,
        hidden_sizes=models.mlp_hidden_sizes(
            config.teacher_model_type or models.REDUCED_TEACHER
        ),
        dropout_rate=config.dense_dropout_rate,
        name="teacher",
        dtype="float64" if dtype == "float64" else "float32",
    )


class Networks:
    """Builds the networks of a learner, each with fresh weights.

    Args:
      config, spec, dtype: see `build_model`.
      unlabeled: number of unlabeled images; None if it is not known.
    """

    def __init__(self, config, spec, *, dtype=None, unlabeled=None):
        self._unlabeled = unlabeled
        self._of = functools.partial(build_model, config, spec, dtype=dtype)
        self._reduced = functools.partial(
            _reduced_teacher, config, spec, dtype=dtype
        )
        self._freezes = config.freeze_batch_norm

    @property
    def unlabeled(self):
        """The number of unlabeled images.

        Raises:
          ConfigError: if it is not known.
        """
        if self._unlabeled is None:
            raise ConfigError(
                "The learner keeps a value for each unlabeled image; give "
                "their number as unlabeled."
            )
        return self._unlabeled

    def student(self):
        return self._built("student")

    def teacher(self):
        return self._built("teacher")

    def _built(self, role):
        model = self._of(role=role)
        if self._freezes:
            freeze_batch_norm(model)
        return model

    def reduced_teacher(self):
        """The teacher of Reduced MPL, see `models.reduced_teacher`."""
        return self._reduced()


def build_learner(config, spec, *, dtype=None, unlabeled=None):
    """The compiled learner of a run; its seed fixes the fresh weights.

    Args:
      config: `Config`, or the groups of `learner_settings`.
      spec: `DatasetSpec` of the images it is for.
      dtype: see `build_model`; "float64" for comparisons.
      unlabeled: number of unlabeled images, for methods that keep a value for
        each.

    Raises:
      ConfigError: if the method needs a number that is not given.
    """
    keras.utils.set_random_seed(config.seed)
    learner = LEARNERS[config.method].from_settings(
        config,
        Networks(config, spec, dtype=dtype, unlabeled=unlabeled),
        label_smoothing=config.label_smoothing,
        ema_decay=config.ema_decay,
        ema_start=config.ema_start,
        log_every=config.log_every,
        seed=config.seed,
    )
    rate_type = "float64" if dtype == "float64" else "float32"
    optimizer = functools.partial(
        build_optimizer,
        config.optim_type,
        weight_decay=config.weight_decay,
        rmsprop_rho=config.rmsprop_rho,
        rmsprop_momentum=config.rmsprop_momentum,
        rmsprop_epsilon=config.rmsprop_epsilon,
        adam_beta_1=config.adam_beta_1,
        adam_beta_2=config.adam_beta_2,
        adam_epsilon=config.adam_epsilon,
    )
    user_error(
        learner.compile,
        *[optimizer(rate) for rate in build_schedules(config, rate_type)],
        # AdamW itself shrinks the weights by it.
        weight_decay=0.0
        if config.optim_type == "adamw"
        else config.weight_decay,
        grad_bound=config.grad_bound,
        backbone_lr_factor=config.backbone_lr_factor,
        freeze_backbone_steps=config.freeze_backbone_steps,
        layer_lr_decay=config.layer_lr_decay,
        metrics=["accuracy"],
        jit_compile=config.jit_compile,
        steps_per_execution=config.steps_per_execution,
        batch_slices=config.batch_slices,
        width_splits=(
            config.num_cores_per_replica if config.use_xla_sharding else 1
        ),
    )
    return learner


def build_schedules(config, dtype="float32"):
    """A learning-rate schedule per optimizer: student, then teacher."""
    return [
        WaitWarmupDecay(
            scale_by_batch(rate.peak, batch_size=config.train_batch_size),
            wait_steps=rate.wait_steps,
            warmup_steps=rate.warmup_steps,
            decay=config.lr_decay_type,
            num_train_steps=config.num_train_steps,
            decay_steps=config.num_decay_steps,
            decay_rate=config.lr_decay_rate,
            dtype=dtype,
        )
        for rate in LEARNERS[config.method].rates(config)
    ]
