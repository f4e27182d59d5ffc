"""FreeMatch beside its paper, written out in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners.freematch import FreeMatchTerm, fairness_loss
from meta_pseudo_labels.learners.updates import move
from tests.learners.term_cases import (
    CLASSES,
    cross_entropy,
    logits_of_steps,
    prepared,
    softmax,
)


class OnPaper:
    """Equations 5 to 12 of arXiv 2205.07246."""

    def __init__(self, decay):
        self.decay = decay
        self.tau = 1 / CLASSES
        self.p = np.full(CLASSES, 1 / CLASSES)
        self.h = np.full(CLASSES, 1 / CLASSES)

    def average(self, old, new):
        return self.decay * old + (1 - self.decay) * new

    def step(self, weak, strong):
        q, on_strong = softmax(weak), softmax(strong)
        self.tau = self.average(self.tau, np.mean([max(row) for row in q]))
        self.p = self.average(self.p, q.mean(0))
        self.h = self.average(self.h, histogram(q))
        tau = self.p / max(self.p) * self.tau
        sure = np.array([max(row) > tau[np.argmax(row)] for row in q])
        losses = sure * cross_entropy(np.eye(CLASSES)[q.argmax(1)], strong)
        fairness = 0.0
        if sure.any():
            fairness = on_paper_fairness(on_strong[sure], self.p, self.h)
        return losses.mean(), fairness, sure.mean()


def histogram(q):
    return np.bincount(q.argmax(1), minlength=CLASSES) / len(q)


def on_paper_fairness(strong, p, h, chosen=None):
    chosen = histogram(strong) if chosen is None else chosen
    used = chosen > 0
    got = strong.mean(0)[used] / chosen[used]
    want = p / h / np.sum(p / h)
    return float(want[used] @ np.log(got / got.sum()))


@pytest.mark.parametrize(("decay", "scale"), [(0.9, 2.0), (0.5, 0.3)])
def test_losses_thresholds_and_state_are_the_paper_s(decay, scale):
    term = prepared(FreeMatchTerm(weight=2.0, fairness=0.3, decay=decay))
    paper = OnPaper(decay)
    ratios = []
    for number, logits in enumerate(logits_of_steps(8, scale=scale)):
        value = term.value(logits, None, batch={}, step=number)
        loss, fairness, ratio = paper.step(
            logits.weak.numpy(), logits.strong.numpy()
        )
        near = dict(rtol=0, atol=1e-9)
        np.testing.assert_allclose(value.loss, loss, **near)
        np.testing.assert_allclose(
            value.weighted, 2 * loss + 0.3 * fairness, **near
        )
        np.testing.assert_allclose(
            value.logs["freematch/u_ratio"], ratio, **near
        )
        move(value.moves, tf.constant(True))
        for mine, theirs in (
            (term.confidence, paper.tau),
            (term.shares, paper.p),
            (term.histogram, paper.h),
        ):
            np.testing.assert_allclose(mine, theirs, **near)
        ratios.append(ratio)
    assert 0 < min(ratios) < 1  # Some are sure and some are not.


def test_the_gradient_of_fairness_is_that_of_differences():
    (logits,) = logits_of_steps(1, unlabeled=5)
    mask = np.float64([1, 1, 0, 1, 0])
    p, h = np.float64([[0.3, 0.3, 0.4], [0.5, 0.2, 0.3]])
    strong = tf.Variable(logits.strong)
    with tf.GradientTape() as tape:
        loss = fairness_loss(strong * 1.0, mask, shares=p, histogram=h)
    found = tape.gradient(loss, strong).numpy()
    chosen = histogram(softmax(logits.strong.numpy()[mask > 0]))
    wanted = np.zeros_like(found)
    for place in np.ndindex(*found.shape):
        sides = []
        for change in (1e-5, -1e-5):
            moved = logits.strong.numpy().copy()
            moved[place] += change
            sides.append(
                on_paper_fairness(softmax(moved[mask > 0]), p, h, chosen)
            )
        wanted[place] = (sides[0] - sides[1]) / 2e-5
    np.testing.assert_allclose(found, wanted, atol=1e-8)
    assert np.abs(found[mask > 0]).min() > 1e-4
    assert not found[mask == 0].any()


def test_nobody_sure_is_no_loss_and_no_nan():
    (logits,) = logits_of_steps(1)
    with tf.GradientTape() as tape:
        tape.watch(logits.strong)
        loss = fairness_loss(
            logits.strong,
            tf.zeros([6], tf.float64),
            shares=np.full(CLASSES, 1 / 3),
            histogram=np.float64([1, 0, 0]),  # As where an average vanished.
        )
    assert float(loss) == 0
    assert not tape.gradient(loss, logits.strong).numpy().any()
