"""AdaMatch beside its paper, written out in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.learners.adamatch import AdaMatch, AdaMatchTerm
from meta_pseudo_labels.learners.updates import move
from tests.learners.helpers import batch, compiled
from tests.learners.term_cases import (
    CLASSES,
    cross_entropy,
    logits_of_steps,
    prepared,
    softmax,
)

NEAR = dict(rtol=0, atol=1e-9)


class OnPaper:
    """Section 3 of arXiv 2106.04732, of weak labeled views alone."""

    def __init__(self, tau, decay, soft, total):
        self.tau, self.decay, self.soft, self.total = tau, decay, soft, total
        self.expected = np.full((2, CLASSES), 1 / CLASSES)

    def step(self, labeled, weak, strong, t):
        y_sl, y_tu = softmax(labeled), softmax(weak)
        means = np.stack([y_sl.mean(0), y_tu.mean(0)])
        self.expected = self.decay * self.expected + (1 - self.decay) * means
        aligned = y_tu * self.expected[0] / self.expected[1]
        aligned = aligned / aligned.sum(1, keepdims=True)
        c_tau = self.tau * np.mean([row.max() for row in y_sl])
        mask = aligned.max(1) >= c_tau
        targets = aligned if self.soft else np.eye(CLASSES)[aligned.argmax(1)]
        loss = np.mean(mask * cross_entropy(targets, strong))
        mu = 0.5 - np.cos(min(np.pi, 2 * np.pi * t / self.total)) / 2
        return loss, mu, mask.mean(), c_tau


@pytest.mark.parametrize(
    ("decay", "soft"), [(0.9, True), (0.0, False), (0.5, False)]
)
def test_losses_thresholds_and_state_are_the_paper_s(decay, soft):
    term = prepared(
        AdaMatchTerm(weight=2.0, decay=decay, soft=soft, num_train_steps=8)
    )
    paper = OnPaper(0.9, decay, soft, 8)
    ratios, weights = [], []
    for t, logits in enumerate(logits_of_steps(8, scale=2.0)):
        value = term.value(
            logits, None, batch={}, step=tf.constant(t, tf.int64)
        )
        loss, mu, ratio, c_tau = paper.step(*(x.numpy() for x in logits), t)
        np.testing.assert_allclose(value.loss, loss, **NEAR)
        np.testing.assert_allclose(value.weighted, 2 * mu * loss, **NEAR)
        np.testing.assert_allclose(
            value.logs["adamatch/threshold"], c_tau, **NEAR
        )
        np.testing.assert_allclose(
            value.logs["adamatch/u_ratio"], ratio, **NEAR
        )
        move(value.moves, tf.constant(True))
        np.testing.assert_allclose(term.labeled, paper.expected[0], **NEAR)
        np.testing.assert_allclose(term.unlabeled, paper.expected[1], **NEAR)
        ratios.append(ratio)
        weights.append(mu)
    assert 0 < np.mean(ratios) < 1
    assert weights[0] == 0 and weights[4:] == [1, 1, 1, 1]


def test_labeled_logits_are_mixed_each_by_a_share_of_its_own():
    """With those of labeled images alone, by which no average moves."""
    learner = compiled(AdaMatch)
    part = batch()
    student = learner.student
    before = student.get_weights()
    alone = student(part["labeled"], training=True).numpy()
    student.set_weights(before)
    together = np.concatenate([part[k] for k in ("labeled", "weak", "strong")])
    joint = student(together, training=True).numpy()
    after = student.get_weights()
    student.set_weights(before)
    logits = learner.view_logits(part)
    for mine, wanted in zip(student.get_weights(), after, strict=True):
        np.testing.assert_allclose(mine, wanted, **NEAR)
    shares = replicas.uniform([0, 0], rows=4, width=CLASSES).numpy()
    np.testing.assert_allclose(
        logits.labeled, (1 - shares) * joint[:4] + shares * alone, **NEAR
    )
    np.testing.assert_allclose(logits.weak, joint[4:10], **NEAR)
    assert np.abs(alone - joint[:4]).min() > 1e-6
    learner.step.assign(1)
    student.set_weights(before)
    again = learner.view_logits(part).labeled
    assert np.abs(again - logits.labeled).min() > 0
    learner.interpolate = False
    student.set_weights(before)
    np.testing.assert_allclose(
        learner.view_logits(part).labeled, joint[:4], **NEAR
    )
