"""The consistency term, in numbers worked by hand."""

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import UDA, MetaPseudoLabels, UDASettings
from meta_pseudo_labels.learners.uda import ViewLogits, consistency_term
from tests.learners.helpers import batch, compiled, conv_net, values


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
