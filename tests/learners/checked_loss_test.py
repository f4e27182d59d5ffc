"""An estimator of the user's: what is refused, and what works."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import MetaPseudoLabels
from meta_pseudo_labels.learners.checks import checked_loss
from meta_pseudo_labels.learners.estimator_code import differentiates
from meta_pseudo_labels.learners.feedback import (
    ESTIMATORS,
    estimator,
    exact,
    off,
    resolve,
)
from meta_pseudo_labels.learners.student_step import StudentStep
from meta_pseudo_labels.utils.settings import ConfigError
from tests.learners.helpers import conv_net

LOGITS = np.arange(6.0).reshape([3, 2])
P = 1 / (1 + np.e)  # Of the first class, for each of the images.


def heard(function, *, dtype="float32", learner=None):
    """What an estimator says of three images, and its gradient."""
    logits = tf.constant(LOGITS, dtype)
    step = StudentStep(
        pseudo_labels=tf.one_hot([0, 1, 1], 2, dtype=dtype),
        learning_rate=tf.constant(0.1, dtype),
        moved=tf.constant(True),
        labeled_loss_old=tf.constant(2.0, dtype),
        labeled_loss_new=tf.constant(1.5, dtype),
        dot_product=tf.constant(-0.5, dtype),
        label_gradient=lambda: tf.constant([[1, 0]] * 3, dtype),
        gradients=lambda: ([], []),
        first_order_change=lambda: tf.constant(-0.5, dtype),
        center=lambda change: change,
    )
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        loss = checked_loss(
            function, step, logits, tape, learner=learner or Kept()
        )
    return loss, tape.gradient(loss, logits)


class Kept:
    """As a learner: keeps what was said."""


def nothing(student_step, teacher_logits):
    tf.reduce_mean(teacher_logits)


def for_each_image(student_step, teacher_logits):
    return tf.reduce_mean(teacher_logits, axis=-1)


@functools.wraps(exact)
def wrapped(student_step, teacher_logits):
    return [exact(student_step, teacher_logits)]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (nothing, "must return a scalar loss; got NoneType.$"),
        (for_each_image, r"a scalar loss; got shape \(3,\).*tf.reduce_mean"),
        (functools.partial(nothing), "got NoneType.$"),
        (lambda step, logits: (logits[0, 0], 1.0), "got tuple.$"),
        (wrapped, "'exact' must return a scalar loss; got list.$"),
    ],
)
def test_what_an_estimator_does_wrong_is_said_in_a_line(function, message):
    with pytest.raises(ConfigError, match=message) as caught:
        heard(function)
    assert "\n" not in str(caught.value)


def test_what_an_estimator_raises_stays_what_it_is():
    def failing(student_step, teacher_logits):
        raise ArithmeticError("Odd.")

    with pytest.raises(ArithmeticError, match="Odd"):
        heard(failing)


@tf.function
def traced(student_step, teacher_logits):
    return exact(student_step, teacher_logits)


@pytest.mark.parametrize(
    ("function", "loss", "gradient"),
    [
        (
            lambda step, logits: tf.reduce_mean(logits) * 0 + step.dot_product,
            -0.5,
            [0, 0],
        ),
        (
            lambda step, logits: tf.cast(tf.reduce_mean(logits), "float64"),
            2.5,
            [1 / 6, 1 / 6],
        ),
        (
            functools.partial(
                lambda scale, step, logits: scale * exact(step, logits), 2
            ),
            6 * P,
            [2 * P * (1 - P), -2 * P * (1 - P)],
        ),
        (traced, 3 * P, [P * (1 - P), -P * (1 - P)]),
    ],
    ids=["zero", "float64", "partial", "tf.function"],
)
def test_scalars_of_any_float_are_taken_as_the_logits_are(
    function, loss, gradient
):
    found, slope = heard(function)
    assert found.dtype == slope.dtype == tf.float32
    np.testing.assert_allclose(found, loss, rtol=1e-6)
    np.testing.assert_allclose(slope, [gradient] * 3, rtol=1e-5, atol=1e-7)


def of_python(value):
    """In a graph nothing is known of its shape."""
    return tf.numpy_function(lambda: value, [], value.dtype)


@pytest.mark.parametrize(
    "function",
    [
        lambda step, logits: of_python(np.float32(2)) * logits[1, 1],
        lambda step, logits: tf.reshape(
            2 * logits[1:2, 1], of_python(np.zeros([0], np.int32))
        ),
    ],
    ids=["numpy_function", "reshape"],
)
def test_a_scalar_whose_shape_no_graph_knows_is_one(function):
    loss, gradient = tf.function(lambda: heard(function))()
    assert loss == 6
    np.testing.assert_array_equal(gradient, [[0, 0], [0, 2], [0, 0]])


def test_what_is_no_scalar_once_the_graph_runs_ends_it():
    def vector(student_step, teacher_logits):
        return of_python(np.ones([3], np.float32)) * teacher_logits[0, 0]

    with pytest.raises(tf.errors.InvalidArgumentError, match="expected shape"):
        tf.function(lambda: heard(vector))()


@pytest.mark.parametrize(
    "function",
    [
        lambda step, logits: step.dot_product,
        lambda step, logits: 0,
        lambda step, logits: tf.cast(tf.argmax(logits[0]), "float32"),
    ],
    ids=["no logits", "a number", "argmax"],
)
def test_a_feedback_without_a_gradient_is_warned_of_once(function, caplog):
    def told():
        return caplog.text.count("so the teacher learns nothing from it")

    learner = Kept()
    for _ in range(2):
        _, gradient = heard(function, learner=learner)
    assert gradient is None
    assert told() == 1
    heard(lambda *both: function(*both), learner=learner)  # Defined anew.
    assert told() == 2
    heard(function, learner=Kept())  # Another run.
    assert told() == 3
    heard(off, learner=learner)  # That is what it is for.
    assert told() == 3


@pytest.mark.parametrize(
    "labels",
    ["soft", ("sampeld",), (), ("soft", "firm"), {"soft"}, 3, [["soft"]]],
)
def test_kinds_of_labels_are_looked_at(labels):
    with pytest.raises(ConfigError, match="must be a tuple of some of"):
        estimator(labels=labels)


@pytest.mark.parametrize(
    "wrong",
    [
        3,
        ["exact"],
        object,
        lambda student_step: 0.0,
        lambda student_step, teacher_logits, scale: 0.0,
        lambda teacher_logits, student_step: 0.0,
    ],
    ids=["number", "list", "class", "one", "three", "swapped"],
)
def test_what_is_no_estimator_is_refused_before_any_step(wrong):
    message = r"An estimator is a function of \(student_step, teacher_logits\)"
    with pytest.raises(ConfigError, match=message):
        MetaPseudoLabels(conv_net("a"), conv_net("b"), feedback=wrong)
    with pytest.raises(ConfigError, match=message):
        estimator()(wrong)


def test_only_what_has_a_name_is_registered():
    with pytest.raises(ConfigError, match="takes a def"):
        estimator()(functools.partial(for_each_image))


def test_an_estimator_may_be_traced_and_its_labels_a_list(monkeypatch):
    monkeypatch.setattr(ESTIMATORS, "_found", ESTIMATORS.registered)
    made = estimator(labels=["soft", "hard"], mean=True)(traced)
    assert made is traced and made.mean
    assert resolve("traced") == (traced, "soft")
    assert traced.labels == ("soft", "hard")
    assert differentiates(traced)
    assert not differentiates(tf.function(for_each_image))


def test_a_mean_is_one_or_not():
    with pytest.raises(ConfigError, match=r"mean=.* True or False; got 'sum'"):
        estimator(mean="sum")


def test_estimator_without_parentheses_is_refused():
    with pytest.raises(ConfigError, match=r"Write @estimator\(labels=\.\.\.\)"):

        @estimator
        def mine(student_step, teacher_logits):
            return 0.0
