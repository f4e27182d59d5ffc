"""The control that learns from a fixed teacher."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import PseudoLabels
from tests.learners import helpers

CONFIDENT = np.float32([[0.6, 0.3, 0.1], [0.0, 0.5, 0.5]])


def linear(dtype="float64"):
    """Logits are the inputs times a 2 x 3 matrix, zero at first."""
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(
                3, use_bias=False, kernel_initializer="zeros", dtype=dtype
            ),
        ]
    )


def points():
    return {
        "labeled": np.array([[1.0, 0.0]]),
        "labels": np.int32([2]),
        "strong": np.array([[0.0, 2.0], [4.0, 0.0]]),
        "unlabeled_distributions": CONFIDENT,
    }


def step(**settings):
    """Weights after a step of SGD at rate 1, and its logs."""
    learner = PseudoLabels(linear(), **settings)
    learner.compile(keras.optimizers.SGD(1.0))
    logs = learner.train_step(points())
    return learner.student.get_weights()[0], logs


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("hard", [[1, 0, 0], [0, 1, 0]]),
        ("soft", CONFIDENT),
    ],
)
def test_one_step_by_hand(kind, targets):
    """At zero logits the gradient is x (1/3 - target), a mean per part.

    The tie of 0.5 and 0.5 goes to the first.
    """
    third = np.full(3, 1 / 3)
    labeled = np.outer([1, 0], third - [0, 0, 1])
    unlabeled = (
        np.outer([0, 2], third - targets[0])
        + np.outer([4, 0], third - targets[1])
    ) / 2
    weights, logs = step(pseudo_labels=kind)
    np.testing.assert_allclose(weights, -(labeled + unlabeled), atol=1e-7)
    np.testing.assert_allclose(logs["loss/cross_entropy"], np.log(3))
    np.testing.assert_allclose(logs["pseudo_labels/cross_entropy"], np.log(3))
    np.testing.assert_allclose(logs["loss/total"], 2 * np.log(3))


def test_hard_labels_are_the_default():
    np.testing.assert_array_equal(step()[0], step(pseudo_labels="hard")[0])


def test_a_temperature_of_a_half_squares():
    """0.6, 0.3, 0.1 become .36, .09, .01 over their sum, .46."""
    learner = PseudoLabels(
        linear(), pseudo_labels="soft", label_temperature=0.5
    )
    got = learner.draw_pseudo_labels(tf.constant(CONFIDENT))
    want = [np.array([0.36, 0.09, 0.01]) / 0.46, [0, 0.5, 0.5]]
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_samples_follow_the_distributions_and_the_step():
    learner = PseudoLabels(linear(), pseudo_labels="sampled", seed=5)
    rows = tf.constant(np.tile(CONFIDENT, [4000, 1]))
    first = learner.draw_pseudo_labels(rows)
    shares = np.reshape(first, [4000, 2, 3]).mean(axis=0)
    np.testing.assert_allclose(shares, CONFIDENT, atol=0.04)
    np.testing.assert_array_equal(first, learner.draw_pseudo_labels(rows))
    learner.step.assign(1)
    assert np.any(first != learner.draw_pseudo_labels(rows))


def test_smoothing_and_confidence_reach_the_student():
    """Smoothing of 1 makes all targets uniform: nothing to learn at zero."""
    weights, _ = step(label_smoothing=1.0)
    np.testing.assert_allclose(weights, np.zeros([2, 3]), atol=1e-12)


@pytest.mark.long
def test_trains_with_averages_and_saves(tmp_path):
    learner = helpers.make(
        PseudoLabels, ema_decay=0.9, pseudo_labels="soft", label_temperature=2.0
    )
    learner.compile("sgd", weight_decay=0.01)
    batch = helpers.batch(dtype="float32") | {
        "unlabeled_distributions": np.full([6, 3], 1 / 3, "float32")
    }
    before = helpers.values(learner.student.trainable_variables)
    learner.fit(
        tf.data.Dataset.from_tensors(batch).repeat(2), epochs=1, verbose=0
    )
    assert int(learner.step) == 2
    for old, new in zip(
        before, learner.student.trainable_variables, strict=True
    ):
        assert np.any(old != new.numpy())
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert loaded.label_kind == "soft"
    assert loaded.label_temperature == 2.0
    np.testing.assert_array_equal(
        loaded.predict(batch["labeled"], verbose=0),
        learner.predict(batch["labeled"], verbose=0),
    )


def test_bad_settings_and_batches_are_refused():
    with pytest.raises(ValueError, match="pseudo_labels must be in .*'firm'"):
        PseudoLabels(linear(), pseudo_labels="firm")
    with pytest.raises(ValueError, match="label_temperature must be positive"):
        PseudoLabels(linear(), label_temperature=0)
    learner = PseudoLabels(linear())
    learner.compile("sgd")
    with pytest.raises(ValueError, match="unlabeled_distributions"):
        learner.train_step(helpers.batch())
    wrong = points() | {"unlabeled_distributions": np.float32([[0.5, 0.5]] * 2)}
    with pytest.raises(ValueError, match=r"\[batch, 3\].*\(2, 2\)"):
        learner.train_step(wrong)
