"""The estimators of the feedback alone: gradients by hand, labels, baseline."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import feedback
from meta_pseudo_labels.learners.estimator_code import differentiates
from meta_pseudo_labels.learners.feedback import (
    ESTIMATORS,
    PSEUDO_LABELS,
    Baseline,
    draw_labels,
    exact,
    off,
    reinforce,
    reinforce_cosine,
    reinforce_dot_product,
    reinforce_per_example,
    release,
    resolve,
)
from meta_pseudo_labels.learners.student_step import StudentStep
from tests.learners.helpers import CLASSES

LOGITS = [[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]]


def student_step(*, dot_product=-0.6, labels=None, gradient=None):
    """A student's step with given outcome, for an estimator alone."""
    return StudentStep(
        pseudo_labels=tf.one_hot([0, 2], CLASSES) if labels is None else labels,
        learning_rate=tf.constant(0.1),
        moved=tf.constant(True),
        labeled_loss_old=tf.constant(1.0),
        labeled_loss_new=tf.constant(1.0 + dot_product),
        dot_product=tf.constant(dot_product),
        label_gradient=lambda: tf.constant(gradient),
        gradients=lambda: (
            [tf.constant([[3.0, 0.0]]), tf.constant([4.0])],
            [tf.constant([[1.0, 7.0]]), tf.constant([2.0])],
        ),
        first_order_change=lambda: tf.constant(-1.1),
        center=lambda change: change + 0.1,  # A moving average of -0.1.
    )


def gradient_of(estimator, step):
    """Gradient of an estimator's loss at LOGITS, [2, 3]."""
    logits = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        loss = estimator(step, logits)
    return tape.gradient(loss, logits, unconnected_gradients="zero").numpy()


def test_reinforce_gradient_is_the_gain_times_the_error():
    gradient = gradient_of(reinforce, student_step(dot_product=-0.6))
    error = tf.nn.softmax(LOGITS) - tf.one_hot([0, 2], CLASSES)
    np.testing.assert_allclose(gradient, 0.6 * error / 2, rtol=1e-5)


@pytest.mark.parametrize(("dot_product", "sign"), [(-0.6, 1), (0.6, -1)])
def test_reinforce_raises_labels_that_helped(dot_product, sign):
    """The dot product is new - old: negative where the labels helped."""
    gradient = gradient_of(reinforce, student_step(dot_product=dot_product))
    before = tf.nn.softmax(LOGITS).numpy()
    after = tf.nn.softmax(LOGITS - 0.1 * gradient).numpy()
    assert np.sign(after[0, 0] - before[0, 0]) == sign
    assert np.sign(after[1, 2] - before[1, 2]) == sign


def test_reinforce_dot_product_takes_the_first_order_gain():
    gradient = gradient_of(reinforce_dot_product, student_step())
    error = tf.nn.softmax(LOGITS) - tf.one_hot([0, 2], CLASSES)
    np.testing.assert_allclose(gradient, 1.0 * error / 2, rtol=1e-5)


def test_reinforce_cosine_takes_the_angle_between_the_gradients():
    gradient = gradient_of(reinforce_cosine, student_step())
    error = tf.nn.softmax(LOGITS) - tf.one_hot([0, 2], CLASSES)
    cosine = (3 * 1 + 4 * 2) / (5 * np.sqrt(1 + 49 + 4))
    np.testing.assert_allclose(gradient, (cosine - 0.1) * error / 2, rtol=1e-5)


def test_reinforce_per_example_weighs_each_label_by_its_own_gain():
    label_gradient = np.float32([[0.4, 9.0, 9.0], [9.0, 9.0, -0.5]])
    step = student_step(gradient=label_gradient)
    gradient = gradient_of(reinforce_per_example, step)
    error = tf.nn.softmax(LOGITS) - tf.one_hot([0, 2], CLASSES)
    gains = [[-0.4 - 0.1], [0.5 - 0.1]]
    np.testing.assert_allclose(gradient, gains * error.numpy(), rtol=1e-5)


def test_exact_descends_the_label_gradient():
    label_gradient = np.float32([[0.1, -0.2, 0.3], [0.0, 0.5, -0.5]])
    gradient = gradient_of(exact, student_step(gradient=label_gradient))
    q = tf.nn.softmax(LOGITS).numpy()
    inner = np.sum(q * label_gradient, axis=-1, keepdims=True)
    np.testing.assert_allclose(
        gradient, q * (label_gradient - inner), rtol=1e-5, atol=1e-8
    )


