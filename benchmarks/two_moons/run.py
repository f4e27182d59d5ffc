"""Meta Pseudo Labels without images: two half moons, six labeled points.

    python -m benchmarks.two_moons.run            # the table: 10 seeds
    python -m benchmarks.two_moons.run --search   # settings that were tried

The data, the networks and their initial weights are those of the paper (Pham et
al. 2021, TwoMoon). Every method learns from the six labels alone, and once more
with a consistency term added. Prints a table of accuracies and writes to
--output_dir: two_moons.png (decision regions of seed 0) and two_moons.jsonl, or
two_moons_search.jsonl. docs/two_moons.md reports the results.
"""

import argparse
import concurrent.futures
import dataclasses
import math
import multiprocessing
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import make_moons

from benchmarks.common.machine import ROOT
from benchmarks.two_moons import report
from benchmarks.two_moons.settings import (
    CONTROLS,
    METHODS,
    search_tasks,
    table_tasks,
)
from meta_pseudo_labels import (
    UDA,
    MetaPseudoLabels,
    PseudoLabels,
    Supervised,
    UDASettings,
)

POINTS, NOISE = 2_000, 0.1  # The noise is not published.
FIRST_SEARCH_SEED = 100  # No setting was chosen on the seeds of the table.


def moons(seed):
    """Two interleaved half circles: a dict of training and test arrays.

    points, test_points: [2000, 2] float32; test_labels: [2000]; labeled:
    [6, 2], three of the points of each moon, and their labels: [6] int32.
    """
    points, classes = make_moons(POINTS, noise=NOISE, random_state=seed)
    test, test_labels = make_moons(
        POINTS, noise=NOISE, random_state=seed + 1_000
    )
    center = np.float32([0.5, 0.25])
    points, test = (np.float32(x) - center for x in (points, test))
    chosen = [
        np.random.default_rng([seed, moon]).choice(
            np.flatnonzero(classes == moon), 3, replace=False
        )
        for moon in (0, 1)
    ]
    chosen = np.concatenate(chosen)
    return {
        "points": points,
        "labeled": points[chosen],
        "labels": classes[chosen].astype(np.int32),
        "test_points": test,
        "test_labels": test_labels,
    }


def network(name):
    """Two hidden layers of 8 sigmoid units; logits, [batch, 2]."""
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(8, activation="sigmoid"),
            keras.layers.Dense(8, activation="sigmoid"),
            keras.layers.Dense(2),
        ],
        name=name,
    )


