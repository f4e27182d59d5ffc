"""Losses, by numbers worked by hand and by their gradients."""

import math

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners.losses import (
    balanced_weights,
    consistency_loss,
    smooth_labels,
    soft_cross_entropy,
)

LOG2 = math.log(2)


def log_odds(*probabilities):
    """Logits whose softmax is these probabilities, [1, classes] float64."""
    return tf.math.log(tf.constant([probabilities], tf.float64))


def test_smoothing_mixes_with_uniform_distribution():
    labels = tf.constant([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    np.testing.assert_allclose(
        smooth_labels(labels, 0.2),
        [[0.85, 0.05, 0.05, 0.05], [0.45, 0.45, 0.05, 0.05]],
        rtol=1e-6,
    )


def test_smoothing_ends_at_labels_and_at_uniform_distribution():
    labels = tf.constant([[0.0, 1.0]])
    np.testing.assert_array_equal(smooth_labels(labels, 0.0), labels)
    np.testing.assert_array_equal(smooth_labels(labels, 1.0), [[0.5, 0.5]])


@pytest.mark.parametrize(
    ("targets", "probabilities", "nats"),
    [
        ((1.0, 0.0), (0.5, 0.5), LOG2),
        ((0.0, 1.0), (0.75, 0.25), 2 * LOG2),
        ((0.25, 0.75), (0.5, 0.5), LOG2),
        # 0.5 log 2 + 0.5 log 8 = 2 log 2; the last class has no weight.
        ((0.5, 0.5, 0.0), (0.5, 0.125, 0.375), 2 * LOG2),
    ],
)
def test_cross_entropy_in_nats(targets, probabilities, nats):
    losses = soft_cross_entropy(
        targets=tf.constant([targets], tf.float64),
        logits=log_odds(*probabilities) + 3.0,
    )
    np.testing.assert_allclose(losses, [nats], rtol=1e-12)


def test_cross_entropy_has_one_value_per_example():
    losses = soft_cross_entropy(
        targets=tf.constant([[1.0, 0.0], [0.0, 1.0]]),
        logits=tf.constant([[0.0, 0.0], [0.0, math.log(3.0)]]),
    )
    np.testing.assert_allclose(losses, [LOG2, math.log(4 / 3)], rtol=1e-6)


def test_cross_entropy_stays_finite_for_large_logits():
    targets = tf.constant([[1.0, 0.0]])
    logits = tf.Variable([[-1e4, 1e4]])
    with tf.GradientTape() as tape:
        losses = soft_cross_entropy(targets=targets, logits=logits)
    np.testing.assert_allclose(losses, [2e4])
    np.testing.assert_allclose(tape.gradient(losses, logits), [[-1.0, 1.0]])


def mixed_derivative(cross_entropy, *, targets, logits, direction):
    """d/dtargets of <direction, d(mean cross-entropy)/dlogits>."""
    with tf.GradientTape() as outer:
        outer.watch(targets)
        with tf.GradientTape() as inner:
            inner.watch(logits)
            loss = tf.reduce_mean(cross_entropy(targets, logits))
        gradient = inner.gradient(loss, logits)
    return outer.gradient(
        gradient, targets, direction, unconnected_gradients="zero"
    )


@pytest.fixture
def second_order():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(4), size=3)
    return dict(
        targets=tf.constant(probabilities),
        logits=tf.constant(random.normal(size=(3, 4))),
        direction=tf.constant(random.normal(size=(3, 4))),
    )


def test_gradient_for_logits_depends_on_targets(second_order):
    """The term that carries the `exact` feedback, against its formula.

    d CE / d logits_k = sum(targets) softmax_k - targets_k, so along v its
    derivative for targets_c is <v, softmax> - v_c, over the batch size.
    """
    v = second_order["direction"].numpy()
    softmax = tf.nn.softmax(second_order["logits"]).numpy()
    by_hand = (np.sum(v * softmax, axis=-1, keepdims=True) - v) / 3

    ours = mixed_derivative(
        lambda targets, logits: soft_cross_entropy(
            targets=targets, logits=logits
        ),
        **second_order,
    )

    np.testing.assert_allclose(ours, by_hand, rtol=1e-10)


def test_fused_op_of_tensorflow_loses_that_dependence(second_order):
    """Why the loss is written out. Once this fails, it need not be."""
    v = second_order["direction"].numpy()
    softmax = tf.nn.softmax(second_order["logits"]).numpy()
    by_hand = (np.sum(v * softmax, axis=-1, keepdims=True) - v) / 3

    fused = mixed_derivative(
        tf.nn.softmax_cross_entropy_with_logits, **second_order
    )

    assert np.max(np.abs(fused - by_hand)) > 0.1


def consistency(weak, strong, **settings):
    settings = dict(temperature=1.0, threshold=0.6) | settings
    return consistency_loss(weak_logits=weak, strong_logits=strong, **settings)


def test_consistency_counts_confident_images_only():
    weak = tf.concat([log_odds(0.75, 0.25), log_odds(0.55, 0.45)], axis=0)
    strong = tf.concat([log_odds(0.5, 0.5), log_odds(0.5, 0.5)], axis=0)

    losses, mask = consistency(weak, strong)

    np.testing.assert_array_equal(mask, [1.0, 0.0])
    np.testing.assert_allclose(losses, [LOG2, 0.0], rtol=1e-12)


def test_consistency_compares_distributions_not_labels():
    losses, _ = consistency(log_odds(0.75, 0.25), log_odds(0.5, 0.5) + 1.0)
    np.testing.assert_allclose(losses, [LOG2], rtol=1e-12)
    losses, _ = consistency(log_odds(0.75, 0.25), log_odds(0.25, 0.75))
    want = 0.75 * math.log(4) + 0.25 * math.log(4 / 3)
    np.testing.assert_allclose(losses, [want], rtol=1e-12)


def test_temperature_sharpens_before_the_threshold():
    """Odds 2:1 become 4:1 at temperature 1/2: from 0.67 to 0.8."""
    weak, strong = log_odds(2 / 3, 1 / 3), log_odds(0.5, 0.5)
    for temperature, kept in ((1.0, 0.0), (0.5, 1.0)):
        _, mask = consistency(
            weak, strong, temperature=temperature, threshold=0.79
        )
        np.testing.assert_array_equal(mask, [kept])


def test_threshold_itself_is_confident():
    """Two equal logits give exactly 0.5."""
    equal = tf.zeros([1, 2])
    _, mask = consistency(equal, equal, threshold=0.5)
    np.testing.assert_array_equal(mask, [1.0])


def test_consistency_gradient_reaches_strong_logits_alone():
    weak = tf.Variable(log_odds(0.75, 0.25))
    strong = tf.Variable(log_odds(0.5, 0.5))
    with tf.GradientTape() as tape:
        losses, _ = consistency(weak, strong)
    to_weak, to_strong = tape.gradient(losses, [weak, strong])
    assert to_weak is None
    np.testing.assert_allclose(to_strong, [[-0.25, 0.25]], rtol=1e-12)


def test_masked_images_give_no_gradient():
    strong = tf.Variable(log_odds(0.5, 0.5))
    with tf.GradientTape() as tape:
        losses, _ = consistency(log_odds(0.55, 0.45), strong)
    np.testing.assert_array_equal(tape.gradient(losses, strong), [[0.0, 0.0]])


def test_balanced_weights_by_hand():
    """Six labels of two classes that occur: each counts for three."""
    weights = balanced_weights(np.array([0, 0, 2, 0, 0, 0]), classes=4)
    assert weights == {0: 3 / 5, 2: 3.0}
