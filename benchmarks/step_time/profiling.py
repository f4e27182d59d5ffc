"""Which operations a training step spends its time on.

    python -m benchmarks.step_time.profiling --feedback=exact --folder=profile

Profiles a few steps, as run.py times them, and prints a table without
TensorBoard: milliseconds a step by kind of operation, over all threads, and how
often it runs. The profile stays in the folder; TensorBoard can show it
(docs/profiling.md).
"""

import argparse
import collections
import pathlib
import time

import keras
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from benchmarks.common.arguments import positive
from benchmarks.step_time.variants import (
    FEEDBACKS,
    PARTS,
    bare_parts,
    build_learner,
    random_batch,
    whole_step,
)

BARE = "parts"


def main():
    settings = parse_arguments()
    keras.utils.set_random_seed(0)
    run = step_to_profile(settings)
    for _ in range(2):  # Trace, and fill caches.
        run()
    start = time.perf_counter()
    with tf.profiler.experimental.Profile(str(settings.folder)):
        for number in range(settings.steps):
            with tf.profiler.experimental.Trace("step", step_num=number, _r=1):
                run()
    seconds = (time.perf_counter() - start) / settings.steps
    print(f"{seconds * 1e3:.1f} ms a step under the profiler")
    print_operations(
        newest_profile(settings.folder),
        steps=settings.steps,
        rows=settings.rows,
    )


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--folder", type=pathlib.Path, required=True, help="for the profile"
    )
    parser.add_argument(
        "--feedback",
        choices=(*FEEDBACKS, BARE),
        default="release",
        help=f"of the step; {BARE}: the bare parts of run.py",
    )
    parser.add_argument("--model", default="wrn-28-2", help="both networks")
    for name, default, meaning in (
        ("batch_size", 8, "labeled images, B"),
        ("unlabeled_ratio", 7, "unlabeled images per labeled one, mu"),
        ("image_size", 32, "height and width in pixels"),
        ("steps", 3, "profiled steps"),
        ("rows", 25, "of the table"),
    ):
        parser.add_argument(
            f"--{name}", type=positive, default=default, help=meaning
        )
    return parser.parse_args()


def step_to_profile(settings):
    """A function without arguments that takes one step and waits for it."""
    batch = random_batch(settings)
    if settings.feedback == BARE:
        parts = bare_parts(settings, batch)
        functions = [parts[name] for name in PARTS]
    else:
        learner = build_learner(settings, feedback=settings.feedback)
        functions = [whole_step(learner, batch)]

    def run():
        for function in functions:
            tf.nest.flatten(function())[0].numpy()

    return run


def newest_profile(folder):
    """The protocol buffer of the newest profile in a folder."""
    space = xplane_pb2.XSpace()
    path = max(
        folder.glob("plugins/profile/*/*.xplane.pb"),
        key=lambda path: path.stat().st_mtime,
    )
    space.ParseFromString(path.read_bytes())
    return space


def print_operations(space, *, steps, rows):
    """Prints the operations that took longest; leaves out functions."""
    picoseconds, counts = collections.Counter(), collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                # An operation is "<place in the graph>:<kind>".
                _, separator, kind = name.rpartition(":")
                if separator and "::" not in name and " " not in kind:
                    picoseconds[kind] += event.duration_ps
                    counts[kind] += 1
    print(f"{'operation':36}{'ms a step':>11}{'runs a step':>13}")
    for kind, total in picoseconds.most_common(rows):
        print(
            f"{kind:36}{total / 1e9 / steps:11.2f}{counts[kind] / steps:13.1f}"
        )


if __name__ == "__main__":
    main()
