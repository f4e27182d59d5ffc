"""Compares the feedback of MPL implementations with the true gradient.

    python -m benchmarks.audit.run --json benchmarks/results/audit.json
    python -m benchmarks.audit.table

A draw is a new pair of tiny networks (float64, no batch norm), partly trained
on three noisy classes, and a new batch. For each implementation, the student
takes one step on the labels that it would learn there; the gradient of the
implementation's feedback with respect to the teacher's weights is compared with
finite differences, in these weights, of the labeled loss after the student's
step. If the student learns an argmax, which has no derivative, the differences
use soft labels in its place.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
import functools
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from benchmarks.audit import estimators
from benchmarks.audit.table import summary, table
from benchmarks.common.arguments import (
    benchmark_parser,
    parsed,
    recorded,
    write_report,
)
from benchmarks.common.machine import machine_facts, revision
from meta_pseudo_labels.learners import MetaPseudoLabels
from meta_pseudo_labels.learners import feedback as ours
from meta_pseudo_labels.learners.losses import mean_cross_entropy
from meta_pseudo_labels.learners.passes import gradients_of
from meta_pseudo_labels.learners.student_step import take_student_step

INPUTS, HIDDEN, CLASSES = 4, 5, 3
LABELED, UNLABELED = 8, 16
TEACHER_STEPS, STUDENT_STEPS = 60, 15  # On labels, before a draw.
RATE = 0.3
EPSILON = 1e-5  # Of a finite difference.
# USB's configuration for CIFAR-10: sharpening temperature and threshold.
USB_TEMPERATURE, USB_THRESHOLD = 0.7, 0.6


def soft_strong(weak, strong, seed):
    return tf.nn.softmax(strong)


def soft_weak(weak, strong, seed):
    return tf.nn.softmax(weak)


def hard_weak(weak, strong, seed):
    return ours.draw_labels(weak, kind="hard", seed=seed)


def sampled_strong(weak, strong, seed):
    return ours.draw_labels(strong, kind="sampled", seed=seed)


def sharpened(weak, strong, seed):
    """Rows of 0, which have no loss, for images below the threshold."""
    sure = tf.reduce_max(tf.nn.softmax(strong), axis=-1, keepdims=True)
    kept = tf.cast(sure >= USB_THRESHOLD, strong.dtype)
    return kept * tf.nn.softmax(strong / USB_TEMPERATURE)


@dataclasses.dataclass(frozen=True)
class Implementation:
    """What is measured.

    Attributes:
      estimator: see `learners.feedback`.
      labels: what the student learns on strong views: a function of the
        teacher's logits on weak and on strong views, and of a seed.
      smooth: the same, differentiable.
    """

    estimator: Callable
    labels: Callable = soft_strong
    smooth: Callable = soft_strong


IMPLEMENTATIONS = {
    "release": Implementation(ours.release),
    "kekmodel": Implementation(estimators.kekmodel, hard_weak, soft_weak),
    "kekmodel_detached": Implementation(
        estimators.kekmodel_detached, hard_weak, soft_weak
    ),
    "usb": Implementation(estimators.usb, sharpened, sharpened),
    "modssc": Implementation(estimators.modssc),
    "ricoshin": Implementation(estimators.ricoshin),
    "reinforce": Implementation(ours.reinforce, sampled_strong),
    "reinforce_per_example": Implementation(
        ours.reinforce_per_example, sampled_strong
    ),
    "exact": Implementation(ours.exact),
}


def main():
    settings = parse_arguments()
    start = time.perf_counter()
    rows = summary(measure(settings.draws, settings.seed))
    report = {
        "settings": recorded(settings),
        "machine": machine_facts(),
        "revision": revision(),
        "seconds": round(time.perf_counter() - start),
        "rows": rows,
    }
    write_report(report, settings.json)
    print(table(report), end="")


def parse_arguments():
    parser = benchmark_parser(
        __doc__, (("draws", 500, "pairs of networks, and batches"),)
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    return parsed(parser)


def measure(draws, seed=0):
    """{name: [(gradient of the feedback, true gradient), ...]}, each flat."""
    laboratory = Laboratory(seed)
    measured = {name: [] for name in IMPLEMENTATIONS}
    for _ in range(draws):
        laboratory.start_afresh()
        truths = {
            smooth: laboratory.finite_differences(smooth)
            for smooth in {i.smooth for i in IMPLEMENTATIONS.values()}
        }
        for name, implementation in IMPLEMENTATIONS.items():
            gradient = laboratory.gradient(name)
            measured[name].append((gradient, truths[implementation.smooth]))
    return measured


def network(name):
    return keras.Sequential(
        [
            keras.Input((INPUTS,)),
            keras.layers.Dense(HIDDEN, "tanh", dtype="float64"),
            keras.layers.Dense(CLASSES, dtype="float64"),
        ],
        name=name,
    )


class Laboratory:
    """A student, a teacher and a batch, redrawn for every measurement.

    Args:
      seed: of all draws.
    """

    def __init__(self, seed):
        self._random = np.random.default_rng(seed)
        self._student, self._teacher = network("student"), network("teacher")
        self._start = [tf.Variable(w) for w in self._student.weights]
        self._learner = MetaPseudoLabels(self._student, self._teacher, uda=None)
        self._learner.compile(keras.optimizers.SGD(RATE))
        self._averages = dict.fromkeys(IMPLEMENTATIONS, (0.0, 0.0))
        self._begin = {
            model: tf.function(functools.partial(_learn_labels, model))
            for model in (self._student, self._teacher)
        }
        self._new_losses = tf.function(self._losses_after, autograph=False)
        self._gradients = {
            name: tf.function(
                functools.partial(self._gradient_of, implementation),
                autograph=False,
            )
            for name, implementation in IMPLEMENTATIONS.items()
        }

    def start_afresh(self):
        """New networks, partly trained, and a new batch."""
        means = 1.5 * self._random.normal(size=(CLASSES, INPUTS))
        for model, steps in (
            (self._student, STUDENT_STEPS),
            (self._teacher, TEACHER_STEPS),
        ):
            for weight in model.weights:
                weight.assign(0.5 * self._random.normal(size=weight.shape))
            batch = self._examples(means, LABELED)
            self._begin[model](*batch, tf.constant(steps))
        _assign(self._start, self._student.weights)
        labeled, labels = self._examples(means, LABELED)
        weak, _ = self._examples(means, UNLABELED)
        noise = 0.5 * self._random.normal(size=weak.shape)
        self._batch = {
            "labeled": labeled,
            "labels": labels,
            "weak": weak,
            "strong": weak + noise,
        }

    def _examples(self, means, count):
        """Inputs [count, INPUTS] around the means of their classes [count]."""
        labels = self._random.integers(len(means), size=count)
        noise = self._random.normal(size=(count, INPUTS))
        return tf.constant(means[labels] + noise), tf.constant(labels)

    def finite_differences(self, smooth):
        """The true gradient of the new labeled loss, [weights].

        By finite differences in the teacher's weights.
        """
        theta = _flat(self._teacher.weights).numpy()
        steps = EPSILON * np.eye(theta.size)
        thetas = theta + np.concatenate([steps, -steps])
        logits = (logits_of(thetas, self._batch[v]) for v in ("weak", "strong"))
        labels = smooth(*logits, seed=None)
        above, below = np.split(self._new_losses(self._batch, labels), 2)
        return (above - below) / (2 * EPSILON)

    def _losses_after(self, batch, labels):
        """The labeled loss after a step on each of these labels, [count]."""

        def loss_after(pseudo_labels):
            _assign(self._student.weights, self._start)
            step, _ = take_student_step(
                self._learner, batch, pseudo_labels=pseudo_labels
            )
            return step.labeled_loss_new

        return tf.map_fn(loss_after, labels, parallel_iterations=1)

    def gradient(self, name):
        """Of a feedback with respect to the teacher's weights, [weights].

        Each implementation has its own moving averages, which start at 0.
        """
        averages = [
            baseline.average
            for baseline in (
                self._learner.baseline,
                self._learner.estimator_baseline,
            )
        ]
        _assign(averages, self._averages[name])
        seed = tf.constant(self._random.integers(2**31, size=2))
        gradient = self._gradients[name](self._batch, seed).numpy()
        self._averages[name] = [average.numpy() for average in averages]
        return gradient

    def _gradient_of(self, implementation, batch, seed):
        _assign(self._student.weights, self._start)
        views = "weak", "strong"
        with tf.GradientTape() as tape:
            logits = {view: self._teacher(batch[view]) for view in views}
            with tape.stop_recording():
                labels = implementation.labels(**logits, seed=seed)
                step, _ = take_student_step(
                    self._learner, batch, pseudo_labels=labels
                )
            loss = implementation.estimator(step, logits["strong"])
        return _flat(gradients_of(tape, loss, self._teacher))


def _learn_labels(model, images, labels, steps):
    """Plain gradient descent on a labeled batch."""
    targets = tf.one_hot(labels, CLASSES, dtype="float64")
    for _ in tf.range(steps):
        with tf.GradientTape() as tape:
            loss = mean_cross_entropy(targets, model(images))
        gradients = gradients_of(tape, loss, model)
        for weight, gradient in zip(model.weights, gradients, strict=True):
            weight.assign_sub(RATE * gradient)


def logits_of(thetas, images):
    """Logits of `network` for many weights at once: [count, images, CLASSES].

    Args:
      thetas: its weights, flat, [count, weights].
      images: [images, INPUTS].
    """
    shapes = (INPUTS, HIDDEN), (HIDDEN,), (HIDDEN, CLASSES), (CLASSES,)
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    hidden, hidden_bias, output, output_bias = (
        part.reshape(-1, *shape)
        for part, shape in zip(
            np.split(thetas, ends[:-1], axis=1), shapes, strict=True
        )
    )
    features = tf.tanh(images @ hidden + hidden_bias[:, None])
    return features @ output + output_bias[:, None]


def _flat(tensors):
    return tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


if __name__ == "__main__":
    main()
