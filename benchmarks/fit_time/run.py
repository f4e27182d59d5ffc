"""Times `fit` against a bare loop over the compiled step.

    python -m benchmarks.fit_time.run --json fit_time.json

Seconds per step of Meta Pseudo Labels, with feedback "release", on one constant
batch:

    bare loop       the compiled train step, called on batch after batch
    fit             `fit` without callbacks
    fit, callbacks  `fit` with a training run's: logs, and the stop at a step

first for a network large enough to matter, then for a tiny one, for which a
call from Python costs as much as the step itself: there `steps_per_execution`
sets how many steps each call runs.

Variants take turns in rounds, in random order. Ratios are to the bare loop of
the same round; medians over rounds are reported (see step_time/run.py).
"""

import argparse
import os
import tempfile

import keras
import numpy as np
import tensorflow as tf

from benchmarks.common.arguments import (
    benchmark_parser,
    parsed,
    recorded,
    write_report,
)
from benchmarks.common.machine import headline, machine_facts
from benchmarks.step_time.run import time_in_rounds, timed
from benchmarks.step_time.variants import build_learner, compiled, random_batch
from meta_pseudo_labels.learners.callbacks import StopAtStep
from meta_pseudo_labels.run.metrics_log import MetricsLogger

BARE = "bare loop"
BAR = 1.03  # For "fit" and the large network.
EXECUTIONS = (1, 10, 100)  # Steps per execution of the tiny network.


def main():
    settings = parse_arguments()
    keras.utils.set_random_seed(0)
    report = {"bar": BAR}
    with tempfile.TemporaryDirectory() as folder:
        for role, model, steps, executions in (
            ("large", settings.model, settings.steps, (1,)),
            ("tiny", settings.tiny_model, settings.tiny_steps, EXECUTIONS),
        ):
            sizes = argparse.Namespace(**vars(settings) | {"model": model})
            variants = build_variants(
                sizes, steps=steps, executions=executions, folder=folder
            )
            seconds = time_in_rounds(
                {name: timed(run) for name, run in variants.items()},
                rounds=settings.rounds,
                warmup=1,
            )["seconds"]
            report[role] = summarize(seconds, steps=steps) | {"model": model}
    report |= {
        "settings": recorded(settings),
        "machine": machine_facts(),
    }
    print_tables(report)
    write_report(report, settings.json)


def parse_arguments():
    parser = benchmark_parser(
        __doc__,
        (
            ("batch_size", 8, "labeled images, B"),
            ("unlabeled_ratio", 7, "unlabeled images per labeled one, mu"),
            ("image_size", 32, "height and width in pixels"),
            ("rounds", 9, "timed rounds"),
            ("steps", 5, "of the large network in each measurement"),
            ("tiny_steps", 500, "same for the tiny one, a multiple of 100"),
        ),
    )
    parser.add_argument("--model", default="wrn-28-2", help="the large one")
    parser.add_argument("--tiny_model", default="mlp", help="the tiny one")
    settings = parsed(parser)
    if settings.tiny_steps % max(EXECUTIONS):
        parser.error(
            f"--tiny_steps must be a multiple of {max(EXECUTIONS)}; got "
            f"{settings.tiny_steps}"
        )
    return settings


def build_variants(settings, *, steps, executions, folder):
    """Functions without arguments that take `steps` steps each, by name."""
    batches = tf.data.Dataset.from_tensors(random_batch(settings)).repeat()
    variants = {BARE: bare_loop(settings, batches, steps=steps)}
    for count in executions:
        learner = build_learner(
            settings, feedback="release", steps_per_execution=count
        )
        suffix = f", {count} a call" if len(executions) > 1 else ""
        log_to = os.path.join(folder, f"{settings.model}_{count}")
        for name, callbacks in (
            ("fit", lambda path: []),
            ("fit, callbacks", run_callbacks),
        ):
            variants[name + suffix] = fit(
                learner, batches, steps=steps, callbacks=callbacks(log_to)
            )
    return variants


def bare_loop(settings, batches, *, steps):
    learner = build_learner(settings, feedback="release")
    step = compiled(learner.train_step)

    def run():
        iterator = iter(batches)
        for _ in range(steps):
            logs = step(next(iterator))
        return logs

    return run


def run_callbacks(folder):
    """The callbacks of `Experiment.train`, except those run once an epoch."""
    return [
        StopAtStep(2**62),
        MetricsLogger(folder, every=10, batch_images=1),
    ]


def fit(learner, batches, *, steps, callbacks):
    def run():
        history = learner.fit(
            batches, steps_per_epoch=steps, callbacks=callbacks, verbose=0
        )
        return [tf.constant(value) for value in history.history.values()]

    return run


def summarize(seconds, *, steps):
    """Medians of seconds per step and of ratios to the bare loop."""
    return {
        "seconds_a_step": {
            name: float(np.median(times)) / steps
            for name, times in seconds.items()
        },
        "ratio": {
            name: float(np.median(times / seconds[BARE]))
            for name, times in seconds.items()
        },
    }


def print_tables(report):
    print(headline(report["machine"]))
    for role in ("large", "tiny"):
        part = report[role]
        print(f"{part['model']:30}{'ms a step':>10}{'ratio':>8}")
        for name, seconds in part["seconds_a_step"].items():
            print(f"{name:30}{seconds * 1e3:10.3f}{part['ratio'][name]:8.3f}")
    print(f"fit of {report['large']['model']}: not above {BAR}")


if __name__ == "__main__":
    main()
