"""What learners refuse of models, estimators and settings, before any work."""

import inspect
import math
import numbers

import keras
import tensorflow as tf
from absl import logging

from meta_pseudo_labels import models
from meta_pseudo_labels.utils import compat
from meta_pseudo_labels.utils.settings import ConfigError

_ARGUMENTS = ["student_step", "teacher_logits"]
_PACKAGE = "meta_pseudo_labels."  # Our own estimators need no check.
_NO_BUILD = keras.layers.Layer.build


def check_model(model, *, role):
    """Refuses a model that cannot be trained here, before any work starts.

    Raises:
      ValueError: for one that is a learner, is not built, has no weights to
        train, was built outside the current strategy, or does not return
        logits.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"The {role} must be a keras.Model; got {type(model).__name__}."
        )
    if hasattr(model, "finished_student"):
        raise ValueError(
            f"The {role} must be a network; got a learner, "
            f"{type(model).__name__}. Pass learner.finished_student(), or the "
            "network that it was made of."
        )
    check_weights(model, role=role)
    strategy = tf.distribute.get_strategy()
    first = model.trainable_variables[0].value
    if not strategy.extended.variable_created_in_scope(first):
        if not tf.distribute.has_strategy():
            raise ValueError(
                f"The {role} {model.name!r} was built within the scope of a "
                "strategy: call finetune, or make the learner, within the same "
                "scope, such as learner.distribute_strategy.scope()."
            )
        raise ValueError(
            f"The {role} {model.name!r} was built outside of the scope of the "
            "strategy that it is to be trained with. Build models and learner "
            "within one strategy.scope()."
        )
    models.check_classifier(model, role=role)


def check_weights(model, *, role):
    """Refuses a model in which nothing, or not yet all, can be trained."""
    if model.built and model.trainable_variables:
        late = [
            layer.name
            for layer in compat.layers_of(model)
            # Others have no weights to make.
            if not layer.built and type(layer).build is not _NO_BUILD
        ]
        if late:
            raise ValueError(
                f"The {role} {model.name!r} has layers without weights yet: "
                f"{', '.join(late)}. Call it once on a batch with "
                "training=True; and remove layers that it never calls."
            )
        return
    if model.built and model.weights:
        raise ValueError(
            f"The {role} {model.name!r} has no weights to train: all "
            f"{len(model.weights)} are frozen. Set trainable = True on the "
            "model, or on the layers that should learn."
        )
    raise ValueError(
        f"The {role} {model.name!r} has no weights to train yet. Start it "
        "with keras.Input(shape), or call it once on a batch, before "
        "handing it over; and give it a layer that learns."
    )


def check_range(name, value, *, low, high):
    if not low <= value <= high:
        raise ValueError(f"{name} must be in [{low}, {high}]; got {value}.")


def check_count(name, value, *, high=math.inf):
    """Refuses what is no integer of at least 1, or above `high`."""
    is_whole = isinstance(value, numbers.Integral) and value is not True
    if not (is_whole and 1 <= value <= high):
        most = "" if high == math.inf else f" and at most {high}"
        raise ValueError(
            f"{name} must be an integer of at least 1{most}; got {value!r}."
        )


def check_jit_compile(jit_compile, strategy):
    """Refuses XLA under a strategy with which it fails or hangs."""
    replicas = strategy.num_replicas_in_sync
    is_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    if jit_compile and replicas > 1 and not is_tpu:
        raise ValueError(
            f"jit_compile={jit_compile!r} works on one device; there are "
            f"{replicas} replicas. Leave it out."
        )


def check_replicas(optimizer, strategy):
    """Refuses optimizer options that would need several replicas to meet."""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1 or isinstance(strategy, tf.distribute.TPUStrategy):
        return
    for name in ("gradient_accumulation_steps", "ema_overwrite_frequency"):
        value = getattr(optimizer, name, None)
        if value and (name.startswith("g") or optimizer.use_ema):
            raise ValueError(
                f"{name}={value} of {type(optimizer).__name__} works on one "
                f"device; there are {replicas} replicas. Leave it out."
            )


def check_positive(name, value):
    if not value > 0:
        raise ValueError(f"{name} must be positive; got {value}.")


def check_pair(student, teacher):
    """Refuses a student and a teacher that cannot learn from one another."""
    if student is teacher or _moving(student) & _moving(teacher):
        raise ValueError(
            "The student and the teacher share weights that training changes; "
            "build two models, or freeze the layers that they share."
        )
    classes = {
        role: getattr(model, "output_shape", (None,))[-1]
        for role, model in (("student", student), ("teacher", teacher))
    }
    check_same_classes(**classes)


def check_apart(student, teacher):
    """Refuses to save, whole, two networks that share a layer.

    Keras writes the layer's weights once, and cannot read such a file again.
    """
    theirs = {id(layer) for layer in compat.layers_of(teacher)}
    for layer in compat.layers_of(student):
        if layer.variables and id(layer) in theirs:
            raise ValueError(
                f"The student and the teacher share the layer {layer.name!r}, "
                "and Keras could not load them from one file. Save "
                "learner.finished_student(), or weights, with save_weights."
            )


def _moving(model):
    """Identities of the variables that training changes, as a set."""
    still = {
        id(v)
        for layer in compat.layers_of(model)
        if not layer.trainable or isinstance(layer, keras.layers.Normalization)
        for v in layer.non_trainable_variables
    }
    return {id(v) for v in model.variables} - still


def check_same_classes(*, student, teacher):
    """Refuses unequal numbers of logits, if both are known."""
    if None not in (student, teacher) and student != teacher:
        raise ValueError(
            "The student and the teacher must return the same number of "
            f"logits; got {student} and {teacher}."
        )


def check_estimator(function):
    """Refuses anything that cannot be called with a student's step and logits.

    Raises:
      ConfigError: if it is not a function, or takes other arguments.
    """
    wanted = "a function of (student_step, teacher_logits)"
    if not callable(function) or inspect.isclass(function):
        raise ConfigError(
            f"An estimator is {wanted}, or a name; got {function!r}."
        )
    try:
        signature = inspect.signature(function)
    except ValueError:  # Some functions written in C have no signature.
        return
    try:
        signature.bind(None, None)
        fits = [*signature.parameters][:2] != _ARGUMENTS[::-1]
    except TypeError:
        fits = False
    if not fits:
        raise ConfigError(
            f"An estimator is {wanted}, in this order; "
            f"{_name_of(function)} has the arguments {signature}."
        )


def checked_loss(function, student_step, teacher_logits, tape, *, learner):
    """The loss of an estimator; a user's own estimator is validated.

    Args:
      function: an estimator, see `learners.feedback`.
      student_step: `StudentStep`.
      teacher_logits: on the strong views, [unlabeled, classes].
      tape: a persistent one that records the logits.
      learner: keeps track of the estimators warned of, to warn of each once.

    Returns:
      A scalar.

    Raises:
      ConfigError: if a user's own estimator returns anything else.
    """
    loss = function(student_step, teacher_logits)
    scope = getattr(function, "__globals__", {})  # Wrappers have their own.
    if scope.get("__name__", "").startswith(_PACKAGE):
        return loss
    shape = getattr(loss, "shape", () if isinstance(loss, int | float) else "?")
    wrong = f"feedback {_name_of(function)!r} must return a scalar loss; got "
    if shape == "?":
        raise ConfigError(f"{wrong}{type(loss).__name__}.")
    if tf.TensorShape(shape).rank not in (0, None):
        raise ConfigError(
            f"{wrong}shape {shape}. If it is one number for each image, take "
            "tf.reduce_mean."
        )
    loss = tf.ensure_shape(tf.cast(loss, teacher_logits.dtype), [])
    with tape.stop_recording():
        heard = tape.gradient(loss, teacher_logits) is not None
    # Hidden from Keras; a step is traced more than once.
    warned = vars(learner).setdefault("_silent_estimators", [])
    if not heard and function not in warned:
        warned.append(function)
        logging.warning(
            "The loss of feedback %r has no gradient with respect to the "
            "teacher's logits, so the teacher learns nothing from it.",
            _name_of(function),
        )
    return loss


def _name_of(function):
    return getattr(function, "__name__", str(function))
