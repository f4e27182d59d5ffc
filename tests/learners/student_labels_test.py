"""A student that learns labels too, and labels that weak views give."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.learners import MetaPseudoLabels, UDASettings, mpl
from meta_pseudo_labels.learners.build import build_learner
from meta_pseudo_labels.learners.student_step import take_student_step
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.utils.settings import ConfigError
from tests.learners.helpers import CLASSES, batch, conv_net, values

WEIGHT, RATE = 0.7, 0.125  # The rate is exact in float32.


def make_learner(**settings):
    keras.utils.set_random_seed(1)
    learner = MetaPseudoLabels(
        conv_net("student"), conv_net("teacher"), **settings
    )
    learner.compile(keras.optimizers.SGD(RATE), weight_decay=0.0)
    return learner


def data_of(held_out):
    given = batch()
    if held_out:
        other = batch(seed=5)
        given["feedback"] = other["labeled"]
        given["feedback_labels"] = other["labels"]
    return given


@pytest.fixture
def pseudo_labels():
    logits = np.random.default_rng(2).normal(size=[6, CLASSES])
    return tf.nn.softmax(logits)


@pytest.mark.parametrize("held_out", [False, True])
def test_a_step_is_that_of_both_losses(held_out, pseudo_labels):
    learner = make_learner(student_labeled_weight=WEIGHT)
    given, student = data_of(held_out), learner.student
    names = ["strong", "labeled", *(["feedback"] if held_out else [])]
    joint = tf.concat([given[name] for name in names], 0)
    with tf.GradientTape() as tape:
        log_probabilities = tf.nn.log_softmax(student(joint, training=True))
        on_pseudo = tf.reduce_sum(pseudo_labels * log_probabilities[:6]) / 6
        rows = tf.range(6, 10)
        picked = tf.gather_nd(
            log_probabilities, tf.stack([rows, given["labels"]], axis=1)
        )
        loss = -on_pseudo - WEIGHT * tf.reduce_mean(picked)
    gradients = tape.gradient(loss, student.trainable_variables)
    want = [
        variable - RATE * gradient
        for variable, gradient in zip(
            student.trainable_variables, gradients, strict=True
        )
    ]
    take_student_step(learner, given, pseudo_labels=pseudo_labels)
    for got, expected in zip(student.trainable_variables, want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("held_out", [False, True])
def test_exact_is_the_derivative_of_a_step_on_both(held_out, pseudo_labels):
    learner = make_learner(student_labeled_weight=WEIGHT)
    given = data_of(held_out)
    state = learner.student.variables + learner.optimizer.variables
    saved = values(state)

    def step_at(labels):
        for variable, value in zip(state, saved, strict=True):
            variable.assign(value)
        return take_student_step(learner, given, pseudo_labels=labels)[0]

    direction = np.random.default_rng(3).normal(size=[6, CLASSES])
    up, down = (
        float(step_at(pseudo_labels + sign * 1e-5 * direction).labeled_loss_new)
        for sign in (1, -1)
    )
    slope = np.sum(step_at(pseudo_labels).label_gradient() * direction)
    assert abs(slope) > 1e-4
    np.testing.assert_allclose(slope, (up - down) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize("view", ["strong", "weak"])
def test_labels_are_what_the_teacher_says_of_that_view(view, monkeypatch):
    learner = make_learner(
        label_view=view,
        label_temperature=0.5,
        uda=UDASettings(weight=0.0),
        update_teacher_moments=False,
    )
    given, labels = batch(), []

    def spy(learner, batch, *, pseudo_labels):
        labels.append(pseudo_labels)
        return take_student_step(learner, batch, pseudo_labels=pseudo_labels)

    monkeypatch.setattr(mpl, "take_student_step", spy)
    logits = learner.teacher_logits(given)
    want = tf.nn.softmax(getattr(logits, view) / 0.5)
    learner.train_step(given)
    np.testing.assert_allclose(labels[0], want, rtol=1e-9)
    assert float(learner.feedback_grad_ratio) > 0  # It is heard.


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(label_view="both"), "label_view is 'both'; choose one of strong"),
        (dict(label_view="weak", uda=None), "sees no weak views; give uda"),
        (dict(student_labeled_weight=-1.0), "student_labeled_weight"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MetaPseudoLabels(conv_net("student"), conv_net("teacher"), **settings)


@pytest.mark.parametrize(
    "settings",
    [dict(mpl_teacher_loss="supervised"), dict(teacher_labels="runs/teacher")],
)
def test_a_run_whose_teacher_sees_no_weak_views_is_refused(settings):
    with pytest.raises(ConfigError, match="--mpl_label_view=weak: this teach"):
        Config(mpl_label_view="weak", **settings)


def test_they_are_kept_with_the_learner():
    learner = make_learner(label_view="weak", student_labeled_weight=WEIGHT)
    config = learner.get_config()
    assert config["label_view"] == "weak"
    assert config["student_labeled_weight"] == WEIGHT


def test_flags_reach_the_learner():
    settings = Config(
        dataset="digits",
        model_type="mlp",
        mpl_label_view="weak",
        mpl_student_labeled_weight=WEIGHT,
        num_feedback=10,
    )
    learner = build_learner(settings, data.DATASETS["digits"])
    assert learner.label_view == "weak"
    assert learner.student_labeled_weight == WEIGHT
    assert 2 + settings.uda_data in MetaPseudoLabels.passes(settings)
