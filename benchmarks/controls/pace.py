"""Times a step of each run of a suite, to set their numbers of steps.

    python -m benchmarks.controls.pace fast --data_dir=data/tfds --threads=1

Times whole steps with their input; in MPL, steps in which the student does not
wait. Runs take turns in every round, so that a busy machine slows all of them
alike. What counts is the ratio to the suite's `uda`, in processor seconds of
all threads.
"""

import dataclasses
import os
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from benchmarks.common.arguments import (
    benchmark_parser,
    parsed,
    positive,
    recorded,
    write_report,
)
from benchmarks.common.machine import ROOT, headline, machine_facts
from benchmarks.controls.suites import SUITES
from meta_pseudo_labels import Experiment, models
from meta_pseudo_labels.data import ClassDistributions
from meta_pseudo_labels.run.data import adaptation_images, training_batches

UDA = "uda"


def main():
    parser = benchmark_parser(
        __doc__,
        (
            ("rounds", 3, "rounds, in each of which every run has one turn"),
            ("turn", 3, "steps per turn"),
            ("num_labeled", 4000, "total number of labels"),
        ),
    )
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--runs", nargs="+", help="names of runs; default: all")
    parser.add_argument("--data_dir", help="folder of sets prepared by TFDS")
    parser.add_argument("--bfloat16", action="store_true", help="see run.py")
    parser.add_argument("--threads", type=positive, help="default: all")
    settings = parsed(parser)
    if settings.threads:
        tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
        tf.config.threading.set_inter_op_parallelism_threads(settings.threads)
    os.chdir(ROOT)  # Flagfiles name one another relative to it.
    seconds = measure(settings)
    report = {
        "machine": machine_facts(),
        "settings": recorded(settings, without=("data_dir",)),
        "seconds": {run: float(np.median(x)) for run, x in seconds.items()},
        "ratio": {
            run: float(np.median(x / seconds[UDA]))
            for run, x in seconds.items()
        },
    }
    print(headline(report["machine"]))
    for run, ratio in report["ratio"].items():
        cost = report["seconds"][run]
        print(f"{run:16}{cost:8.2f} processor s a step{ratio:8.2f} of {UDA}")
    write_report(report, settings.json)


def measure(settings):
    """{run: [rounds] processor seconds of a step}."""
    suite = SUITES[settings.suite]
    chosen = list(dict.fromkeys([UDA, *(settings.runs or suite.usual_runs)]))
    with tempfile.TemporaryDirectory() as folder:
        turns = {
            name: a_turn(suite.runs[name], settings, f"{folder}/{name}")
            for name in chosen
        }
        for turn in turns.values():  # The first turn traces.
            turn()
        seconds = {name: [] for name in turns}
        for _ in range(settings.rounds):
            for name, turn in turns.items():
                start = time.process_time()
                turn()
                used = time.process_time() - start
                seconds[name].append(used / settings.turn)
    return {name: np.array(used) for name, used in seconds.items()}


def a_turn(run, settings, folder):
    """A function without arguments: takes a turn of a `suite.Run`."""
    config = dataclasses.replace(
        run.settings(num_labeled=settings.num_labeled, seed=0),
        data_dir=settings.data_dir,
        output_dir=folder,
        mpl_student_lr_wait_steps=0,
        use_bfloat16=settings.bfloat16,
    )
    experiment = Experiment(config)
    learner, images = experiment.learner, experiment.data
    for _, network in learner.optimized():
        if not models.is_adapted(network):
            models.adapt(network, adaptation_images(images))
    distributions = None
    if config.teacher_labels:  # A step takes as long with any values.
        classes = images.spec.num_classes
        distributions = ClassDistributions(
            *(
                np.full([len(part), classes], 1 / classes, np.float32)
                for part in (images.labeled_images, images.unlabeled_images)
            )
        )
    batches = iter(
        training_batches(
            config, images, start_step=0, distributions=distributions
        )
    )
    learner.make_train_function()

    def turn():
        for _ in range(settings.turn):
            learner.train_function(batches)
        learner.step.numpy()

    return turn


if __name__ == "__main__":
    main()
