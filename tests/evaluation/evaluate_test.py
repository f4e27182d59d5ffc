"""Logits and accuracy of a classifier over a data set."""

import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.data import from_arrays
from meta_pseudo_labels.evaluation.evaluate import (
    accuracies,
    accuracy,
    class_distributions,
    evaluate,
    evaluate_networks,
    predict_logits,
)
from meta_pseudo_labels.learners import Supervised


def identity_model():
    """Logits are the inputs, by way of a layer that training would disturb."""
    inputs = keras.Input([3])
    x = keras.layers.Dropout(0.5)(inputs)
    outputs = keras.layers.Dense(
        3, use_bias=False, kernel_initializer="identity"
    )(x)
    return keras.Model(inputs, outputs)


LOGITS = np.float32([[9, 0, 0], [0, 1, 2], [5, 4, 3], [-1, -2, -3], [0, 7, 0]])
LABELS = np.int32([0, 1, 0, 2, 1])


def batches(size):
    return tf.data.Dataset.from_tensor_slices((LOGITS, LABELS)).batch(size)


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_every_image_counts_once_in_order(size):
    """Batches of 2 leave a last one of 1."""
    logits, labels = predict_logits(identity_model(), batches(size))
    np.testing.assert_array_equal(logits, LOGITS)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_accuracy_is_the_share_of_right_images(size):
    """Three of five: not the mean of the batches' accuracies."""
    assert accuracy(identity_model(), batches(size)) == pytest.approx(0.6)


def test_accuracy_ends_are_zero_and_one():
    model, data = identity_model(), batches(2)
    right = data.map(lambda x, y: (x, tf.argmax(x, -1)))
    wrong = data.map(lambda x, y: (x, tf.argmin(x, -1)))
    assert accuracy(model, right) == 1.0
    assert accuracy(model, wrong) == 0.0


def test_networks_that_are_not_there_have_no_accuracy():
    opposite = identity_model()
    opposite.layers[-1].kernel.assign(-np.eye(3))
    networks = {"b": identity_model(), "none": None, "a": opposite}
    got = accuracies(networks, batches(2))
    assert list(got) == ["b", "a"]
    # Of the opposite logits only the fourth's largest is its label's.
    assert list(got.values()) == pytest.approx([0.6, 0.2])


def test_a_learner_answers_with_its_average():
    student = identity_model()
    learner = Supervised(student, ema_decay=0.9)
    student.layers[-1].kernel.assign(-np.eye(3))
    logits, _ = predict_logits(learner, batches(5))
    np.testing.assert_array_equal(logits, LOGITS)
    logits, _ = predict_logits(student, batches(5))
    np.testing.assert_array_equal(logits, -LOGITS)


@pytest.mark.parametrize("measure", [evaluate, predict_logits])
@pytest.mark.parametrize(
    ("last", "words"),
    [
        (keras.layers.Softmax(), "probabilities"),
        (keras.layers.Reshape([1, 3]), r"\[batch, 1, 3\]"),
    ],
)
def test_what_are_no_logits_is_refused(measure, last, words):
    model = keras.Sequential([identity_model(), last])
    with pytest.raises(ValueError, match=words) as refused:
        measure(model, batches(2))
    assert "\n" not in str(refused.value)


def test_models_may_have_several_inputs():
    one, two = keras.Input([3], name="one"), keras.Input([3], name="two")
    total = keras.layers.Add()([one, two])
    model = keras.Model(dict(one=one, two=two), identity_model()(total))
    data = batches(2).map(lambda x, y: (dict(one=x, two=x), y))
    logits, _ = predict_logits(model, data)
    np.testing.assert_array_equal(logits, 2 * LOGITS)
    assert evaluate(model, data).top_1 == pytest.approx(0.6)


def test_many_models_are_not_taken_for_one_that_is_retraced(tensorflow_log):
    """TensorFlow warned of "5 out of the last 5 calls" at the sixth."""
    for _ in range(8):
        predict_logits(identity_model(), batches(5))
    assert "retracing" not in tensorflow_log.text


def test_agrees_with_keras():
    learner = Supervised(identity_model(), ema_decay=0.9)
    learner.compile(metrics=["accuracy"])
    results = learner.evaluate(batches(2), verbose=0, return_dict=True)
    assert results["accuracy"] == pytest.approx(
        accuracy(learner, batches(2)), rel=1e-6
    )


def test_no_images_are_named():
    with pytest.raises(ValueError, match="no images"):
        accuracy(identity_model(), batches(2).take(0))
    with pytest.raises(ValueError, match="no images"):
        evaluate(identity_model(), batches(2).take(0))


@pytest.mark.parametrize("size", [1, 2, 9])
def test_an_evaluation_is_of_the_softmax_of_all_images(size):
    found = evaluate(
        identity_model(), batches(size), class_names=("ant", "bee", "cow")
    )
    assert found.images == 5
    assert found.top_1 == pytest.approx(0.6)
    assert found.confusion.tolist() == [[2, 0, 0], [0, 1, 1], [1, 0, 0]]
    assert found.class_names == ("ant", "bee", "cow")
    shares = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=-1, keepdims=True)
    right = shares[np.arange(5), LABELS]
    assert found.nll == pytest.approx(-np.log(right).mean(), rel=1e-6)
    assert found.images_per_second > 0


