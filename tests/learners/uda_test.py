"""The consistency term, in numbers worked by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import (
    UDA,
    AlignedUDA,
    MetaPseudoLabels,
    UDASettings,
)
from meta_pseudo_labels.learners.losses import align
from meta_pseudo_labels.learners.passes import ViewLogits
from meta_pseudo_labels.learners.uda import consistency_term
from meta_pseudo_labels.learners.updates import move
from tests.learners.helpers import batch, compiled, conv_net, values
from tests.learners.replicas_test import COMMON, assert_same, train
from tests.learners.replicas_test import conv_net as shared_net
from tests.learners.term_cases import prepared

ALIGNED = dict(decay=0.5, temperature=0.5, threshold=0.0, ramp_steps=1)


def test_masked_images_stay_in_the_divisor():
    """Quirk 14: one of two is confident, so half of its loss."""
    logits = ViewLogits(
        labeled=tf.zeros([1, 2]),
        weak=tf.math.log([[0.75, 0.25], [0.55, 0.45]]),
        strong=tf.zeros([2, 2]),
    )
    settings = UDASettings(temperature=1.0, threshold=0.6)
    _, loss, logs = consistency_term(
        settings, logits, tf.constant([[1.0, 0.0]]), step=0
    )
    np.testing.assert_allclose(loss, np.log(2) / 2, rtol=1e-6)
    assert float(logs["uda/u_ratio"]) == 0.5


def test_labels_are_smoothed_and_pseudo_labels_are_not():
    """Quirk 14."""
    uda = UDASettings(threshold=0.0)
    plain, smooth = (
        compiled(UDA, uda=uda, label_smoothing=s).train_step(batch())
        for s in (0.0, 0.3)
    )
    np.testing.assert_allclose(
        plain["uda/cross_entropy"], smooth["uda/cross_entropy"], rtol=1e-12
    )
    assert plain["loss/cross_entropy"] != smooth["loss/cross_entropy"]


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0.0), (4, 1 / 3), (5, 2 / 3), (10, 1.0)]
)
def test_labeled_mask_by_hand(step, share):
    """Quirk 15: the bounds are 1/3, 0.6, 0.67 and 1."""
    correct = np.array([0.5, 0.65, 0.9])
    rest = (1 - correct) / 2
    labeled = tf.math.log(np.stack([correct, rest, rest], axis=-1))
    logits = ViewLogits(labeled, weak=labeled, strong=labeled)
    *_, logs = consistency_term(
        UDASettings(num_train_steps=10),
        logits,
        tf.one_hot([0, 0, 0], 3, dtype=tf.float64),
        step=step,
    )
    np.testing.assert_allclose(logs["uda/l_ratio"], share, rtol=1e-9)


@pytest.mark.parametrize("method", [UDA, MetaPseudoLabels])
def test_labeled_mask_is_logged_and_not_applied(method):
    """Quirk 15: at steps 0 and 1 of a run of 1, and of a million."""
    weights, ratios = [], []
    for num_train_steps in (1, 10**6):
        learner = compiled(
            method, uda=UDASettings(num_train_steps=num_train_steps)
        )
        for seed in (0, 1):
            logs = learner.train_step(batch(seed=seed))
        weights.append(values(learner.variables))
        ratios.append(float(logs["uda/l_ratio"]))
    assert ratios[0] == 1.0 > ratios[1]
    for one, two in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_uda_without_its_settings_is_refused():
    with pytest.raises(ValueError, match="uda=None"):
        UDA(conv_net("student"), uda=None)


def by_hand(weak=(0.8, 0.1, 0.1)):
    """Logits of one image that all views say the same of, and its label, 1."""
    logits = tf.math.log(tf.constant([weak], tf.float64))
    strong = tf.zeros([1, 3], tf.float64)
    labels = tf.constant([[0.0, 1.0, 0.0]], tf.float64)
    return ViewLogits(labeled=logits, weak=logits, strong=strong), labels


def test_guesses_are_aligned_with_the_labels_by_hand():
    """Averages of 1/3 and what is seen, at a decay of a half.

    Labels: (1, 4, 1) / 6; guesses: (34, 13, 13) / 60; the former over the
    latter: (5/17, 40/13, 10/13).
    """
    term = prepared(AlignedUDA(**ALIGNED))
    logits, labels = by_hand()
    value = term.value(logits, labels, batch={}, step=1)
    # 0.8 * 5/17, 0.1 * 40/13, 0.1 * 10/13; then sharpened: squares, summed.
    aligned = np.array([4 / 17, 4 / 13, 1 / 13])
    target = aligned**2 / np.sum(aligned**2)
    np.testing.assert_allclose(value.loss, np.log(3), rtol=1e-12)
    strong = np.log([0.5, 0.2, 0.3])
    value = term.value(
        logits._replace(strong=tf.constant([strong])), labels, batch={}, step=1
    )
    np.testing.assert_allclose(value.loss, -target @ strong, rtol=1e-12)
    np.testing.assert_allclose(value.weighted, value.loss, rtol=0)
    np.testing.assert_array_equal(term.guesses, [1 / 3] * 3)
    move(value.moves, tf.constant(True))
    np.testing.assert_allclose(term.labels, [1 / 6, 2 / 3, 1 / 6], rtol=1e-12)
    np.testing.assert_allclose(
        term.guesses, [17 / 30, 13 / 60, 13 / 60], rtol=1e-12
    )


def test_an_aligned_guess_counts_by_its_own_confidence():
    """4/17, 4/13 and 1/13 are 0.38, 0.50 and 0.12 of their sum, not 0.8."""
    logits, labels = by_hand()
    for threshold, share in ((0.49, 1.0), (0.51, 0.0)):
        term = prepared(
            AlignedUDA(decay=0.5, temperature=1.0, threshold=threshold)
        )
        logs = term.value(logits, labels, batch={}, step=1).logs
        assert float(logs["uda/u_ratio"]) == share


def test_a_guess_of_classes_without_labels_stays():
    said = tf.constant([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    got = align(said, wanted=tf.constant([0.0, 0.5, 0.5]), found=[0.5, 0.25, 0])
    np.testing.assert_array_equal(got, [[0, 1, 0], [1, 0, 0]])


def test_equal_averages_change_nothing():
    logits, labels = by_hand()
    plain = UDASettings(temperature=0.5).value(
        logits, labels, batch={}, step=5_000
    )
    still = prepared(AlignedUDA(decay=1.0, temperature=0.5)).value(
        logits, labels, batch={}, step=5_000
    )
    np.testing.assert_allclose(still.weighted, plain.weighted, rtol=1e-12)
    assert float(plain.weighted) > 0


def test_the_averages_are_saved_with_the_learner(tmp_path):
    learner = compiled(UDA, uda=AlignedUDA(**ALIGNED))
    learner.uda.labels.assign([0.5, 0.3, 0.2])
    learner.uda.guesses.assign([0.1, 0.2, 0.7])
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert loaded.uda.get_config() == learner.uda.get_config()
    np.testing.assert_array_equal(loaded.uda.labels, [0.5, 0.3, 0.2])
    np.testing.assert_array_equal(loaded.uda.guesses, [0.1, 0.2, 0.7])
    with pytest.raises(ValueError, match="AlignedUDA of its own"):
        compiled(UDA, uda=learner.uda)


def test_a_teacher_learns_it_as_a_student_does():
    mpl = compiled(MetaPseudoLabels, feedback="off", uda=AlignedUDA(**ALIGNED))
    alone = compiled(UDA, uda=AlignedUDA(**ALIGNED))
    alone.student.set_weights(mpl.teacher.get_weights())
    for seed in range(2):
        mpl.train_step(batch(seed=seed))
        alone.train_step(batch(seed=seed))
    for mine, other in zip(
        mpl.teacher.trainable_variables + mpl.uda.weights,
        alone.student.trainable_variables + alone.uda.weights,
        strict=True,
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-12)


@pytest.mark.long
@pytest.mark.parametrize("method", ["uda", "mpl"])
def test_aligned_on_two_replicas_as_on_one(mirrored, method):
    def build():
        common = dict(uda=AlignedUDA(**ALIGNED), **COMMON)
        if method == "uda":
            return UDA(shared_net("student"), **common)
        return MetaPseudoLabels(
            shared_net("student"), shared_net("teacher"), **common
        )

    one, two = (train(build, x, steps=3) for x in (None, mirrored(2)))
    assert_same(one, two)
