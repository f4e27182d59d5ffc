"""Weak views that pass apart, and without a gradient."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.learners import UDA, MetaPseudoLabels, UDASettings
from meta_pseudo_labels.learners.build import build_learner
from meta_pseudo_labels.learners.passes import forward_views
from meta_pseudo_labels.learners.student_step import take_student_step
from meta_pseudo_labels.learners.uda import consistency_term
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.utils.settings import ConfigError
from tests.learners.helpers import CLASSES, batch, compiled, conv_net
from tests.learners.replicas_test import assert_same, train
from tests.learners.replicas_test import conv_net as replicas_conv_net

SURE = UDASettings(weight=2.0, ramp_steps=1, threshold=0.0)


def test_each_pass_has_moments_of_its_own():
    """By hand: two calls of Keras, the weak one first."""
    keras.utils.set_random_seed(1)
    ours, hand = conv_net("ours"), conv_net("hand")
    hand.set_weights(ours.get_weights())
    given = batch()
    logits = forward_views(ours, given, weak_pass="apart")
    weak = hand(given["weak"], training=True)
    rest = tf.concat([given["labeled"], given["strong"]], axis=0)
    labeled, strong = tf.split(hand(rest, training=True), [4, 6])
    for got, want in zip(logits, (labeled, weak, strong), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)
    for got, want in zip(ours.variables, hand.variables, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)
    joint = forward_views(ours, given)
    assert not np.allclose(joint.strong, strong)


def test_no_gradient_goes_back_through_weak_views():
    """UDA's step is that of the other views, with the weak logits given."""
    learner = compiled(UDA, uda=SURE, weak_pass="apart")
    student, given = learner.student, batch()
    learner.step.assign(1)  # The weight is 0 at step 0.
    views = forward_views(student, given, weak_pass="apart")
    labels = tf.one_hot(given["labels"], CLASSES, dtype=tf.float64)
    rest = tf.concat([given["labeled"], given["strong"]], axis=0)
    with tf.GradientTape() as tape:
        labeled, strong = tf.split(student(rest, training=True), [4, 6])
        term, *_ = consistency_term(
            SURE, views._replace(strong=strong), labels, step=1
        )
        loss = term + tf.reduce_mean(
            tf.nn.softmax_cross_entropy_with_logits(labels, labeled)
        )
    want = tape.gradient(loss, student.trainable_variables)
    norm = learner.train_step(given)["loss/grad_norm"]
    np.testing.assert_allclose(norm, tf.linalg.global_norm(want), rtol=1e-9)


def test_exact_is_the_derivative_of_the_new_loss():
    """With respect to a weight of the teacher, through its strong labels."""
    keras.utils.set_random_seed(1)
    learner = MetaPseudoLabels(
        conv_net("student"),
        conv_net("teacher"),
        uda=SURE,
        weak_pass="apart",
        update_teacher_moments=False,
    )
    learner.compile(keras.optimizers.SGD(0.125), weight_decay=0.0)
    given, weight = batch(), learner.teacher.trainable_variables[0]
    state = learner.student.variables + learner.optimizer.variables
    saved = [v.numpy() for v in [*state, weight]]
    direction = np.random.default_rng(3).normal(size=weight.shape)

    def step_at(move):
        for variable, value in zip([*state, weight], saved, strict=True):
            variable.assign(value)
        weight.assign_add(move * direction)
        with tf.GradientTape() as tape:
            logits = learner.teacher_logits(given).strong
            with tape.stop_recording():
                step, _ = take_student_step(
                    learner, given, pseudo_labels=tf.nn.softmax(logits)
                )
            feedback = learner.feedback(step, logits)
        return step.labeled_loss_new, tape.gradient(feedback, weight.value)

    up, down = (float(step_at(sign * 1e-4)[0]) for sign in (1, -1))
    slope = np.sum(step_at(0.0)[1] * direction)
    assert abs(slope) > 1e-6
    np.testing.assert_allclose(slope, (up - down) / 2e-4, rtol=1e-4)


@pytest.mark.parametrize("method", [UDA, MetaPseudoLabels])
def test_what_is_unknown_is_refused(method):
    with pytest.raises(ValueError, match="weak_pass is 'alone'; choose one"):
        compiled(method, weak_pass="alone")


def test_labels_of_weak_views_would_hear_nothing():
    with pytest.raises(ValueError, match="the feedback goes back through"):
        compiled(MetaPseudoLabels, label_view="weak", weak_pass="apart")
    with pytest.raises(ConfigError, match="--uda_weak_pass=apart: with"):
        Config(mpl_label_view="weak", uda_weak_pass="apart")


@pytest.mark.parametrize(
    ("method", "passes"), [("uda", {8, 7}), ("mpl", {1, 8, 7})]
)
def test_flags_reach_the_learner(method, passes):
    settings = Config(
        method=method,
        dataset="digits",
        model_type="mlp",
        uda_data=7,
        uda_weak_pass="apart",
    )
    learner = build_learner(settings, data.DATASETS["digits"])
    assert learner.get_config()["weak_pass"] == "apart"
    assert learner.passes(settings) == passes


@pytest.mark.long
def test_two_replicas_pass_them_as_one(mirrored):
    def build():
        return UDA(
            replicas_conv_net("student"), uda=SURE, weak_pass="apart", seed=7
        )

    one = train(build, steps=3)
    assert_same(one, train(build, mirrored(2), steps=3))
