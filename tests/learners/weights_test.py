"""Weights of classes and of examples, as in Keras's own `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import (
    UDA,
    MetaPseudoLabels,
    PseudoLabels,
    Supervised,
)
from meta_pseudo_labels.learners.finetuning import finetune
from meta_pseudo_labels.learners.fixmatch import FixMatch
from meta_pseudo_labels.learners.student_step import take_student_step
from tests.learners.helpers import CLASSES

CLASS_WEIGHT = {0: 0.2, 1: 3.0, 2: 0.0}
SGD = keras.optimizers.SGD
METHODS = {
    "supervised": Supervised,
    "uda": UDA,
    "fixmatch": lambda student, **kw: FixMatch(student, threshold=1.0, **kw),
    "pseudo labels": PseudoLabels,
}


def net(name="student"):
    keras.utils.set_random_seed(1)
    layers = [keras.Input((4,)), keras.layers.Dense(CLASSES)]
    return keras.Sequential(layers, name=name)


def arrays():
    random = np.random.default_rng(0)
    images = random.normal(size=(3, 8, 4)).astype("float32")
    labels = random.integers(CLASSES, size=(3, 8))
    weights = random.uniform(0, 2, size=(3, 8)).astype("float32")
    return images, labels, weights


def batches(*, soft=False, weighted=False, feedback=False):
    images, labels, weights = arrays()
    labels = np.eye(CLASSES, dtype="float32")[labels] if soft else labels
    part = dict(labeled=images, labels=labels, weak=images, strong=images)
    part["unlabeled_distributions"] = np.full((3, 8, CLASSES), 1 / CLASSES, "f")
    if weighted:
        part["sample_weight"] = weights
    if feedback:
        part |= dict(feedback=images[::-1], feedback_labels=labels[::-1])
    return tf.data.Dataset.from_tensor_slices(part)


def fitted(learner, data, **settings):
    learner.compile(SGD(0.5), run_eagerly=True)
    learner.fit(data, verbose=0, **settings)
    return learner


def by_keras(*, weighted=False, **settings):
    images, labels, weights = arrays()
    parts = (images, labels, weights) if weighted else (images, labels)
    model = net()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(SGD(0.5), loss, run_eagerly=True)
    data = tf.data.Dataset.from_tensor_slices(parts)
    model.fit(data, verbose=0, shuffle=False, **settings)
    return model.get_weights()


def assert_close(got, want):
    for one, two in zip(got, want, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("soft", [False, True])
def test_class_weights_are_those_of_keras(soft):
    learner = fitted(
        Supervised(net()), batches(soft=soft), class_weight=CLASS_WEIGHT
    )
    want = by_keras(class_weight=CLASS_WEIGHT)
    assert_close(learner.student.get_weights(), want)
    assert not np.allclose(want[0], by_keras()[0], atol=1e-3)


def test_sample_weights_are_those_of_keras():
    learner = fitted(Supervised(net()), batches(weighted=True))
    assert_close(learner.student.get_weights(), by_keras(weighted=True))


def test_classes_that_are_left_out_weigh_1():
    some, all_ = (
        fitted(Supervised(net()), batches(), class_weight=weights)
        for weights in ({1: 3.0}, {0: 1, 1: 3, 2: 1})
    )
    assert_close(some.student.get_weights(), all_.student.get_weights())


def test_class_weights_in_a_word_are_refused():
    """As the flag has it; here they are a dict, as in Keras."""
    learner = Supervised(net())
    learner.compile("sgd")
    with pytest.raises(ValueError, match="is 'balanced'.*balanced_weights"):
        learner.fit(batches(), class_weight="balanced", verbose=0)


@pytest.mark.fast("supervised")
@pytest.mark.parametrize("name", METHODS)
def test_every_method_weighs_its_labeled_loss_alone(name):
    """Without the labeled loss the student learns what is left of it."""

    def weights(**settings):
        learner = METHODS[name](net(), label_smoothing=0.1)
        return fitted(learner, batches(), **settings).student.get_weights()

    none = {0: 0.0, 1: 0.0, 2: 0.0}
    ones, zeros, twice = (
        weights(class_weight=w)
        for w in ({0: 1.0}, none, dict.fromkeys(none, 2.0))
    )
    assert_close(ones, weights())
    assert not np.allclose(ones[0], twice[0], atol=1e-3)
    learns_more = name in ("uda", "pseudo labels")  # FixMatch is unsure here.
    assert np.allclose(zeros[0], net().get_weights()[0]) != learns_more


def test_the_teacher_learns_weighted_labels():
    learner = MetaPseudoLabels(net("s"), net("t"), feedback="off", uda=None)
    fitted(learner, batches(), class_weight=CLASS_WEIGHT)
    want = by_keras(class_weight=CLASS_WEIGHT)
    assert_close(learner.teacher.get_weights(), want)


@pytest.mark.parametrize("feedback", [False, True])
def test_the_student_is_judged_by_weighted_labels(feedback):
    learner = MetaPseudoLabels(net("s"), net("t"), feedback="exact", uda=None)
    learner.compile(SGD(0.5))
    batch = next(iter(batches(feedback=feedback)))
    prefix = "feedback_" if feedback else ""
    _, labels, weights = arrays()
    images = batch["feedback" if feedback else "labeled"]
    batch[f"{prefix}sample_weight"] = weights[0]
    logits = learner.student(images)
    step, _ = take_student_step(
        learner, batch, pseudo_labels=tf.nn.softmax(batch["strong"][:, :3])
    )
    losses = keras.losses.sparse_categorical_crossentropy(
        batch[f"{prefix}labels"], logits, from_logits=True
    )
    want = np.mean(weights[0] * losses)
    np.testing.assert_allclose(step.labeled_loss_old, want, rtol=1e-5)


@pytest.mark.long
def test_weights_are_shared_by_replicas(mirrored):
    with mirrored(2).scope():
        learner = Supervised(net())
        learner.compile(SGD(0.5))
    learner.fit(batches(), verbose=0, class_weight=CLASS_WEIGHT)
    want = by_keras(class_weight=CLASS_WEIGHT)
    assert_close(learner.student.get_weights(), want)


@pytest.mark.parametrize("weighted", [False, True])
def test_finetuning_weighs_as_keras_does(weighted):
    """By SGD too, so that the steps are the same."""
    images, labels, weights = arrays()
    parts = (images, labels, weights) if weighted else (images, labels)
    settings = {} if weighted else dict(class_weight=CLASS_WEIGHT)
    student = net()
    data = tf.data.Dataset.from_tensor_slices(parts)
    finetune(student, data, learning_rate=0.5, steps=3, **settings)
    assert_close(student.get_weights(), by_keras(weighted=weighted, **settings))


@pytest.mark.parametrize(
    ("data", "class_weight", "message"),
    [
        (batches, {3: 1.0}, "classes from 0 to 2 .* got 3: 1.0"),
        (batches, {0: -1.0}, "at least 0; got 0: -1.0"),
        (batches, {0: float("nan")}, "got 0: nan"),
        (lambda: batches(weighted=True), {0: 2.0}, "give these or class"),
        (lambda: iter(batches()), {0: 2.0}, "needs a tf.data.Dataset of dicts"),
    ],
)
def test_other_weights_are_refused(data, class_weight, message):
    learner = Supervised(net())
    learner.compile(SGD(0.5))
    with pytest.raises(ValueError, match=message):
        learner.fit(data(), class_weight=class_weight, verbose=0)


def test_weights_of_another_shape_are_refused():
    data = batches().map(
        lambda part: part | {"sample_weight": tf.ones([8, CLASSES])}
    )
    with pytest.raises(ValueError, match=r"sample_weight must be \[batch\]"):
        fitted(Supervised(net()), data)
