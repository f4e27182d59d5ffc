"""Peak memory of a training step: what remat and slices save and cost.

    python -m benchmarks.memory.run

Each cell of the table is a process of its own, which traces a step of Meta
Pseudo Labels, records its own size, and takes steps; the cell is the growth to
its peak. So it excludes networks and interpreter, but includes all that a step
holds at once, and what TensorFlow needs once to optimize the graph, which grows
with the slices. The last step computes the costly logs. Linux only.

Times are measured in another process, in rounds of one step of every variant; a
ratio is computed within each round, so that other programs slow down both
alike, and the median over the rounds is reported.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from benchmarks.common.arguments import positive, write_report
from benchmarks.common.machine import RESULTS, headline, machine_facts
from benchmarks.input.costs import peak_gibibytes
from benchmarks.step_time.variants import (
    build_learner,
    random_batch,
    whole_step,
)
from meta_pseudo_labels.learners.feedback import ESTIMATORS

PLAIN = "plain"
# Name: (remat, slices).
VARIANTS = {
    PLAIN: (False, 1),
    "remat": (True, 1),
    "4 slices": (False, 4),
    "4 slices, remat": (True, 4),
}
_SHARED = ("model", "image_size", "feedback", "steps", "threads")


def main():
    settings = parse_arguments()
    tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
    tf.config.threading.set_inter_op_parallelism_threads(settings.threads)
    if settings.variant:
        print(json.dumps(measure(settings)))
        return
    machine = machine_facts()
    cells = [
        {"batch_size": size, "unlabeled_ratio": ratio, "variant": variant}
        for size, ratio in settings.sizes
        for variant in VARIANTS
        if size % VARIANTS[variant][1] == 0
    ]
    for cell in cells:
        cell |= measure_in_own_process(settings, cell)
        print(cell, flush=True)
    ratios = time_ratios(settings) if settings.rounds else {}
    report = {
        "settings": {name: getattr(settings, name) for name in _SHARED},
        "machine": machine,
        "cells": cells,
        "time": {"batch": settings.sizes[0], "ratios": ratios},
    }
    print_table(report)
    settings.json.parent.mkdir(parents=True, exist_ok=True)
    write_report(report, settings.json)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="wrn-28-2")
    add("--image_size", type=positive, default=32)
    add("--feedback", default="release", choices=tuple(ESTIMATORS))
    add(
        "--sizes",
        type=size,
        nargs="+",
        default=[(8, 7), (16, 3), (16, 7), (32, 7)],
        help="labeled images x unlabeled images for each, such as 16x7; the "
        "first is timed",
    )
    add("--steps", type=positive, default=2)
    add("--rounds", type=int, default=5, help="timed rounds; 0 for none")
    add("--threads", type=positive, default=os.cpu_count())
    add("--json", type=pathlib.Path, default=RESULTS / "memory.json")
    add("--variant", choices=tuple(VARIANTS), help=argparse.SUPPRESS)
    return parser.parse_args()


def size(text):
    """Parses 16x7 into (labeled images, unlabeled images for each)."""
    labeled, _, ratio = text.partition("x")
    return positive(labeled), positive(ratio)


def measure_in_own_process(settings, cell):
    """The GiB that a step needs, and the seconds that tracing it took."""
    shared = {name: getattr(settings, name) for name in _SHARED}
    result = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.memory.run"),
            f"--variant={cell['variant']}",
            f"--sizes={cell['batch_size']}x{cell['unlabeled_ratio']}",
            *(f"--{name}={value}" for name, value in shared.items()),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return json.loads(result.stdout.splitlines()[-1])


def measure(settings):
    """Takes steps of `settings.variant`."""
    start = time.process_time()
    learner, step = traced_step(settings, settings.variant)
    traced = time.process_time() - start
    before = resident_gibibytes()
    # The last one computes the costly logs.
    learner.set_step(learner.costly_log_every - settings.steps)
    for _ in range(settings.steps):
        tf.nest.flatten(step())[0].numpy()
    return {
        "gib": round(peak_gibibytes() - before, 3),
        "gib_before": round(before, 3),
        "tracing_cpu_seconds": round(traced, 1),
    }


def traced_step(settings, variant):
    """A learner, and its traced step on a constant batch, not yet run."""
    keras.utils.set_random_seed(0)
    batch_size, ratio = settings.sizes[0]
    sizes = argparse.Namespace(
        model=settings.model,
        image_size=settings.image_size,
        batch_size=batch_size,
        unlabeled_ratio=ratio,
        remat=VARIANTS[variant][0],
    )
    learner = build_learner(
        sizes, feedback=settings.feedback, batch_slices=VARIANTS[variant][1]
    )
    batch = random_batch(sizes)
    return learner, whole_step(learner, batch).get_concrete_function()


def resident_gibibytes():
    """The resident set of this process now (Linux)."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 2**20
    raise RuntimeError("/proc/self/status does not show the size.")


def time_ratios(settings):
    """{variant: median of its step's seconds over the plain step's}."""
    steps = {
        variant: traced_step(settings, variant)[1]
        for variant in VARIANTS
        if settings.sizes[0][0] % VARIANTS[variant][1] == 0
    }
    seconds = {variant: [] for variant in steps}
    for number in range(settings.rounds + 1):
        for variant, step in steps.items():
            start = time.perf_counter()
            tf.nest.flatten(step())[0].numpy()
            if number:  # The first includes the graph's optimization.
                seconds[variant].append(time.perf_counter() - start)
    plain = np.array(seconds[PLAIN])
    return {
        variant: round(float(np.median(np.array(own) / plain)), 2)
        for variant, own in seconds.items()
    }


def print_table(report):
    """Prints Markdown, a row per batch size."""
    settings = report["settings"]
    print(f"\n{headline(report['machine'])}")
    print(f"{settings['model']}, {settings['image_size']} px, ", end="")
    print(f"feedback {settings['feedback']}; GiB of a step\n")
    print(f"| B | mu | images | {' | '.join(VARIANTS)} |")
    print("|" + "---|" * (3 + len(VARIANTS)))
    rows = {}
    for cell in report["cells"]:
        key = cell["batch_size"], cell["unlabeled_ratio"]
        rows.setdefault(key, {})[cell["variant"]] = cell["gib"]
    for (labeled, ratio), found in rows.items():
        images = labeled * (1 + 2 * ratio)
        print(f"| {labeled} | {ratio} | {images} | ", end="")
        print(" | ".join(table_cell(found, name) for name in VARIANTS), "|")
    ratios = report["time"]["ratios"]
    if ratios:
        print("| time | | | ", end="")
        print(" | ".join(str(ratios.get(name, "")) for name in VARIANTS), "|")


def table_cell(found, variant):
    if variant not in found:
        return ""
    part = found[variant] / found[PLAIN]
    return f"{found[variant]:.2f}" + (
        "" if variant == PLAIN else f" ({part:.0%})"
    )


if __name__ == "__main__":
    main()
