"""Proof of the estimators: against enumeration and finite differences."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import MetaPseudoLabels
from meta_pseudo_labels.learners.feedback import (
    draw_labels,
    exact,
    reinforce,
    reinforce_cosine,
    reinforce_dot_product,
    reinforce_per_example,
)
from meta_pseudo_labels.learners.student_step import take_student_step
from meta_pseudo_labels.optimizers import LARS, Momentum, RMSProp
from tests.learners.helpers import CLASSES, batch, conv_net, values

UNLABELED = 4
LABELINGS = list(itertools.product(range(CLASSES), repeat=UNLABELED))


def plain_net(name):
    """No batch norm, so that old and new differ by the step alone."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Flatten(dtype="float64"),
            keras.layers.Dense(4, activation="tanh", dtype="float64"),
            keras.layers.Dense(CLASSES, dtype="float64"),
        ],
        name=name,
    )


def plain_steps(rate):
    return Momentum(rate, momentum=0.0)


def one_hot(labels):
    return tf.one_hot(labels, CLASSES, dtype="float64")


class TinyProblem:
    """Four unlabeled images of three classes: 81 ways to label them all."""

    def __init__(self, *, optimizer, baseline=0.0, net=plain_net):
        keras.utils.set_random_seed(5)
        self.learner = MetaPseudoLabels(
            net("student"),
            net("teacher"),
            feedback="reinforce",
            baseline_decay=1.0,  # A constant, or it would see earlier draws.
            baseline_start=baseline,
        )
        self.learner.compile(optimizer)
        self.batch = batch(labeled=5, unlabeled=UNLABELED)
        self.logits = tf.constant(self.learner.teacher(self.batch["strong"]))
        self.probabilities = tf.nn.softmax(self.logits)
        self.state = (
            self.learner.student.variables + self.learner.optimizer.variables
        )
        self.saved = values(self.state)
        self.compiled = functools.cache(self._compile)

    def step(self, pseudo_labels):
        """A student's step, from the same weights every time."""
        for variable, value in zip(self.state, self.saved, strict=True):
            variable.assign(value)
        step, _ = take_student_step(
            self.learner, self.batch, pseudo_labels=pseudo_labels
        )
        return step

    def _compile(self, estimator):
        """A function from labels to the loss after and the gradient."""

        @tf.function(autograph=False)
        def evaluate(pseudo_labels):
            step = self.step(pseudo_labels)
            with tf.GradientTape() as tape:
                tape.watch(self.logits)
                loss = estimator(step, self.logits)
            gradient = tape.gradient(loss, self.logits)
            return step.labeled_loss_new, tf.reshape(gradient, [-1])

        return evaluate

    def gradient(self, estimator, pseudo_labels):
        """Of an estimator at the teacher's logits, [12]."""
        return self.compiled(estimator)(pseudo_labels)[1].numpy()

    def chances(self, logits=None):
        """Probability of each labeling, [81]."""
        p = tf.nn.softmax(self.logits if logits is None else logits)
        places = np.arange(UNLABELED)
        return tf.stack(
            [
                tf.reduce_prod(tf.gather_nd(p, np.stack([places, labels], 1)))
                for labels in LABELINGS
            ]
        )

    def gradients(self, estimator):
        """Of an estimator for each labeling, [81, 12]."""
        return np.stack(
            [self.gradient(estimator, one_hot(y)) for y in LABELINGS]
        )

    def mean(self, gradients):
        return self.chances().numpy() @ gradients

    def variance(self, gradients):
        """Summed over the teacher's logits."""
        deviations = gradients - self.mean(gradients)
        return float(self.mean(np.sum(deviations**2, axis=-1)))

    def true_gradient(self):
        """d E[new labeled loss] / d logits, over all labelings, [12]."""
        evaluate = self.compiled(reinforce)
        losses = [evaluate(one_hot(labels))[0] for labels in LABELINGS]
        logits = tf.Variable(self.logits)
        with tf.GradientTape() as tape:
            expectation = tf.reduce_sum(self.chances(logits) * losses)
        return tape.gradient(expectation, logits).numpy().ravel()


@pytest.fixture(scope="module")
def problem():
    return TinyProblem(optimizer=plain_steps(0.5), baseline=0.3)


def relative_error(value, truth):
    return np.linalg.norm(value - truth) / np.linalg.norm(truth)


@pytest.mark.fast("conv_net")
@pytest.mark.parametrize("net", [plain_net, conv_net])
def test_reinforce_is_unbiased_for_any_step_size_and_baseline(net):
    """Its expectation is the true gradient over the number of images.

    With batch norm too: what that adds to h is the same for all labels.
    """
    problem = TinyProblem(optimizer=plain_steps(0.5), baseline=0.3, net=net)
    gradients = problem.gradients(reinforce)
    want = problem.true_gradient() / UNLABELED
    assert np.linalg.norm(want) > 1e-4
    assert relative_error(problem.mean(gradients), want) < 1e-10


@pytest.mark.long
def test_mean_over_draws_of_reinforce_is_within_its_confidence_interval(
    problem,
):
    """The labels drawn as training draws them, 20,000 times."""
    by_labeling = dict(
        zip(LABELINGS, problem.gradients(reinforce), strict=True)
    )
    draws = 20_000
    labels = draw_labels(
        tf.tile(problem.logits, [draws, 1]), kind="sampled", seed=[11, 12]
    )
    labels = np.argmax(labels, axis=-1).reshape([draws, UNLABELED])
    gradients = np.stack([by_labeling[tuple(row)] for row in labels.tolist()])
    mean = gradients.mean(axis=0)
    error = gradients.std(axis=0, ddof=1) / np.sqrt(draws)
    distance = np.abs(mean - problem.true_gradient() / UNLABELED) / error
    # Twelve values, each within 3.9 standard errors: 999 times in 1,000.
    print(f"largest distance: {distance.max():.2f} standard errors")
    assert distance.max() < 3.9
    # And no interval so wide that it holds anything.
    assert np.linalg.norm(error) < 0.2 * np.linalg.norm(mean)


