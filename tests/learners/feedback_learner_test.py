"""The feedback: that it is there, that its sign is right, that it is exact."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import MetaPseudoLabels, UDASettings
from meta_pseudo_labels.learners.feedback import ESTIMATORS, exact
from meta_pseudo_labels.learners.student_step import take_student_step
from meta_pseudo_labels.optimizers import LARS, AdamW, Momentum, RMSProp
from tests.learners.helpers import CLASSES, batch, conv_net, values

WORKING = [name for name in ESTIMATORS if name not in ("release", "off")]


def make_learner(feedback, *, optimizer=None, **settings):
    """A learner on `conv_net`s whose teacher hears the feedback only."""
    keras.utils.set_random_seed(1)
    learner = MetaPseudoLabels(
        conv_net("student"),
        conv_net("teacher"),
        feedback=feedback,
        uda=UDASettings(weight=0.0),
        log_every=1,
        **settings,
    )
    learner.compile(
        optimizer or Momentum(0.3, momentum=0.9, nesterov=True),
        Momentum(0.1),
        weight_decay=0.01,
        grad_bound=0.2,  # Below the gradient's norm, so that clipping counts.
    )
    return learner


def labeled_loss_after_step(learner, data, pseudo_labels):
    """The real thing: one student update, then the labeled loss."""
    step, _ = take_student_step(learner, data, pseudo_labels=pseudo_labels)
    return float(step.labeled_loss_new), step


@pytest.mark.fast("adamw-0.15")
@pytest.mark.parametrize("smoothing", [0.0, 0.15])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: Momentum(0.3, momentum=0.9, nesterov=True),
        lambda: Momentum(0.3, momentum=0.9, nesterov=False),
        lambda: keras.optimizers.SGD(0.3),
        lambda: RMSProp(0.3),
        lambda: LARS(30.0),
        lambda: keras.optimizers.Adam(0.03),
        lambda: AdamW(0.03, beta_2=0.9, weight_decay=0.5),
    ],
    ids=["nesterov", "momentum", "sgd", "rmsprop", "lars", "adam", "adamw"],
)
def test_exact_is_the_derivative_of_the_students_whole_update(
    optimizer, smoothing
):
    learner = make_learner(
        "exact", optimizer=optimizer(), label_smoothing=smoothing
    )
    data = batch()
    for _ in range(2):
        learner.train_step(data)  # Fills the momentum slots.
    random = np.random.default_rng(2)
    logits = random.normal(size=(6, CLASSES))
    pseudo_labels = tf.nn.softmax(logits)
    state = learner.student.variables + learner.optimizer.variables
    saved = values(state)

    def loss_at(labels):
        for variable, value in zip(state, saved, strict=True):
            variable.assign(value)
        return labeled_loss_after_step(learner, data, tf.constant(labels))

    _, step = loss_at(pseudo_labels)
    assert tf.linalg.global_norm(step.gradients()[0]) > learner.grad_bound
    gradient = step.label_gradient().numpy()
    epsilon = 1e-5
    difference = np.zeros_like(gradient)
    for index in np.ndindex(gradient.shape):
        change = np.zeros_like(gradient)
        change[index] = epsilon
        up, _ = loss_at(pseudo_labels + change)
        down, _ = loss_at(pseudo_labels - change)
        difference[index] = (up - down) / (2 * epsilon)
    assert np.linalg.norm(difference) > 1e-4
    np.testing.assert_allclose(
        gradient, difference, rtol=0, atol=1e-6 * np.abs(difference).max()
    )


def moves_of_the_teacher(feedback):
    """How one step changes every weight of the teacher, unclipped."""
    learner = make_learner(feedback)
    learner.grad_bound = None
    before = values(learner.teacher.trainable_variables)
    learner.train_step(batch())
    after = values(learner.teacher.trainable_variables)
    return np.concatenate(
        [(a - b).ravel() for a, b in zip(after, before, strict=True)]
    )


@pytest.mark.fast("reinforce_per_example")
@pytest.mark.parametrize("feedback", WORKING)
def test_feedback_reaches_the_teacher(feedback):
    difference = moves_of_the_teacher(feedback) - moves_of_the_teacher("off")
    assert np.linalg.norm(difference) > 1e-5


def test_release_does_not_reach_the_teacher():
    difference = moves_of_the_teacher("release") - moves_of_the_teacher("off")
    assert np.linalg.norm(difference) < 1e-14


@pytest.mark.fast("off", "reinforce_per_example")
@pytest.mark.parametrize("feedback", ESTIMATORS)
def test_logged_ratio_tells_whether_feedback_reaches(feedback):
    reaches = feedback in WORKING
    learner = make_learner(feedback)
    ratio = float(learner.train_step(batch())["mpl/feedback_grad_ratio"])
    assert ratio > 1e-5 if reaches else ratio < 1e-12


@pytest.mark.long
def test_ratio_is_measured_first_and_at_logged_steps_fifty_apart():
    learner = make_learner("exact")
    learner.log_every = 20
    assert learner.costly_log_every == 60
    learner.set_step(56)
    ratios = [
        float(learner.train_step(batch(seed=s))["mpl/feedback_grad_ratio"])
        for s in range(4)
    ]
    assert 0 < ratios[0] == ratios[1] == ratios[2] != ratios[3] > 0


@pytest.mark.parametrize(
    ("log_every", "costly"), [(1, 1), (10, 50), (50, 50), (70, 70)]
)
def test_costly_logs_are_rare_but_where_every_step_is_logged(log_every, costly):
    learner = make_learner("exact")
    learner.log_every = log_every
    assert learner.costly_log_every == costly


def test_ratio_is_not_measured_while_the_student_stands_still():
    """Its feedback would be 0, and 0 would stand in the log until the next."""
    learner = make_learner("exact")
    rate = float(learner.optimizer.learning_rate)
    learner.optimizer.learning_rate = 0.0
    for seed in range(2):
        logs = learner.train_step(batch(seed=seed))
        assert np.isnan(logs["mpl/feedback_grad_ratio"])
    learner.optimizer.learning_rate = rate
    assert learner.train_step(batch())["mpl/feedback_grad_ratio"] > 0


def test_ratio_is_no_number_before_it_is_measured():
    """0 would mean that the student does not steer its teacher."""
    learner = make_learner("exact")
    assert np.isnan(learner.feedback_grad_ratio.numpy())
    bad = batch() | {"strong": np.full([6, 6, 6, 2], np.nan)}
    assert np.isnan(learner.train_step(bad)["mpl/feedback_grad_ratio"])
    assert learner.train_step(batch())["mpl/feedback_grad_ratio"] > 0


@pytest.mark.long
def test_exact_feedback_helps_the_student():
    """Following it, the labels that the teacher gives lower the new loss."""
    learner = make_learner("exact")
    data = batch()
    state = learner.student.variables + learner.optimizer.variables
    saved = values(state)
    logits = tf.Variable(np.random.default_rng(5).normal(size=(6, CLASSES)))
    losses = []
    for _ in range(20):
        for variable, value in zip(state, saved, strict=True):
            variable.assign(value)
        with tf.GradientTape() as tape:
            loss, step = labeled_loss_after_step(
                learner, data, tf.nn.softmax(tf.constant(logits))
            )
            feedback = exact(step, logits)
        losses.append(loss)
        logits.assign_sub(20.0 * tape.gradient(feedback, logits))
    assert np.all(np.diff(losses) < 0)


def test_an_estimator_of_ones_own():
    def louder(student_step, teacher_logits):
        return 10 * exact(student_step, teacher_logits)

    ratios = {
        estimator: float(
            make_learner(estimator).train_step(batch())[
                "mpl/feedback_grad_ratio"
            ]
        )
        for estimator in (exact, louder)
    }
    assert ratios[louder] > 2 * ratios[exact]


def test_the_table_names_its_functions():
    assert [f.__name__ for f in ESTIMATORS.values()] == list(ESTIMATORS)
    assert len(WORKING) >= 5
