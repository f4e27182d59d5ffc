"""What learners refuse, before any work starts."""

import functools
import inspect
import numbers

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from meta_pseudo_labels import models
from meta_pseudo_labels.learners.losses import WEIGHT_KEYS
from meta_pseudo_labels.utils import compat
from meta_pseudo_labels.utils.registry import nearest
from meta_pseudo_labels.utils.settings import ConfigError

_ARGUMENTS = ["student_step", "teacher_logits"]
_PACKAGE = "meta_pseudo_labels."  # Our own estimators need no check.
_LOOKED_AT = 64  # Images of an array.
# Keys that `data.training_dataset` makes for one method or another.
_KEYS = (
    *("labeled", "labels", "weak", "strong", "feedback", "feedback_labels"),
    *("labeled_distributions", "unlabeled_distributions"),
)
_LABELED = {"labeled", "labels"}  # In every batch to train on.
_NO_BUILD = keras.layers.Layer.build
_NORMALIZED = 30  # Deviations; more than normalized images have.


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


def check_lengths(arrays):
    """Refuses a dict of arrays to train on that have different lengths."""
    shapes = {key: getattr(x, "shape", None) for key, x in arrays.items()}
    lengths = {key: shape[0] for key, shape in shapes.items() if shape}
    if len(set(lengths.values())) > 1:
        got = ", ".join(f"{n} of {key}" for key, n in lengths.items())
        raise ValueError(
            "fit cannot make batches of arrays of different lengths; got "
            f"{got}. data.training_dataset makes them of data.from_arrays, and "
            "data.two_view_dataset of inputs of any kind."
        )


def batch_of(data):
    """The batch in what Keras feeds to a step: that alone, or in a tuple."""
    if not isinstance(data, tuple):
        return data
    batch, *others = (  # None that comes from a generator.
        None if isinstance(x, tf.experimental.Optional) else x for x in data
    )
    check_only_batch(**dict(zip(("y", "sample_weight"), others, strict=False)))
    return batch


def check_only_batch(**others):
    """Refuses what Keras takes beside a batch and learners want in it.

    Raises:
      ValueError: if any of the values is not None.
    """
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise ValueError(
            f"Learners train on dicts, without {' and '.join(given)} beside "
            "them: put the labels into each under the key labels, and weights "
            "under sample_weight. class_weight is an argument of fit."
        )


def check_batch(batch, *, needed, learner, networks):
    """Refuses a batch that lacks what a step needs; logs a mistyped key.

    Args:
      batch: see `Learner`.
      needed: keys that the step reads.
      learner: the name of its class.
      networks: those that see its images.

    Raises:
      ValueError: for a batch without some of these keys, for images that
        `check_normalized` refuses, and for images to judge the student on
        that have no labels.
    """
    keys = set(batch) if isinstance(batch, dict) else set()
    if not keys.issuperset(needed):
        found = sorted(keys) if keys else type(batch).__name__
        raise ValueError(
            f"{learner} trains on a tf.data.Dataset of dicts with the keys "
            f"{', '.join(needed)}; got {found}. See data.training_dataset."
        )
    known = {*_KEYS, *WEIGHT_KEYS, *needed}
    for key in keys - known:
        _tell_of_unread(learner, key, nearest(key, known))
    for key in keys & {"labeled", "weak", "strong", "feedback"}:
        for network in networks:
            check_normalized(batch[key], network, key=key)
    if "feedback" in keys and "feedback_labels" not in keys:
        raise ValueError(
            "The batch has images to judge the student on under the key "
            "feedback, but no labels for them; add feedback_labels."
        )


@functools.cache
def _tell_of_unread(learner, key, hint):
    """Logs a key that nobody reads, once, if it looks like a typo."""
    if hint:
        logging.warning("%s does not read the key %r%s", learner, key, hint)


def check_normalized(inputs, model, *, key=None):
    """Refuses uint8 images, which have not been normalized yet.

    They are allowed if the model accepts uint8, or begins by rescaling levels.
    Only images are looked at, [batch, height, width, channels]: text and
    numbers may be bytes.

    Args:
      inputs: of the model, a nest of tensors.
      model: the one they are for.
      key: their key in a batch, for the message.

    Raises:
      ValueError: see above.
    """
    levels = any(
        x.dtype == "uint8" and tf.TensorShape(x.shape).rank in (4, None)
        for x in tf.nest.flatten(inputs)
    )
    if levels and not _brings_to_a_range(model):
        raise ValueError(
            f"Got uint8 images{f' under the key {key}' if key else ''}, but "
            "learners need normalized ones: pass them through data.normalize, "
            "or use data.training_dataset and data.evaluation_dataset."
        )


def check_labeled(x, y, *, taker):
    """Refuses what cannot be evaluated on: no labels, or training batches.

    Args:
      x, y: of `keras.Model.evaluate`; nothing is known of generators, nor of
        the data sets of other libraries.
      taker: the name of the argument or method, for the message.
    """
    found = getattr(x, "element_spec", x)  # Of a data set of TensorFlow.
    if isinstance(x, keras.utils.PyDataset):
        found = x[0]
    known = isinstance(found, (dict, tuple, list)) or hasattr(found, "shape")
    if x is None or y is not None or not known:
        return
    if found is not x and isinstance(found, (tuple, list)) and len(found) > 1:
        return
    if isinstance(found, dict) and not _LABELED - found.keys():
        got = "got batches to train on"
    else:
        got = "got no labels"
    raise ValueError(
        f"{taker} takes inputs and labels, as arrays or as batches of both, "
        f"such as those of data.evaluation_dataset; {got}."
    )


def warn_of_levels(x, model):
    """Logs a line if images to predict on do not look normalized.

    Args:
      x: input of `predict` or `evaluate`: of arrays the first 64 images are
        checked, of a tf.data.Dataset or a PyDataset the first batch.
      model: the one that will see them.
    """
    if _brings_to_a_range(model):
        return
    if isinstance(x, (tf.data.Dataset, keras.utils.PyDataset)):
        is_data = isinstance(x, tf.data.Dataset)
        x = next(iter(x.take(1)), None) if is_data else x[0]
        x = x[0] if isinstance(x, tuple) else x
    for images in tf.nest.flatten(x):
        if len(getattr(images, "shape", ())) != 4 or not len(images):
            continue
        images = np.asarray(images[:_LOOKED_AT])
        low, high = images.min(), images.max()
        if np.issubdtype(images.dtype, np.integer) or not (
            low >= 0
            and (high <= 1 and high > low or high > _NORMALIZED)
            or not np.isfinite(low + high)
        ):
            continue
        logging.warning(
            "The images have values from %.4g to %.4g, as if they were not "
            "normalized: networks expect (levels / 255 - mean) / std, see "
            "data.normalize. This is fine if they were trained on such images.",
            low,
            high,
        )


def _brings_to_a_range(model):
    """Whether a model accepts levels as they are in files."""
    scales = keras.layers.Rescaling, keras.layers.Normalization
    inputs = getattr(model, "inputs", None) or ()
    return any(
        [isinstance(layer, scales) for layer in compat.layers_of(model)]
        + [one.dtype == "uint8" for one in inputs]
    )


def check_range(name, value, *, low, high):
    if not low <= value <= high:
        raise ValueError(f"{name} must be in [{low}, {high}]; got {value}.")


def check_count(name, value):
    """Refuses what is no integer of at least 1."""
    is_whole = isinstance(value, numbers.Integral) and value is not True
    if not (is_whole and value >= 1):
        raise ValueError(
            f"{name} must be an integer of at least 1; got {value!r}."
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
