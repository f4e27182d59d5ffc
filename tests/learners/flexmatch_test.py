"""FlexMatch beside its paper, written out in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.data.spec import DATASETS
from meta_pseudo_labels.learners.build import build_learner
from meta_pseudo_labels.learners.flexmatch import FlexMatchTerm
from meta_pseudo_labels.learners.updates import move
from meta_pseudo_labels.utils.settings import ConfigError
from tests.learners.term_cases import (
    CLASSES,
    cross_entropy,
    logits_of_steps,
    prepared,
    softmax,
)
from tests.tiny_run import tiny


class OnPaper:
    """Algorithm 1 of arXiv 2110.08263."""

    def __init__(self, unlabeled, tau):
        self.tau = tau
        self.last = {n: -1 for n in range(unlabeled)}

    def step(self, weak, strong, indices):
        counts = np.array(
            [sum(x == c for x in self.last.values()) for c in range(CLASSES)]
        )
        beta = counts / max(max(counts), len(self.last) - sum(counts))
        tau = beta / (2 - beta) * self.tau
        q = softmax(weak)
        chosen = q.argmax(1)
        sure = np.array(
            [row.max() > tau[c] for row, c in zip(q, chosen, strict=True)]
        )
        losses = sure * cross_entropy(np.eye(CLASSES)[chosen], strong)
        for row, c, index in zip(q, chosen, indices, strict=True):
            if row.max() > self.tau:
                self.last[index] = c
        return losses.mean(), sure.mean(), tau


@pytest.mark.parametrize(("unlabeled", "tau"), [(30, 0.6), (7, 0.8)])
def test_losses_thresholds_and_state_are_the_paper_s(unlabeled, tau):
    """With few images also those that come twice in a batch."""
    term = prepared(
        FlexMatchTerm(unlabeled=unlabeled, weight=2.0, threshold=tau)
    )
    paper = OnPaper(unlabeled, tau)
    random = np.random.default_rng(1)
    near = dict(rtol=0, atol=1e-9)
    seen = set()
    for logits in logits_of_steps(12, unlabeled=8, scale=2.0):
        indices = random.integers(unlabeled, size=8)
        thresholds = term.thresholds("float64").numpy()
        value = term.value(
            logits, None, batch={"unlabeled_indices": indices}, step=0
        )
        loss, ratio, wanted = paper.step(
            logits.weak.numpy(), logits.strong.numpy(), indices
        )
        np.testing.assert_allclose(thresholds, wanted, **near)
        np.testing.assert_allclose(value.loss, loss, **near)
        np.testing.assert_allclose(value.weighted, 2 * loss, **near)
        np.testing.assert_allclose(
            value.logs["flexmatch/u_ratio"], ratio, **near
        )
        move(value.moves, tf.constant(True))
        np.testing.assert_array_equal(term.chosen, list(paper.last.values()))
        seen |= set(thresholds)
    assert len(seen) > 4  # They moved.


def test_of_an_image_that_comes_twice_the_last_sure_row_counts():
    term = prepared(FlexMatchTerm(unlabeled=3, threshold=0.9))
    weak = tf.constant(
        [[9.0, 0, 0], [0, 9, 0], [0, 0, 1], [0, 0, 9]], "float64"
    )
    chosen = term._moved(tf.nn.softmax(weak), np.array([2, 2, 2, 0]))
    np.testing.assert_array_equal(chosen, [2, -1, 1])


def test_a_number_of_images_that_nobody_said_is_asked_for(tmp_path):
    config = tiny(tmp_path, method="flexmatch")
    with pytest.raises(ConfigError, match="give their number as unlabeled"):
        build_learner(config, DATASETS["digits"])