def learner_of(method, settings):
    """A compiled learner: one of two controls, or MPL with an estimator."""
    student, uda = network("student"), None
    if settings.consistency:
        uda = UDASettings(
            weight=settings.consistency,
            ramp_steps=max(1, settings.num_steps // 5),
            temperature=0.5,
            threshold=0.6,
        )
    if method == "supervised":
        learner = UDA(student, uda=uda) if uda else Supervised(student)
    elif method == "pseudo labels":
        learner = PseudoLabels(student)
    else:
        learner = MetaPseudoLabels(
            student,
            network("teacher"),
            feedback=method,
            feedback_weight=settings.feedback_weight,
            label_temperature=settings.label_temperature,
            pseudo_labels=settings.pseudo_labels,
            uda=uda,
        )
    learner.compile(keras.optimizers.SGD(settings.learning_rate))
    return learner


def trainer(method, settings):
    """A learner and a function that trains it, traced once for all seeds.

    The function takes a seed and the arrays of `moons`; for pseudo labels, also
    a teacher's "distributions", [2000, 2].
    """
    learner = learner_of(method, settings)
    # Keys the sampled pseudo labels. It is a variable so that it can change.
    learner.seed = tf.Variable(0, dtype="int64")

    def batch(arrays, step):
        """The six labeled points, and two views of some of all points."""
        chosen = tf.random.stateless_uniform(
            [settings.batch_size], [learner.seed, 2 * step], 0, POINTS, "int32"
        )
        weak = tf.gather(arrays["points"], chosen)
        key = [learner.seed, 2 * step + 1]
        noise = tf.random.stateless_normal(weak.shape, key)
        views = {
            "labeled": arrays["labeled"],
            "labels": arrays["labels"],
            "weak": weak,
            "strong": weak + settings.view_noise * noise,
        }
        if "distributions" in arrays:
            distributions = tf.gather(arrays["distributions"], chosen)
            views["unlabeled_distributions"] = distributions
        return views

    @tf.function
    def all_steps(arrays):
        for step in tf.range(settings.num_steps, dtype="int64"):
            learner.train_step(batch(arrays, step))

    def train(arrays, seed):
        start_afresh(learner, seed)
        learner.seed.assign(seed)
        all_steps({name: tf.constant(array) for name, array in arrays.items()})

    return learner, train


def start_afresh(learner, seed):
    """Draws weights from U(-0.1, 0.1), alike for every method; counts are 0."""
    random = np.random.default_rng(seed)
    for variable in learner.variables:
        variable.assign(tf.zeros_like(variable))
    networks = [learner.student, getattr(learner, "teacher", None)]
    for model in filter(None, networks):
        model.set_weights(
            [random.uniform(-0.1, 0.1, w.shape) for w in model.weights]
        )


def measure(method, settings, seeds):
    """Trains a method for each seed; returns rows for table and figure."""
    learner, train = trainer(method, settings)
    if method == "pseudo labels":
        labeler, train_labeler = trainer("supervised", settings)
    rows = []
    for seed in seeds:
        start = time.monotonic()
        arrays = moons(seed)
        if method == "pseudo labels":
            train_labeler(arrays, seed)
            logits = labeler.student(arrays["points"])
            arrays["distributions"] = tf.nn.softmax(logits).numpy()
        train(arrays, seed)
        row = {"method": method, "seed": seed}
        row["accuracy"] = accuracy(learner.student, arrays)
        if method not in CONTROLS:
            row["accuracy_teacher"] = accuracy(learner.teacher, arrays)
            row["feedback_grad_ratio"] = float(learner.feedback_grad_ratio)
        row["seconds"] = round(time.monotonic() - start, 2)
        row["settings"] = dataclasses.asdict(settings)
        if seed == 0:
            row["regions"] = report.regions(learner.student)
        rows.append(row)
    return rows


def accuracy(model, arrays):
    """Share of the test points that a model assigns to their moon."""
    found = np.argmax(model(arrays["test_points"]), axis=-1)
    return float(np.mean(found == arrays["test_labels"]))


def measure_all(tasks, *, jobs):
    """Yields the rows of each task (method, settings, seeds) when it is done.

    Uses `jobs` processes, and keeps the order of the tasks.
    """
    with concurrent.futures.ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=use_one_thread,
    ) as pool:
        for future in [pool.submit(measure, *task) for task in tasks]:
            yield future.result()


def use_one_thread():
    """The networks are so small that more threads only wait for each other."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    # One trace per method is intended; TensorFlow warns of their number.
    tf.get_logger().setLevel("ERROR")


def main():
    arguments = parse_arguments()
    first = FIRST_SEARCH_SEED if arguments.search else 0
    seeds = range(first, first + arguments.seeds)
    tasks = (search_tasks if arguments.search else table_tasks)(
        arguments.methods
    )
    changes = {
        name: getattr(arguments, name)
        for name in ("num_steps", "learning_rate")
        if getattr(arguments, name)
    }
    # Settings that differ only in one of these then become the same.
    tasks = dict.fromkeys(
        (method, dataclasses.replace(settings, **changes), seeds)
        for method, settings in tasks
    )
    report.write(
        measure_all(tasks, jobs=arguments.jobs),
        arguments.output_dir,
        moons(0),
        search=arguments.search,
    )


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--num_steps", type=int, help="of every network")
    parser.add_argument(
        "--learning_rate", type=float, help="of SGD; the paper's is 0.1"
    )
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=METHODS
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="processes at a time"
    )
    parser.add_argument(
        "--search", action="store_true", help="try settings, on other seeds"
    )
    parser.add_argument(
        "--output_dir", type=pathlib.Path, default=ROOT / "runs" / "two_moons"
    )
    arguments = parser.parse_args()
    for name in ("seeds", "num_steps", "jobs"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1; got {value}")
    rate = arguments.learning_rate
    if rate is not None and not 0 < rate < math.inf:
        parser.error(f"--learning_rate must be above 0; got {rate}")
    return arguments


if __name__ == "__main__":
    main()
