"""Models and learners from settings."""

import functools

import keras

from meta_pseudo_labels import learners, models
from meta_pseudo_labels.optimizers import Momentum
from meta_pseudo_labels.schedules import WaitWarmupDecay, scale_by_batch


def build_model(config, spec, *, role):
    """The network of a role, with fresh weights.

    Args:
      config: `Config`.
      spec: `DatasetSpec` of the images it is for.
      role: "student" or "teacher".
    """
    model_type = config.model_type
    if role == "teacher" and config.teacher_model_type:
        model_type = config.teacher_model_type
    return models.build(
        model_type,
        input_shape=(spec.image_size, spec.image_size, 3),
        num_classes=spec.num_classes,
        dropout_rate=config.dense_dropout_rate,
        batch_norm_decay=config.batch_norm_decay,
        batch_norm_epsilon=config.batch_norm_epsilon,
        name=role,
    )


def build_learner(config, spec):
    """The compiled learner of a run; its seed fixes the fresh weights.

    Args:
      config: `Config`.
      spec: `DatasetSpec` of the images it is for.
    """
    keras.utils.set_random_seed(config.seed)
    learner = _learner(config, spec)
    learner.compile(
        *[Momentum(schedule) for schedule in build_schedules(config)],
        weight_decay=config.weight_decay,
        grad_bound=config.grad_bound,
        metrics=["accuracy"],
    )
    return learner


def _learner(config, spec):
    student = build_model(config, spec, role="student")
    settings = dict(
        label_smoothing=config.label_smoothing,
        ema_decay=config.ema_decay,
        ema_start=config.ema_start,
        log_every=config.log_every,
        seed=config.seed,
    )
    if config.method == "supervised":
        return learners.Supervised(student, **settings)
    uda = learners.UDASettings(
        weight=config.uda_weight,
        ramp_steps=config.uda_steps,
        temperature=config.uda_temp,
        threshold=config.uda_threshold,
        num_train_steps=config.num_train_steps,
    )
    if config.method == "uda":
        return learners.UDA(student, uda=uda, **settings)
    return learners.MetaPseudoLabels(
        student,
        build_model(config, spec, role="teacher"),
        feedback=config.mpl_feedback,
        pseudo_labels=config.mpl_pseudo_labels,
        uda=uda,
        baseline_decay=config.mpl_baseline_decay,
        update_teacher_moments=config.mpl_update_teacher_moments,
        **settings,
    )


def build_schedules(config):
    """A learning-rate schedule per optimizer: student, then teacher."""
    schedule = functools.partial(
        WaitWarmupDecay,
        decay=config.lr_decay_type,
        num_train_steps=config.num_train_steps,
        decay_steps=config.num_decay_steps,
        decay_rate=config.lr_decay_rate,
    )
    scale = functools.partial(
        scale_by_batch, batch_size=config.train_batch_size
    )
    if config.method != "mpl":
        rate = scale(config.lr)
        return [schedule(rate, warmup_steps=config.num_warmup_steps)]
    return [
        schedule(
            scale(config.mpl_student_lr),
            warmup_steps=config.mpl_student_lr_warmup_steps,
            wait_steps=config.mpl_student_lr_wait_steps,
        ),
        schedule(
            scale(config.mpl_teacher_lr),
            warmup_steps=config.mpl_teacher_lr_warmup_steps,
        ),
    ]