def test_release_has_a_value_but_no_gradient():
    step = student_step(labels=tf.nn.softmax(LOGITS))
    assert abs(float(release(step, tf.constant(LOGITS)))) > 0.1
    assert np.max(np.abs(gradient_of(release, step))) < 1e-7


def test_off_is_zero():
    assert not gradient_of(off, student_step()).any()


def test_baseline_moves_then_is_subtracted():
    baseline = Baseline(decay=0.99)
    baseline.average.assign(0.5)
    # 0.5 - 0.01 * (0.5 - 1.5) = 0.51; 1.5 - 0.51 = 0.99.
    assert float(baseline.center(tf.constant(1.5))) == pytest.approx(0.99)
    assert float(baseline.average) == pytest.approx(0.51)


def test_baseline_subtracts_one_average_from_the_changes_of_all_examples():
    baseline = Baseline(decay=0.5, start=1.0)
    centered = baseline.subtract(tf.constant([2.0, 4.0]))
    np.testing.assert_allclose(centered, [1.0, 3.0])
    # 1 - 0.5 * (1 - 3) = 2.
    assert float(baseline.average) == 2.0


def test_baseline_that_never_decays_stays_at_its_start():
    baseline = Baseline(decay=1.0, start=0.25)
    assert float(baseline.center(tf.constant(7.0))) == 6.75
    assert float(baseline.average) == 0.25


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_baseline_takes_in_no_change_that_is_not_finite(bad):
    baseline = Baseline(decay=0.5, start=1.0)
    baseline.center(tf.constant(bad))
    baseline.subtract(tf.constant([2.0, bad]))
    assert float(baseline.average) == 1.0


def test_baseline_takes_in_no_change_of_a_student_that_stood_still():
    baseline = Baseline(decay=0.5, start=1.0)
    assert float(baseline.center(tf.constant(3.0), counts=False)) == 2.0
    centered = baseline.subtract(tf.constant([2.0, 4.0]), counts=False)
    np.testing.assert_allclose(centered, [1.0, 3.0])
    assert float(baseline.average) == 1.0


def test_batches_of_any_size_are_drawn_for():
    """Of data sets that keep a smaller last batch."""
    logits = tf.constant(LOGITS)

    @tf.function(input_signature=[tf.TensorSpec([None, logits.shape[1]])])
    def draw(logits):
        return draw_labels(logits, kind="sampled", seed=[3, 4])

    want = draw_labels(logits, kind="sampled", seed=[3, 4])
    np.testing.assert_array_equal(draw(tf.cast(logits, "float32")), want)


def test_draw_labels():
    soft = draw_labels(tf.constant(LOGITS), kind="soft", seed=[0, 0])
    np.testing.assert_allclose(soft, tf.nn.softmax(LOGITS))
    hard = draw_labels(tf.constant(LOGITS), kind="hard", seed=[0, 0])
    np.testing.assert_array_equal(hard, [[1, 0, 0], [1, 0, 0]])


def test_sampled_labels_follow_the_probabilities_and_the_seed():
    logits = tf.repeat(tf.constant(LOGITS[:1]), 20_000, axis=0)
    first = draw_labels(logits, kind="sampled", seed=[3, 4]).numpy()
    again = draw_labels(logits, kind="sampled", seed=[3, 4]).numpy()
    other = draw_labels(logits, kind="sampled", seed=[3, 5]).numpy()
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(first.sum(axis=-1), 1)
    # Four standard errors of a share among 20,000 draws are at most 0.014.
    np.testing.assert_allclose(
        first.mean(axis=0), tf.nn.softmax(LOGITS[0]), atol=0.014
    )


@pytest.mark.parametrize(
    ("feedback", "labels"),
    [("exact", "hard"), ("reinforce", "soft"), ("release", "sampled")],
)
def test_labels_that_an_estimator_cannot_use_are_refused(feedback, labels):
    with pytest.raises(ValueError, match=labels):
        resolve(feedback, labels)


def _by_itself(student_step, teacher_logits):
    return tf.reduce_mean(teacher_logits) * student_step.dot_product


