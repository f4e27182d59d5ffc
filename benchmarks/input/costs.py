"""The cost of the input to a training run: seconds of waiting, and memory."""

import json
import pathlib
import platform
import resource
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf

from benchmarks.input.data import MAGNITUDE, SPEC, training_batches
from benchmarks.input.variants import images_per_second
from meta_pseudo_labels import Config
from meta_pseudo_labels.learners.build import build_learner


def waiting_for_input(settings):
    """Seconds of a training step, and of the wait for its batch."""
    config = Config(
        method="mpl",
        model_type=settings.model,
        train_batch_size=settings.step_batch_size,
        uda_data=settings.unlabeled_ratio,
        augment_magnitude=MAGNITUDE,
    )
    train_step = tf.function(
        build_learner(config, SPEC).train_step, autograph=False
    )
    batches = training_batches(settings, batch_size=settings.step_batch_size)
    waits, totals = [], []
    for number in range(2 + settings.steps):  # Two trace and warm up.
        start = time.perf_counter()
        batch = next(batches)
        wait = time.perf_counter() - start
        tf.nest.flatten(train_step(batch))[0].numpy()
        if number >= 2:
            waits.append(wait)
            totals.append(time.perf_counter() - start)
    return {
        "share": sum(waits) / sum(totals),
        "seconds": float(np.median(waits)),
        "step_seconds": float(np.median(totals)),
        # For a batch when the pipeline has the machine to itself.
        "seconds_alone": 1 / images_per_second(batches, 1, settings.seconds),
    }


def memory_of_own_process(settings):
    result = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.input.run", "--part=memory"),
            f"--train_images={settings.train_images}",
            f"--batch_size={settings.batch_size}",
            f"--unlabeled_ratio={settings.unlabeled_ratio}",
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(result.stdout.splitlines()[-1])


def peak_memory(settings):
    """Peak memory of this process over 50 batches, in GiB.

    The difference, pipeline_gib, includes the images: 0.17 GiB of arrays.
    """
    before = peak_gibibytes()
    batches = training_batches(settings, batch_size=settings.batch_size)
    for _ in range(50):
        next(batches)
    peak = peak_gibibytes()
    return {
        "pipeline_gib": peak - before,
        "peak_gib": peak,
        "imports_gib": before,
    }


def peak_gibibytes():
    """The largest resident set of this process so far."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        # On Linux, getrusage includes the parent's size at the fork.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if platform.system() == "Darwin" else 2**20)