@pytest.mark.parametrize("remainder", [False, True])
def test_no_batch_is_evaluated_twice(remainder):
    """But one whose size is fixed, to prepare TensorFlow for it."""
    seen = []

    class Exported:
        def __call__(self, images, training):
            tf.py_function(lambda x: seen.append(len(x)), [images], [])
            return images * 2

    data = tf.data.Dataset.from_tensor_slices((LOGITS, LABELS))
    data = data.batch(2, drop_remainder=remainder)
    found = evaluate_networks({"own": Exported()}, data)["own"]
    assert seen == ([2, 2, 2] if remainder else [1, 2, 2, 1])
    logits, labels = predict_logits(Exported(), data)
    np.testing.assert_array_equal(logits, 2 * LOGITS[: len(labels)])
    assert found.top_1 == np.mean(logits.argmax(-1) == labels)


@pytest.mark.parametrize(
    ("size", "clock", "speeds"),
    [
        (2, [0, 90, 90, 95, 95, 96, 96, 100, 100, 180, 180, 300], [2, 0.5]),
        (3, [0, 4, 4, 6, 6, 7, 7, 8], [1, 5 / 3]),
        (5, [0, 10, 10, 12], [0.5, 2.5]),
    ],
)
def test_the_first_batch_of_a_size_is_not_timed_where_more_come(
    monkeypatch, size, clock, speeds
):
    """XLA compiles then; of 2, 2 and 1 images the second batch counts."""
    ticks = types.SimpleNamespace(perf_counter=iter(clock).__next__)
    monkeypatch.setattr(sys.modules[evaluate.__module__], "time", ticks)
    model = identity_model()
    found = evaluate_networks({"a": model, "b": model}, batches(size))
    assert [one.images_per_second for one in found.values()] == speeds


def test_networks_are_evaluated_on_one_reading_of_the_data():
    reads = []

    def generate():
        reads.append(1)
        yield from zip(LOGITS, LABELS, strict=True)

    dataset = tf.data.Dataset.from_generator(
        generate,
        output_signature=(
            tf.TensorSpec([3], tf.float32),
            tf.TensorSpec([], tf.int32),
        ),
    ).batch(2)
    opposite = identity_model()
    opposite.layers[-1].kernel.assign(-np.eye(3))
    networks = {"b": identity_model(), "none": None, "a": opposite}
    found = evaluate_networks(networks, dataset)
    assert [(name, one.top_1) for name, one in found.items()] == [
        ("b", pytest.approx(0.6)),
        ("a", pytest.approx(0.2)),
    ]
    assert len(reads) == 1


def test_logits_that_are_not_finite_say_nothing():
    """A third for each class; the other image is right and nearly sure."""
    bad = tf.data.Dataset.from_tensor_slices(
        (np.float32([[np.nan, 0, 1], [0, 0, 50]]), np.int32([2, 2]))
    ).batch(2)
    found = evaluate(identity_model(), bad)
    assert found.top_1 == 0.5
    assert found.nll == pytest.approx(np.log(3) / 2)


def test_labels_of_other_classes_are_refused():
    more = batches(2).map(lambda x, y: (x, y + 1))
    with pytest.raises(ValueError, match="network has 3 classes"):
        evaluate(identity_model(), more)


def test_class_distributions_of_all_images():
    """Logits are the image's normalized pixels; softmax by hand."""
    pixels = np.uint8([[0, 0, 0], [255, 0, 0], [0, 255, 255]])
    images = np.broadcast_to(pixels[:, None, None], [3, 8, 8, 3])
    problem = from_arrays(images[:2], [0, 1], images[1:], num_classes=3)
    inputs = keras.Input([8, 8, 3])
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dropout(0.5)(x))
    got = class_distributions(model, problem, batch_size=2)
    e = np.exp(2.0)  # Normalized, black is -1 and white is 1.
    want = [[1 / 3] * 3, [e / (e + 2), 1 / (e + 2), 1 / (e + 2)]]
    np.testing.assert_allclose(got.labeled, want, rtol=1e-6)
    want = [want[1], [1 / (1 + 2 * e), e / (1 + 2 * e), e / (1 + 2 * e)]]
    np.testing.assert_allclose(got.unlabeled, want, rtol=1e-6)


def test_no_unlabeled_images_leave_no_distributions():
    images = np.zeros([2, 8, 8, 3], np.uint8)
    inputs = keras.Input([8, 8, 3])
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    got = class_distributions(
        keras.Model(inputs, x),
        from_arrays(images, [0, 1], images[:0], num_classes=3),
        batch_size=2,
    )
    assert got.labeled.shape == (2, 3)
    assert got.unlabeled.shape == (0, 3)


def test_who_waits_is_told_of_every_batch_that_is_done():
    told = []
    model = identity_model()
    predict_logits(model, batches(2), count=told.append)
    evaluate_networks({"a": model, "b": model}, batches(3), count=told.append)
    assert told == [2, 2, 1, 3, 2]
