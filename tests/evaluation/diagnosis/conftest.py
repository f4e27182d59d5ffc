"""One diagnosis of a small conv net, for several tests to look at."""

import keras
import pytest

from meta_pseudo_labels.evaluation.diagnosis import diagnose
from meta_pseudo_labels.learners import MetaPseudoLabels
from meta_pseudo_labels.learners.feedback import ESTIMATORS, exact, reinforce
from meta_pseudo_labels.optimizers import Momentum
from tests.learners.helpers import batch, conv_net, values

BATCHES = [batch(seed=seed) for seed in range(3)]


def mirrored(student_step, teacher_logits):
    """The opposite of `exact`: an estimator of somebody's own."""
    return -exact(student_step, teacher_logits)


def own_mean(student_step, teacher_logits):
    """`reinforce` once more, as a plug-in would register it."""
    return reinforce(student_step, teacher_logits)


own_mean.mean = True  # What `@estimator(mean=True)` writes.


def held_out(images=20, seed=9):
    data = batch(labeled=images, seed=seed)
    return data["labeled"], data["labels"]


class Diagnosed:
    """A learner with everything that a step can change, and its diagnosis."""

    def __init__(self):
        keras.utils.set_random_seed(1)
        self.learner = MetaPseudoLabels(
            conv_net("student", dropout_rate=0.2),
            conv_net("teacher", dropout_rate=0.2),
            label_smoothing=0.1,
            feedback_weight=3.0,
            ema_decay=0.9,
        )
        self.learner.compile(Momentum(0.0), weight_decay=0.01, grad_bound=5.0)
        self.learner.train_step(BATCHES[0])  # Fills slots and moments.
        self.state = [
            *self.learner.variables,
            *self.learner.optimizer.variables,
            *self.learner.teacher_optimizer.variables,
        ]
        self.before = values(self.state)
        self.found = diagnose(
            self.learner,
            BATCHES,
            held_out=held_out(),
            draws=8,
            learning_rate=0.3,
            start_step=4,
            estimators={
                **ESTIMATORS,
                "mirrored": mirrored,
                "own_mean": (own_mean, "sampled"),
            },
        )


@pytest.fixture(scope="session")
def diagnosed():
    return Diagnosed()
