"""One of several workers that train all learners, and those who start them.

    python -m tests.learners.two_workers FOLDER \\
        --worker_addresses=localhost:1111,localhost:2222 --worker_index=0

The workers train one learner after another in the same processes, since the
start of a process and its strategy costs more than most of the steps.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from meta_pseudo_labels.distribute.strategies import build_strategy
from meta_pseudo_labels.optimizers import RMSProp
from meta_pseudo_labels.run.config import Config
from tests.faults import runs
from tests.learners.replicas_test import (
    KERAS_BATCH_NORM,
    LEARNERS,
    mpl,
    train,
)

# What `train` takes. Beyond the learners, what replicas could share wrongly:
# an optimizer of Keras's own and one of ours, batches of one more part, the
# moments of Keras's batch norm.
CASES = {
    **{name: dict(build=build) for name, build in LEARNERS.items()},
    "adam": dict(
        build=LEARNERS["supervised"],
        optimizer=lambda: keras.optimizers.Adam(0.01),
    ),
    "rmsprop": dict(
        build=mpl("reinforce_dot_product"), optimizer=lambda: RMSProp(0.02)
    ),
    "held-out split": dict(build=mpl("exact"), drop=("none",)),
    **{
        f"{name}, batch norm of Keras": dict(build=build, steps=4)
        for name, build in KERAS_BATCH_NORM.items()
    },
}


def train_all(folder, *, seconds, count=2):
    """Trains all `CASES` on several workers of this machine.

    Args:
      folder: where to; see `load`.
      seconds: that they may take.
      count: of workers.

    Raises:
      RuntimeError: where one fails, or they take longer; with the last words
        of each. No process is left then either.
    """
    logs = [pathlib.Path(folder, f"{index}.log") for index in range(count)]
    workers = []
    try:
        for log, flags in zip(logs, runs.worker_flags(count), strict=True):
            workers.append(_start(folder, flags, log))
        codes = _wait(workers, seconds=seconds)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    if any(code != 0 for code in codes):
        words = [f"{log.name}:\n{log.read_text()[-3000:]}" for log in logs]
        raise RuntimeError(
            f"Workers ended with {codes} (None: not within {seconds} s, or "
            "left waiting for another).\n" + "\n".join(words)
        )


def _start(folder, flags, log):
    with log.open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(folder), *flags],
            cwd=runs.ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )


def _wait(workers, *, seconds):
    """Their exit codes, once all have ended, one failed or time is over."""
    deadline = time.monotonic() + seconds
    while True:
        codes = [worker.poll() for worker in workers]
        if None not in codes or any(codes) or time.monotonic() > deadline:
            return codes
        time.sleep(0.1)


def path_of(folder, name, index):
    """What worker number `index` writes of a case."""
    return pathlib.Path(folder, f"{name}-{index}.npz")


def save(path, rows, variables):
    """Writes what `train` returns."""
    logs = {f"log/{key}": [row[key] for row in rows] for key in rows[0]}
    values = {f"variable/{n}": v.numpy() for n, v in enumerate(variables)}
    np.savez(path, **logs, **values)


def load(path):
    """What `train` returned in another process, the variables as tensors."""
    logs, variables = {}, []
    with np.load(path) as stored:
        for name, value in stored.items():  # In the order of `save`.
            if name.startswith("log/"):
                logs[name.removeprefix("log/")] = value
            else:
                variables.append(tf.constant(value))
    rows = [
        dict(zip(logs, row, strict=True))
        for row in zip(*logs.values(), strict=True)
    ]
    return rows, variables


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--worker_addresses", required=True)
    parser.add_argument("--worker_index", type=int, required=True)
    arguments = parser.parse_args()
    strategy = build_strategy(
        Config(
            worker_addresses=arguments.worker_addresses,
            worker_index=arguments.worker_index,
        )
    )
    for name, settings in CASES.items():
        start = time.monotonic()
        rows, variables = train(strategy=strategy, **settings)
        path = path_of(arguments.folder, name, arguments.worker_index)
        save(path, rows, variables)
        print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
