"""An estimator of the user's: what is refused, and what works."""

import functools

import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import MetaPseudoLabels
from meta_pseudo_labels.learners.checks import hear
from meta_pseudo_labels.learners.feedback import estimator, exact
from meta_pseudo_labels.learners.student_step import StudentStep
from meta_pseudo_labels.utils.settings import ConfigError
from tests.learners.helpers import conv_net


def heard(function, *, dtype="float32"):
    """What an estimator says of three images, and its gradient."""
    logits = tf.Variable(tf.zeros([3, 2], dtype))
    step = StudentStep(
        pseudo_labels=tf.one_hot([0, 1, 1], 2, dtype=dtype),
        learning_rate=tf.constant(0.1, dtype),
        moved=tf.constant(True),
        labeled_loss_old=tf.constant(2.0, dtype),
        labeled_loss_new=tf.constant(1.5, dtype),
        dot_product=tf.constant(-0.5, dtype),
        label_gradient=lambda: tf.ones([3, 2], dtype),
        gradients=lambda: ([], []),
        first_order_change=lambda: tf.constant(-0.5, dtype),
        center=lambda change: change,
    )
    with tf.GradientTape(persistent=True) as tape:
        read = tf.identity(logits)
        loss = hear(function, step, read, tape)
    return loss, tape.gradient(loss, logits)


def nothing(student_step, teacher_logits):
    tf.reduce_mean(teacher_logits)


def for_each_image(student_step, teacher_logits):
    return tf.reduce_mean(teacher_logits, axis=-1)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (nothing, "must return a scalar loss; got NoneType"),
        (for_each_image, r"a scalar loss; got shape \(3,\).*tf.reduce_mean"),
        (functools.partial(nothing), "got NoneType"),
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


@pytest.mark.parametrize(
    "function",
    [
        lambda step, logits: tf.reduce_mean(logits) * 0 + step.dot_product,
        lambda step, logits: tf.cast(tf.reduce_mean(logits), "float64"),
        functools.partial(lambda scale, step, logits: exact(step, logits), 2),
    ],
    ids=["zero", "float64", "partial"],
)
def test_scalars_of_any_float_are_taken_as_the_logits_are(function):
    loss, gradient = heard(function)
    assert loss.dtype == gradient.dtype == tf.float32


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
    function.__name__ = f"silent_{id(function)}"
    for _ in range(2):
        _, gradient = heard(function)
    assert gradient is None
    assert caplog.text.count("the teacher hears nothing") == 1


@pytest.mark.parametrize("labels", ["soft", ("sampeld",), (), ("soft", "firm")])
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
