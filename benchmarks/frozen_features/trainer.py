"""Small networks on cached features, trained by any method in seconds."""

import dataclasses
import json
import re
import time

import keras
import numpy as np
import tensorflow as tf

from benchmarks.common.machine import machine_facts, revision
from benchmarks.frozen_features.look_ahead import LookAhead
from meta_pseudo_labels import UDA, MetaPseudoLabels, Supervised, UDASettings
from meta_pseudo_labels.learners.finetuning import finetune

CLASSES, UNITS = 10, 128
BATCH, UNLABELED = 32, 128
# Only if --methods names it: a step takes N times as long.
AHEAD = r"look ahead ([1-9]\d*), consistency"


def network(name, width):
    """One hidden layer on `width` inputs; logits, [batch, CLASSES]."""
    layers = [keras.layers.Dense(UNITS, activation="relu")]
    layers.append(keras.layers.Dense(CLASSES))
    return keras.Sequential([keras.Input((width,)), *layers], name=name)


def learner_of(method, settings, width):
    """A compiled learner of one of METHODS."""
    name, _, term = method.partition(", ")
    uda = None
    if name == "uda" or term == "consistency":
        uda = UDASettings(
            weight=settings.consistency,
            ramp_steps=settings.num_steps // 5,
            temperature=0.5,
            threshold=settings.threshold,
        )
    student = network("student", width)
    if name == "supervised":
        learner = Supervised(student)
    elif name == "uda":
        learner = UDA(student, uda=uda)
    else:
        if ahead := re.fullmatch(AHEAD, method):
            name = LookAhead(int(ahead[1]))
        learner = MetaPseudoLabels(
            student,
            network("teacher", width),
            feedback=name,
            label_temperature=settings.label_temperature,
            uda=uda,
        )
    learner.compile(optimizer(settings))
    return learner


def optimizer(settings):
    return keras.optimizers.SGD(
        settings.learning_rate, momentum=0.9, nesterov=True
    )


class Trainer:
    """A method and its settings; traced once, then for any seed and labels."""

    def __init__(self, method, settings):
        self.method, self.settings = method, settings
        self.learner = None

    def add_row(self, path, arrays, labels, seed):
        """Appends a row to a file, unless it is already there."""
        key = dict(
            method=self.method,
            labels=labels,
            seed=seed,
            settings=dataclasses.asdict(self.settings),
        )
        if any(key.items() <= row.items() for row in read_rows(path)):
            return
        row = key | self.measure(arrays, labels, seed)
        row |= dict(revision=revision(), machine=machine_facts())
        with open(path, "a") as file:
            file.write(json.dumps(row) + "\n")

    def measure(self, arrays, count, seed):
        """Trains with `count` labels of a seed; accuracies are in percent."""
        if self.learner is None:
            width = arrays["plain"].shape[1]
            self.learner = learner_of(self.method, self.settings, width)
            self.steps = tf.function(self._steps)
            # Keys all random draws. A variable, so that it can change.
            self.learner.seed = tf.Variable(0, dtype="int64")
        learner = self.learner
        start = time.monotonic()
        chosen = labeled_choice(arrays["labels"], count, seed)
        self._start_afresh(seed)
        self.steps(
            tf.constant(arrays["weak"][:, chosen]),
            tf.constant(arrays["labels"][chosen]),
            tf.constant(arrays["weak"]),
            tf.constant(arrays["strong"]),
        )
        found = {"accuracy": accuracy(learner.student, arrays)}
        if hasattr(learner, "teacher"):
            found["accuracy_teacher"] = accuracy(learner.teacher, arrays)
        self._finetune(arrays, chosen, seed)
        found["accuracy_finetuned"] = accuracy(learner.student, arrays)
        return found | {
            "judge": arrays["judge"],
            "seconds": round(time.monotonic() - start, 2),
        }

    def _steps(self, *pools):
        for step in tf.range(self.settings.num_steps, dtype="int64"):
            batch = self._batch(step, *pools)
            wanted = self.learner.batch_keys
            batch = {k: batch[k] for k in wanted}
            feedback = getattr(self.learner, "feedback", None)
            if isinstance(feedback, LookAhead):
                coming = [
                    self._batch(step + number, *pools)["strong"]
                    for number in range(1, feedback.steps)
                ]
                feedback.prepare(self.learner, batch, coming)
            self.learner.train_step(batch)

    def _batch(self, step, labeled, labels, weak, strong):
        """What a step sees: one view of each image drawn."""
        key = [self.learner.seed, step]
        own = draw([BATCH], key, 0, len(labels))
        other = draw([UNLABELED], key, 1, weak.shape[1])
        view, pair = (
            draw([size], key, number, weak.shape[0])
            for size, number in ((BATCH, 2), (UNLABELED, 3))
        )
        return {
            "labeled": tf.gather_nd(labeled, tf.stack([view, own], -1)),
            "labels": tf.gather(labels, own),
            "weak": tf.gather_nd(weak, tf.stack([pair, other], -1)),
            "strong": tf.gather_nd(strong, tf.stack([pair, other], -1)),
        }

    def _start_afresh(self, seed):
        """Sets the same initial weights for every method, and counts to 0."""
        learner = self.learner
        networks, optimizers = [learner.student], [learner.optimizer]
        if hasattr(learner, "teacher"):
            networks.append(learner.teacher)
            optimizers.append(learner.teacher_optimizer)
        variables = sum((o.variables for o in optimizers), learner.variables)
        for variable in variables:
            variable.assign(tf.zeros_like(variable))
        for each in optimizers:
            each.learning_rate.assign(self.settings.learning_rate)
        learner.seed.assign(seed)
        for number, model in enumerate(networks):
            random = np.random.default_rng([seed, number])
            for variable in model.weights:
                if len(variable.shape) == 2:
                    scale = np.sqrt(2 / variable.shape[0])
                    variable.assign(scale * random.normal(size=variable.shape))

    def _finetune(self, arrays, chosen, seed):
        """Trains the student on labels alone, at a tenth of the rate."""
        steps = self.settings.num_steps // 5
        random = np.random.default_rng([seed, 2])
        views = random.integers(len(arrays["weak"]), size=[steps, BATCH])
        rows = random.choice(chosen, size=[steps, BATCH])
        dataset = tf.data.Dataset.from_tensor_slices(
            (arrays["weak"][views, rows], arrays["labels"][rows])
        )
        finetune(
            self.learner.student,
            dataset,
            steps=steps,
            learning_rate=self.settings.learning_rate / 10,
        )


def draw(shape, key, number, total):
    key = tf.stack([key[0], 4 * key[1] + number])
    return tf.random.stateless_uniform(shape, key, 0, total, tf.int32)


def labeled_choice(labels, count, seed):
    """`count` rows, the same number from each class: [count] integers."""
    random = np.random.default_rng([seed, 3])
    return np.concatenate(
        [
            random.choice(
                np.flatnonzero(labels == number),
                count // CLASSES,
                replace=False,
            )
            for number in range(CLASSES)
        ]
    )


def accuracy(model, arrays):
    """In percent, on the images to judge by."""
    logits = model.predict(arrays[arrays["judge"]], batch_size=2_000, verbose=0)
    right = logits.argmax(-1) == arrays["judge_labels"]
    return 100 * float(np.mean(right))


def read_rows(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]
