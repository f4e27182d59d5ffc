"""Does feedback help where seeds are cheap? On features of a frozen network.

    python -m benchmarks.frozen_features.features ...    # first, see there
    python -m benchmarks.frozen_features.run runs/features.npz --search
    python -m benchmarks.frozen_features.run runs/features.npz

Teacher and student are small networks on cached features of CIFAR-10, with
some weak and strong views of each image; so a run takes seconds, and twenty
seeds can be had. --search tries settings on other seeds, and judges by the
validation images. Without it the settings that won there are judged by the
test images. Rows that are in the file already are not made again.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import re
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA

from benchmarks.common.machine import RESULTS, machine_facts, revision
from benchmarks.frozen_features.look_ahead import LookAhead
from meta_pseudo_labels import UDA, MetaPseudoLabels, Supervised, UDASettings
from meta_pseudo_labels.evaluation.statistics import estimate, paired_difference
from meta_pseudo_labels.learners.finetuning import finetune

SEEDS, SEARCH_SEEDS = range(20), range(100, 103)
LABELS = (10, 40, 250)
FEEDBACK = ("off", "exact", "reinforce_per_example")
METHODS = (
    "supervised",
    "uda",
    *(f"{name}, labels alone" for name in FEEDBACK),
    *(f"{name}, consistency" for name in FEEDBACK),
)
# Only where --methods names it: a step takes N times as long.
AHEAD = r"look ahead ([1-9]\d*), consistency"
CLASSES, UNITS = 10, 128
COMPONENTS = 256  # Of the 1,280 features; a step takes a fifth of the time.
BATCH, UNLABELED = 32, 128


@dataclasses.dataclass(frozen=True)
class Settings:
    """What was chosen on the validation images of SEARCH_SEEDS.

    Attributes:
      learning_rate: of SGD with Nesterov momentum 0.9, for all networks.
      num_steps: of training; finetuning takes a fifth of them.
      consistency: weight of the UDA term.
      threshold: confidence from which a weak view counts there.
      label_temperature: of the teacher's pseudo labels.
    """

    learning_rate: float = 0.03
    num_steps: int = 1_000
    consistency: float = 1.0
    threshold: float = 0.6
    label_temperature: float = 0.5

    def times(self, factor):
        """The same with `factor` times the steps; the ramp grows with them."""
        steps = factor * self.num_steps
        return dataclasses.replace(self, num_steps=steps)


TRIED = (
    {},
    {"learning_rate": 0.1},
    {"learning_rate": 0.01},
    {"consistency": 0.3},
    {"threshold": 0.9},
    {"label_temperature": 1.0},
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("features", help="what `features` wrote")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--labels", type=int, nargs="*", default=LABELS)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--seeds", type=int, help="how many; all by default")
    parser.add_argument(
        "--times",
        type=int,
        default=1,
        help="as many steps as were chosen; for methods whose steps are cheap",
    )
    parser.add_argument("--output_dir", type=pathlib.Path, default=RESULTS)
    arguments = parser.parse_args()
    for method in arguments.methods:
        if method not in METHODS and not re.fullmatch(AHEAD, method):
            parser.error(
                f"--methods: {method!r} is none; there are {METHODS} and "
                "'look ahead N, consistency', N steps from 1 on."
            )
    searched = arguments.output_dir / "frozen_features_search.jsonl"
    path = arguments.output_dir / "frozen_features.jsonl"
    seeds = SEEDS
    if arguments.search:
        path, seeds = searched, SEARCH_SEEDS
    arrays = load(arguments.features, is_search=arguments.search)
    for method in arguments.methods:
        trainers = {}  # Traced once for each of the settings.
        for labels in arguments.labels:
            if arguments.search:
                wanted = [Settings(**changes) for changes in TRIED]
            else:
                wanted = [chosen(read_rows(searched), method, labels)]
            for settings in wanted:
                settings = settings.times(arguments.times)
                new = Trainer(method, settings)
                trainer = trainers.setdefault(settings, new)
                for seed in seeds[: arguments.seeds]:
                    trainer.add_row(path, arrays, labels, seed)
    print(table(read_rows(path)))


def chosen(rows, method, labels):
    """The settings that were best on validation images.

    They are the same with each feedback and without, so that nothing but it
    differs: the best mean of all of these.

    Args:
      rows: of a search.
      method: one of METHODS.
      labels: how many.
    """
    _, _, term = method.partition(", ")
    found = collections.defaultdict(list)
    for row in rows:
        _, _, other = row["method"].partition(", ")
        alike = other == term if term else row["method"] == method
        if alike and row["labels"] == labels:
            settings = Settings(**row["settings"])
            found[settings].append(result(row))
    if not found:
        raise SystemExit(
            f"No search for {method!r} with {labels} labels; run --search."
        )
    return max(found, key=lambda settings: np.mean(found[settings]))


def result(row):
    """The accuracy of a row that counts, in percent."""
    return row.get("accuracy_finetuned", row["accuracy"])


def load(path, *, is_search):
    """The cached features, along their COMPONENTS largest components.

    Those are of the plain images of the pool, and their mean square is 1 there.

    Args:
      path: what `features` wrote.
      is_search: whether the judge is the validation set, not the test set.
    """
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    plain = np.float32(arrays["plain"])
    mean, scale = plain.mean(0), plain.std(0) + 1e-3
    components = PCA(min(COMPONENTS, len(plain) - 1), random_state=0)
    components.fit((plain - mean) / scale)
    length = np.sqrt(components.explained_variance_.mean())
    directions = np.float32(components.components_.T / length)
    judge = "validation" if is_search else "test"
    return {
        name: (np.float32(arrays[name]) - mean) / scale @ directions
        for name in ("plain", "weak", "strong", judge)
    } | {
        "labels": arrays["labels"].astype(np.int32),
        "judge": judge,
        "judge_labels": arrays[f"{judge}_labels"],
    }


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
        """Appends a row to a file, unless it is there."""
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
        """Trains with `count` labels of a seed: accuracies in percent."""
        if self.learner is None:
            width = arrays["plain"].shape[1]
            self.learner = learner_of(self.method, self.settings, width)
            self.steps = tf.function(self._steps)
            # Keys what is drawn. A variable, so that it can change.
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
        """What a step sees: one view of each image that is drawn."""
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
        """The same first weights for every method; counts at 0."""
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
        """The student on the labels alone, at a tenth of the rate."""
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
    """`count` rows, as many of each class: [count] integers."""
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
    """In percent, on the images that judge."""
    logits = model.predict(arrays[arrays["judge"]], batch_size=2_000, verbose=0)
    right = logits.argmax(-1) == arrays["judge_labels"]
    return 100 * float(np.mean(right))


def read_rows(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(rows):
    """Means, and differences to `off` of the same seeds, for a terminal."""
    lines = []
    groups = {}
    for row in rows:
        key = row["labels"], json.dumps(row["settings"]), row["method"]
        groups.setdefault(key, {})[row["seed"]] = result(row)
    for (labels, settings, method), values in sorted(groups.items()):
        found = estimate(values.values())
        line = f"{labels:4d} {method:38s} {found.mean:6.2f}"
        if found.margin is not None:
            line += f" ± {found.margin:.2f}"
        name, _, term = method.partition(", ")
        control = groups.get((labels, settings, f"off, {term}"))
        if control and name != "off":
            gain = paired_difference(values, control)
            line += f"   over off {gain.mean:+.2f}"
            if gain.margin is not None:
                line += f" ± {gain.margin:.2f}"
        lines.append(f"{line}   ({found.count} seeds) {settings}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