def _more_of_the_paper(student_step, teacher_logits):
    return 2.0 * reinforce(student_step, teacher_logits)


def _of_both(student_step, teacher_logits, other=None):
    first = exact(student_step, teacher_logits)
    return first + (other or reinforce)(student_step, teacher_logits)


def _of_any(student_step, teacher_logits, other):
    return other(student_step, teacher_logits)


@pytest.mark.parametrize(
    ("feedback", "kinds"),
    [
        (_more_of_the_paper, ("sampled", "hard")),
        (functools.partial(_of_any, other=reinforce), ("sampled", "hard")),
        (functools.partial(_of_any, other=release), ("soft",)),
        (_by_itself, PSEUDO_LABELS),
    ],
)
def test_labels_are_those_that_the_used_estimators_take(feedback, kinds):
    assert resolve(feedback)[1] == kinds[0]
    for kind in PSEUDO_LABELS:
        if kind in kinds:
            assert resolve(feedback, kind) == (feedback, kind)
        else:
            with pytest.raises(ValueError, match=kind):
                resolve(feedback, kind)


class _Holds:
    """An estimator that keeps another one, also among several."""

    def __init__(self, *others):
        self.others = others

    def __call__(self, student_step, teacher_logits):
        return sum(one(student_step, teacher_logits) for one in self.others)


def _by_default(student_step, teacher_logits, other=reinforce):
    return other(student_step, teacher_logits)


@functools.wraps(off)
def _wrapping(student_step, teacher_logits):
    return reinforce(student_step, teacher_logits)


_CHOICES = {"drawn": reinforce}


def _from_a_table(student_step, teacher_logits):
    return _CHOICES["drawn"](student_step, teacher_logits)


_compiled = tf.function(reinforce)


def _of_compiled(student_step, teacher_logits):
    return _compiled(student_step, teacher_logits)


@pytest.mark.parametrize(
    "own",
    [
        _Holds(off, reinforce),
        _Holds(reinforce).__call__,
        _by_default,
        _from_a_table,
        _of_compiled,
    ],
)
def test_an_estimator_is_found_wherever_it_is_kept(own):
    assert resolve(own)[1] == "sampled"
    with pytest.raises(ValueError, match="soft"):
        resolve(own, "soft")


@pytest.mark.parametrize("declared", [("soft",), ["hard", "soft"]])
@pytest.mark.parametrize("own", [_of_both, _from_a_table])
def test_what_an_estimator_declares_itself_counts(monkeypatch, own, declared):
    monkeypatch.setattr(own, "labels", declared, raising=False)
    for one in (own, functools.partial(own)):
        assert resolve(one) == (one, declared[0])


def _helper():
    return 1.0


_helper.labels = ("loss", "step")  # Of a plot, say.


def _with_helper(student_step, teacher_logits):
    return _helper() * tf.reduce_mean(teacher_logits)


def test_labels_of_other_functions_do_not_count():
    assert resolve(_with_helper)[1] == "soft"


def test_estimators_without_labels_in_common_are_refused():
    with pytest.raises(ValueError, match="exact soft; reinforce sam.*@estim"):
        resolve(_of_both)


def test_unknown_feedback_is_refused():
    with pytest.raises(ValueError, match="'none'.*exact"):
        resolve("none")


def _by_helper(student_step, teacher_logits):
    return 2.0 * exact(student_step, teacher_logits)


def _by_module(student_step, teacher_logits):
    return feedback.reinforce_per_example(student_step, teacher_logits)


def _within(weight):
    def inner(student_step, teacher_logits):
        rows = [student_step.label_gradient() for _ in range(2)]
        return weight * tf.reduce_sum(rows[0])

    return inner


class _Called:
    def __call__(self, student_step, teacher_logits):
        return student_step.first_order_change()


def test_what_differentiates_is_known_by_its_code():
    """Every way to come to the derivative, and what looks like one."""
    asks = [_by_helper, _by_module, _within(2.0), _Called()]
    asks.append(functools.partial(_within, 1.0)())
    asks.append(functools.partial(_by_helper))
    assert all(map(differentiates, asks))
    assert not differentiates(_by_itself)
    for name, function in ESTIMATORS.items():
        assert differentiates(function) == function.differentiates, name