@pytest.mark.long
def test_per_example_gains_have_less_variance_than_one_for_all():
    """All as estimates of the same gradient: the sum, not the mean."""
    problem = TinyProblem(optimizer=plain_steps(0.5))
    per_batch = problem.variance(UNLABELED * problem.gradients(reinforce))
    dot_product = problem.variance(
        UNLABELED * problem.gradients(reinforce_dot_product)
    )
    per_example = problem.variance(problem.gradients(reinforce_per_example))
    print(
        f"variance: per batch {per_batch:.3g}, from both gradients "
        f"{dot_product:.3g}, per example {per_example:.3g}"
    )
    assert 0 < per_example < per_batch / 2
    assert per_example < dot_product / 2


@pytest.mark.long
def test_all_estimate_the_true_gradient_as_the_step_shrinks():
    """To first order in the step; the error falls with it."""
    errors = {}
    for rate in (0.1, 0.01):
        problem = TinyProblem(optimizer=Momentum(rate))
        truth = problem.true_gradient()
        errors[rate] = {
            "exact": relative_error(
                problem.gradient(exact, problem.probabilities), truth
            ),
            "dot product": relative_error(
                problem.mean(
                    UNLABELED * problem.gradients(reinforce_dot_product)
                ),
                truth,
            ),
            "per example": relative_error(
                problem.mean(problem.gradients(reinforce_per_example)), truth
            ),
        }
    for name, error in errors[0.01].items():
        assert error < 0.05, name
        assert error < 0.2 * errors[0.1][name], name


def test_gains_of_the_examples_add_up_to_the_first_order_gain(problem):
    for labeling in LABELINGS[::20]:
        step = problem.step(one_hot(labeling))
        gains = tf.reduce_sum(step.pseudo_labels * step.label_gradient())
        np.testing.assert_allclose(gains, step.first_order_change(), rtol=1e-9)


@pytest.mark.parametrize(
    "build",
    [
        Momentum,
        functools.partial(keras.optimizers.SGD, momentum=0.5),
        functools.partial(RMSProp, rho=0.1),
        functools.partial(LARS, eeta=0.1, weight_decay=0.0),
        functools.partial(keras.optimizers.Adam, beta_1=0.0, beta_2=0.0),
    ],
    ids=["momentum", "sgd", "rmsprop", "lars", "adam"],
)
def test_first_order_gain_is_the_gain_of_a_small_step(build):
    problem = TinyProblem(optimizer=build(1e-5))
    step = problem.step(problem.probabilities)
    change = step.labeled_loss_new - step.labeled_loss_old
    np.testing.assert_allclose(change, step.first_order_change(), rtol=1e-3)


@pytest.mark.long
def test_cosine_is_the_dot_product_over_slope_and_norms():
    problem = TinyProblem(optimizer=plain_steps(0.5))
    labels = one_hot(LABELINGS[7])
    step = problem.step(labels)
    norms = [tf.linalg.global_norm(part) for part in step.gradients()]
    np.testing.assert_allclose(
        problem.gradient(reinforce_dot_product, labels),
        problem.gradient(reinforce_cosine, labels) * 0.5 * norms[0] * norms[1],
        rtol=1e-9,
    )


@pytest.mark.fast("0.5")
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_exact_is_the_derivative_by_the_teachers_weights(temperature):
    """Teacher, labels, conv net with batch norm, smoothing, decay, clipping,
    Nesterov: all unrolled, along a random direction of the teacher's weights.
    """
    keras.utils.set_random_seed(1)
    learner = MetaPseudoLabels(
        conv_net("student"),
        conv_net("teacher"),
        label_smoothing=0.15,
        label_temperature=temperature,
    )
    learner.compile(
        Momentum(0.3, nesterov=True), weight_decay=0.01, grad_bound=0.2
    )
    data = batch()
    learner.train_step(data)  # Fills the momentum slots.
    weights = learner.teacher.trainable_variables
    state = learner.variables + learner.optimizer.variables
    saved = values(state)
    random = np.random.default_rng(3)
    direction = [random.normal(size=w.shape) for w in weights]

    def run(distance):
        for variable, value in zip(state, saved, strict=True):
            variable.assign(value)
        for weight, part in zip(weights, direction, strict=True):
            weight.assign(weight + distance * part)
        with tf.GradientTape() as tape:
            logits = learner.teacher_logits(data).strong / temperature
            with tape.stop_recording():
                step, _ = take_student_step(
                    learner, data, pseudo_labels=tf.nn.softmax(logits)
                )
            loss = exact(step, logits)
        # Clipping is one of the parts.
        assert tf.linalg.global_norm(step.gradients()[0]) > learner.grad_bound
        gradient = tape.gradient(loss, [w.value for w in weights])
        return float(step.labeled_loss_new), gradient

    _, gradient = run(0.0)
    epsilon = 1e-5
    difference = (run(epsilon)[0] - run(-epsilon)[0]) / (2 * epsilon)
    slope = sum(
        float(tf.reduce_sum(g * part))
        for g, part in zip(gradient, direction, strict=True)
    )
    assert abs(difference) > 1e-5
    assert slope == pytest.approx(difference, rel=1e-5)
