"""The memory of a step, measured by run.py in processes of their own.

A peak is that of a whole process: it includes the interpreter and TensorFlow,
two networks with their optimizers and averages, a batch, and all that the step
holds at once. `imports` is the part that was there after the imports.
"""

import json
import subprocess
import sys

import tensorflow as tf

from benchmarks.input.costs import peak_gibibytes
from benchmarks.step_time.variants import (
    FEEDBACKS,
    build_learner,
    random_batch,
    whole_step,
)

_SHARED = ("model", "batch_size", "unlabeled_ratio", "image_size", "threads")


def memory_of_own_processes(settings):
    """{feedback: peak in GiB}, and the share of the imports."""
    peaks = {}
    for feedback in FEEDBACKS:
        result = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.step_time.run"),
                f"--part={feedback}",
                *(f"--{name}={getattr(settings, name)}" for name in _SHARED),
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        peaks |= json.loads(result.stdout.splitlines()[-1])
    return peaks


def peak_of_steps(settings):
    """Runs steps of `settings.part`; returns this process's peak in GiB."""
    imports = peak_gibibytes()
    learner = build_learner(settings, feedback=settings.part)
    step = whole_step(learner, random_batch(settings))
    # The last of three computes the costly logs.
    learner.set_step(learner.costly_log_every - 3)
    for _ in range(3):
        tf.nest.flatten(step())[0].numpy()
    return {"imports": imports, settings.part: peak_gibibytes()}
