"""How good a classifier is."""

import time

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from sklearn.metrics import accuracy_score

from meta_pseudo_labels.data.class_distributions import (
    ClassDistributions,
    ordered_images,
)
from meta_pseudo_labels.evaluation.metrics import evaluate_probabilities
from meta_pseudo_labels.learners.batch_checks import (
    check_normalized,
    warn_of_levels,
)
from meta_pseudo_labels.models import check_logits


def evaluate(model, dataset, *, class_names=()):
    """Evaluates a classifier: accuracy, classes, calibration, speed.

        test = data.evaluation_dataset(images, labels, spec, batch_size=128)
        evaluation = evaluate(learner, test, class_names=spec.class_names)
        print(evaluation.top_1, evaluation.ece, evaluation.confusion)

    Args:
      model: a Keras model that returns logits; a learner answers with its
        averaged student.
      dataset: finite `tf.data.Dataset` of batches (images, integer labels
        [batch]).
      class_names: [classes] strings; by default the classes' numbers.

    Returns:
      `metrics.Evaluation`.

    Raises:
      ValueError: if the data set is empty or has uint8 images that the model
        does not rescale, the model does not return logits, or the labels or
        the names do not fit them.
    """
    networks = {"model": model}
    return evaluate_networks(networks, dataset, class_names=class_names)[
        "model"
    ]


def evaluate_networks(networks, dataset, *, class_names=(), count=None):
    """Evaluates several classifiers, reading the data once.

    Args:
      networks: a dict from names to models; a model that is None is left out.
      dataset: see `evaluate`.
      class_names: see `evaluate`.
      count: called with the number of images of every finished batch.

    Returns:
      A dict from names to `metrics.Evaluation`.

    Raises:
      ValueError: see `evaluate`.
    """
    logits, labels, speeds = _timed_logits(
        {name: model for name, model in networks.items() if model is not None},
        dataset,
        count,
    )
    return {
        # Released one by one: there may be a thousand classes.
        name: evaluate_probabilities(
            _probabilities(logits.pop(name), name),
            labels,
            class_names=class_names,
            images_per_second=speeds[name],
        )
        for name in list(logits)
    }


def _timed_logits(networks, dataset, count):
    """Logits by network, the labels, and each network's images per second.

    Only the networks are timed, after a first image that is not counted:
    TensorFlow optimizes the graphs at that one.
    """
    forward = {
        name: _inference(model, dataset.element_spec[0])
        for name, model in networks.items()
    }
    logits = {name: [] for name in networks}
    seconds, labels = {name: [] for name in networks}, []
    for images, some_labels in dataset:
        for name in networks:
            if not labels:
                if isinstance(networks[name], keras.Model):  # Not an export.
                    check_normalized(images, networks[name])
                    warn_of_levels(images, networks[name])
                forward[name](_first(images, forward[name]))
            start = time.perf_counter()
            logits[name].append(forward[name](images).numpy())
            seconds[name].append(time.perf_counter() - start)
        labels.append(some_labels.numpy())
        if count:
            count(len(labels[-1]))
    if not sum(map(len, labels)):
        raise ValueError("There are no images to evaluate on; give some.")
    return (
        {name: np.concatenate(parts) for name, parts in logits.items()},
        np.concatenate(labels),
        _speeds(seconds, np.array([len(part) for part in labels])),
    )


def _speeds(seconds, sizes):
    """Images per second, of batches whose size came before if there are any.

    XLA compiles for every size.
    """
    _, firsts = np.unique(sizes, return_index=True)
    timed = ~np.isin(np.arange(len(sizes)), firsts)
    timed |= not timed.any()
    return {
        name: float(sizes[timed].sum() / np.array(own)[timed].sum())
        for name, own in seconds.items()
    }


def _first(images, graph):
    """The first image of a batch; all if the graph does not accept fewer."""
    *_, spec = tf.nest.flatten(graph.structured_input_signature[0])
    if spec.shape[0] is not None:
        return images
    return tf.nest.map_structure(lambda part: part[:1], images)


