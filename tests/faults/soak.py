"""Trains for thousands of steps and watches what must not grow.

    python -m tests.faults.soak --steps 3000 --json soak.json

One process trains a small perceptron on the digits with everything that goes on
in a long run: a step with feedback, evaluations, checkpoints in the background,
the best one apart, logs. At intervals it notes resident memory, threads, open
files and the functions that TensorFlow holds. The slope of memory after the
warm-up is judged against its standard error, and against a leak that would
matter; the others must not grow at all. Exit status 1 where anything grows.
"""

import argparse
import gc
import json
import os
import pathlib
import sys
import tempfile
from unittest import mock

import scipy.stats
from tensorflow.python.eager import context

from meta_pseudo_labels.learners.callbacks import AtStep
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.stages import train
from tests.tiny_run import tiny

WARM_UP = 1 / 3  # Of the run: allocators and caches fill up.
SAMPLES = 60
SAVE_EVERY = 50
# MB per 1,000 steps: 300,000 steps would take 60 MB.
NO_LEAK = 0.2


class Watch(AtStep):
    """Notes what the process holds, at the ends of epochs."""

    def __init__(self, every):
        super().__init__()
        self.every = every
        self.rows = []

    def on_epoch_end(self, epoch, logs=None):
        if self.step % self.every == 0:
            self.rows.append({"step": self.step, **holdings()})


def holdings():
    """What this process holds now; on Linux.

    Python's own garbage is thrown away first: when it collects is chance. Its
    objects are not listed: the references break a shape that TensorFlow makes
    in the thread that saves.
    """
    gc.collect()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return {
        "resident_mb": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "threads": len(os.listdir("/proc/self/task")),
        "open_files": len(os.listdir("/proc/self/fd")),
        "functions": len(context.context().list_function_names()),
        "python_blocks": sys.getallocatedblocks(),
    }


def soak(folder, *, steps):
    """Trains, and returns the notes and what they say, a dict for JSON."""
    every = SAVE_EVERY * max(1, steps // (SAVE_EVERY * SAMPLES))
    watch = Watch(every)
    config = tiny(
        folder,
        num_train_steps=steps,
        save_every=SAVE_EVERY,
        log_every=5,
        num_validation=10,
        lr_decay_type="constant",
        mpl_student_lr=0.1,
        mpl_teacher_lr=0.1,
    )
    with mock.patch.object(train, "fit_epochs", _with(watch, train.fit_epochs)):
        Experiment(config).train()
    return judge(watch.rows, steps=steps)


def judge(rows, *, steps):
    """Slopes after the warm-up, and whether all is flat.

    Args:
      rows: of `Watch`.
      steps: of the run.
    """
    rows = [row for row in rows if row["step"] > WARM_UP * steps]
    memory = slope(rows, "resident_mb")
    # By minima: a file or a thread that writes may be on its way out or in.
    half = len(rows) // 2
    grown = {
        name: min(row[name] for row in rows[half:])
        - min(row[name] for row in rows[:half])
        for name in ("threads", "open_files", "functions", "python_blocks")
    }
    rate, error = memory["mb_per_1000_steps"], memory["standard_error"]
    epochs = (rows[-1]["step"] - rows[0]["step"]) / SAVE_EVERY
    flat = {
        "memory": rate <= max(3 * error, NO_LEAK),
        "threads": grown["threads"] <= 0,
        "open_files": grown["open_files"] <= 0,
        "functions": grown["functions"] <= 0,
        # Keras's history keeps the numbers of every epoch.
        "python_blocks": grown["python_blocks"] <= epochs * 100,
    }
    return {
        "steps": steps,
        "samples": len(rows),
        "memory": memory,
        "grown": grown,
        "flat": flat,
        "all_flat": all(flat.values()),
        "rows": rows,
    }


def slope(rows, name):
    """By least squares, per 1,000 steps."""
    fit = scipy.stats.linregress(
        [row["step"] / 1000 for row in rows], [row[name] for row in rows]
    )
    return {
        "mb_per_1000_steps": round(float(fit.slope), 4),
        "standard_error": round(float(fit.stderr), 4),
        "last_mb": round(rows[-1][name], 1),
    }


def _with(callback, fit):
    def fit_epochs(model, batches, *, callbacks, **kwargs):
        return fit(model, batches, callbacks=[*callbacks, callback], **kwargs)

    return fit_epochs


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = soak(folder, steps=arguments.steps)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    del result["rows"]
    print(json.dumps(result, indent=2))
    sys.exit(0 if result["all_flat"] else 1)


if __name__ == "__main__":
    main()
