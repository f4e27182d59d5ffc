"""Feedback over several steps of the student, on networks of two layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks.frozen_features.look_ahead import LookAhead
from meta_pseudo_labels import MetaPseudoLabels

WIDTH, CLASSES = 3, 2
TEMPERATURE = 0.5


def network(seed):
    model = keras.Sequential(
        [
            keras.Input((WIDTH,)),
            keras.layers.Dense(5, activation="relu"),
            keras.layers.Dense(CLASSES),
        ]
    )
    random = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape))
    return model


def learner_of(feedback):
    learner = MetaPseudoLabels(
        network(0),
        network(1),
        feedback=feedback,
        label_temperature=TEMPERATURE,
        uda=None,
    )
    learner.compile(keras.optimizers.SGD(0.3, momentum=0.9, nesterov=True))
    # A momentum of its own, as after some steps.
    for slot in learner.optimizer.variables[2:]:
        slot.assign(np.full(slot.shape, 0.1))
    return learner


def images(seed, rows=6):
    random = np.random.default_rng(seed)
    return tf.constant(random.normal(size=[rows, WIDTH]), "float32")


def a_batch():
    return {
        "labeled": images(2),
        "labels": tf.constant([0, 1] * 3),
        "strong": images(3),
    }


def test_one_step_is_exact():
    ahead, exact = LookAhead(1), learner_of("exact")
    learner = learner_of(ahead)
    before = [w.numpy() for w in learner.teacher.weights]
    ahead.prepare(learner, a_batch(), [])
    learner.train_step(a_batch())
    exact.train_step(a_batch())
    for name in ("teacher", "student"):
        pairs = zip(
            getattr(learner, name).get_weights(),
            getattr(exact, name).get_weights(),
            strict=True,
        )
        for found, expected in pairs:
            np.testing.assert_allclose(found, expected, atol=2e-6)
    moved = [
        np.abs(w.numpy() - old).max()
        for w, old in zip(learner.teacher.weights, before, strict=True)
    ]
    assert min(moved) > 1e-3


@pytest.mark.parametrize("steps", [2, 4])
def test_it_is_the_loss_of_a_student_that_takes_these_steps(steps):
    ahead = LookAhead(steps)
    learner, batch = learner_of(ahead), a_batch()
    coming = [images(10 + number) for number in range(steps - 1)]
    ahead.prepare(learner, batch, coming)

    def labels_of(views):
        return learner.teacher(views) / TEMPERATURE

    def look():
        return ahead(None, labels_of(batch["strong"]))

    with tf.GradientTape() as tape:
        found = look()
    head = learner.teacher.trainable_variables[-2]
    slope, direction = tape.gradient(found, head), images(4, 5)[:, :CLASSES]
    ends = []
    for sign in (1, -1):
        head.assign_add(sign * 1e-2 * direction)
        ends.append(look())
        head.assign_sub(sign * 1e-2 * direction)
    differences = (ends[0] - ends[1]) / 2e-2
    np.testing.assert_allclose(
        tf.reduce_sum(slope * direction), differences, rtol=0.01
    )
    # The real student, by Keras's optimizer.
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    for views in [batch["strong"], *coming]:
        targets = tf.nn.softmax(labels_of(views))
        with tf.GradientTape() as tape:
            value = loss(targets, learner.student(views))
        weights = learner.student.trainable_variables
        learner.optimizer.apply(tape.gradient(value, weights), weights)
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        batch["labels"], learner.student(batch["labeled"])
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