def _probabilities(logits, name):
    """softmax in float64; uniform where the logits are not finite."""
    probabilities = tf.nn.softmax(tf.cast(logits, tf.float64)).numpy()
    broken = ~np.isfinite(probabilities).all(axis=-1)
    if broken.any():
        logging.warning(
            "%s: the logits of %d of %d images are not finite; for these, all "
            "classes count as equally probable.",
            name,
            broken.sum(),
            len(broken),
        )
        probabilities[broken] = 1 / probabilities.shape[-1]
    return probabilities


def predict_logits(model, dataset, *, count=None):
    """A model's inference logits for every image, and the images' labels.

    Args:
      model: a Keras model that returns logits; a learner answers with its
        averaged student.
      dataset: finite `tf.data.Dataset` of batches (images, integer labels
        [batch]).
      count: see `evaluate_networks`.

    Returns:
      Logits [images, classes] and labels [images], as NumPy arrays.

    Raises:
      ValueError: if the data set is empty.
    """
    forward = _inference(model, dataset.element_spec[0])
    batches = []
    for images, labels in dataset:
        batches.append((forward(images), labels))
        if count:
            count(len(labels))
    if not batches:
        raise ValueError("There are no images to evaluate on; give some.")
    logits, labels = zip(*batches, strict=True)
    return np.concatenate(logits), np.concatenate(labels)


def traced(model, spec):
    """A model's inference as a graph for inputs of one specification.

    Not left to its first call: TensorFlow counts calls that trace, and would
    warn as if the graphs of many models were one that is traced again and
    again.
    """
    return tf.function(
        lambda images: model(images, training=False), autograph=False
    ).get_concrete_function(spec)


def _inference(model, spec):
    """The model's inference as a graph, the same one for every evaluation.

    It is kept on the model in a way that hides it from Keras and its files: a
    graph for each evaluation would fill the memory of a long run.
    """
    graphs = vars(model).setdefault("_inference_graphs", {})
    key = tuple(tf.nest.flatten(spec))
    if key not in graphs:
        graph = traced(model, spec)
        name = getattr(model, "name", type(model).__name__)  # Exports lack it.
        check_logits(graph.structured_outputs, owner=f"The model {name!r}")
        graphs[key] = graph
    return graphs[key]


def accuracy(model, dataset):
    """Share of images whose largest logit is the label's, in [0, 1].

    Args:
      model: see `predict_logits`.
      dataset: see `predict_logits`.
    """
    logits, labels = predict_logits(model, dataset)
    return float(accuracy_score(labels, logits.argmax(axis=-1)))


def accuracies(networks, dataset):
    """The accuracy of each network, in the order given.

    Args:
      networks: a dict from names to models; a model that is None is left out.
      dataset: see `predict_logits`.
    """
    return {
        name: accuracy(network, dataset)
        for name, network in networks.items()
        if network is not None
    }


def class_distributions(model, data, *, batch_size, source=None, count=None):
    """A model's predictions for all training images.

    They are for the images themselves, not augmented views, in inference mode.
    A damaged record gets the uniform distribution; no batch shows it.

    Args:
      model: see `predict_logits`.
      data: `ImageData` or `ShardedData`.
      batch_size: images at a time.
      source: where the model comes from, a dict for JSON.
      count: see `evaluate_networks`.

    Returns:
      `data.ClassDistributions`.
    """
    return ClassDistributions(
        labeled=_distributions(
            model, data.labeled_images, data.spec, batch_size, count
        ),
        unlabeled=_distributions(
            model, data.unlabeled_images, data.spec, batch_size, count
        ),
        source=source or {},
    )


def _distributions(model, images, spec, batch_size, count):
    """[images, classes] float32."""
    if not len(images):
        return np.zeros([0, spec.num_classes], np.float32)
    dataset = ordered_images(images, spec, batch_size=batch_size)
    logits, found = predict_logits(model, dataset, count=count)
    logits = np.where(found[:, np.newaxis], logits, 0.0)
    return tf.nn.softmax(tf.cast(logits, tf.float32)).numpy()
