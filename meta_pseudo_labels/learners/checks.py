"""What learners refuse, before any work starts."""

import keras
import tensorflow as tf

from meta_pseudo_labels import models


def check_model(model, *, role):
    """Refuses a model that cannot be trained here, before any work starts.

    Raises:
      ValueError: for one that is not built, has no weights to train, was built
        outside of the present strategy, or does not return logits.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"The {role} must be a keras.Model; got {type(model).__name__}."
        )
    check_weights(model, role=role)
    strategy = tf.distribute.get_strategy()
    first = model.trainable_variables[0].value
    if not strategy.extended.variable_created_in_scope(first):
        raise ValueError(
            f"The {role} {model.name!r} was built outside of the scope of the "
            "strategy that it is to be trained with. Build models and learner "
            "within one strategy.scope()."
        )
    models.check_classifier(model, role=role)


def check_weights(model, *, role):
    """Refuses a model in which nothing can be trained."""
    if model.built and model.trainable_variables:
        return
    if model.built and model.weights:
        raise ValueError(
            f"The {role} {model.name!r} has no weights to train: all "
            f"{len(model.weights)} are frozen. Set trainable = True of the "
            "model, or of the layers that are to learn."
        )
    raise ValueError(
        f"The {role} {model.name!r} has no weights to train yet. Start it "
        "with keras.Input(shape), or call it once on a batch, before "
        "handing it over; and give it a layer that learns."
    )


def check_range(name, value, *, low, high):
    if not low <= value <= high:
        raise ValueError(f"{name} must be in [{low}, {high}]; got {value}.")


def check_jit_compile(jit_compile, strategy):
    """Refuses XLA under a strategy that it fails or hangs with."""
    replicas = strategy.num_replicas_in_sync
    is_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    if jit_compile and replicas > 1 and not is_tpu:
        raise ValueError(
            f"jit_compile={jit_compile!r} works on one device; here are "
            f"{replicas} replicas. Leave it out."
        )


def check_replicas(optimizer, strategy):
    """Refuses what an optimizer cannot do where replicas must meet for it."""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1 or isinstance(strategy, tf.distribute.TPUStrategy):
        return
    for name in ("gradient_accumulation_steps", "ema_overwrite_frequency"):
        value = getattr(optimizer, name, None)
        if value and (name.startswith("g") or optimizer.use_ema):
            raise ValueError(
                f"{name}={value} of {type(optimizer).__name__} works on one "
                f"device; here are {replicas} replicas. Leave it out."
            )


def check_positive(name, value):
    if not value > 0:
        raise ValueError(f"{name} must be positive; got {value}.")


def check_pair(student, teacher):
    """Refuses a student and a teacher that cannot learn from one another."""
    shared = {id(v) for v in student.variables} & {
        id(v) for v in teacher.variables
    }
    if student is teacher or shared:
        raise ValueError(
            "The student and the teacher share weights; build two models."
        )
    classes = {
        role: getattr(model, "output_shape", (None,))[-1]
        for role, model in (("student", student), ("teacher", teacher))
    }
    check_same_classes(**classes)


def check_same_classes(*, student, teacher):
    """Refuses unequal numbers of logits, where both are known."""
    if None not in (student, teacher) and student != teacher:
        raise ValueError(
            "The student and the teacher must return as many logits; got "
            f"{student} and {teacher}."
        )
