"""Checks the parts of model.py that need no TPU: its counts and its form.

Two workers on one core of this processor, each with half of the batch, should
take as long as two devices with a half each that do not communicate, plus the
all-reduces that the model counts: a constant for each, and a time proportional
to the bytes. The two are measured separately, on chains of small and of large
all-reduces.
"""

import argparse
import collections
import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import threading
import time
import unittest.mock

import numpy as np
import tensorflow as tf

from benchmarks.common.machine import machine_facts
from benchmarks.step_time.variants import build_learner, random_batch

CHAIN = 50  # All-reduces of a timed function; each waits for the one before.
SMALL, LARGE = 2 * 64, 1 << 18  # Numbers in an all-reduce.
SIZES = {"batch_size": 4, "unlabeled_ratio": 7, "image_size": 32}
MARK = "counted_all_reduce"


def measure(*, model, rounds):
    """Times all-reduces, and steps without and with them, on two workers.

    Args:
      model: the larger network; the tiny one is an mlp.
      rounds: number of rounds, over which medians are taken.

    Returns:
      A dict for JSON.

    Raises:
      RuntimeError: if a worker fails.
    """
    addresses = [f"localhost:{port}" for port in _free_ports(2)]
    workers = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.scaling.measure"),
                *(model, str(rounds)),
            ],
            env=os.environ
            | {
                "TF_CONFIG": json.dumps(
                    {
                        "cluster": {"worker": addresses},
                        "task": {"type": "worker", "index": index},
                    }
                )
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    said = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        raise RuntimeError("A worker failed; its output is above.")
    return json.loads(said[0].splitlines()[-1])


def _free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


def work(*, model, rounds):
    """What each worker does; see `measure`."""
    if hasattr(os, "sched_setaffinity"):  # Not on macOS.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    launch, per_byte = all_reduce_costs(strategy, rounds=rounds)
    found = {
        "all_reduce": {
            "launch_ms": 1e3 * launch,
            "ms_per_megabyte": 1e9 * per_byte,
        },
        "rounds": rounds,
        "steps": [],
    }
    for name in ("mlp", model):
        apart, together, counted = time_steps(
            _settings(name), strategy, rounds=rounds
        )
        size = sum(counted)
        predicted = apart + len(counted) * launch + size * per_byte
        found["steps"].append(
            {
                "model": name,
                "all_reduces": len(counted),
                "megabytes": size / 1e6,
                "apart_ms": 1e3 * apart,
                "predicted_ms": 1e3 * predicted,
                "together_ms": 1e3 * together,
            }
        )
    return found | {"sizes": SIZES, "machine": machine_facts()}


def _settings(model):
    names = collections.namedtuple("Settings", ["model", *SIZES])
    return names(model=model, **SIZES)


def all_reduce_costs(strategy, *, rounds):
    """Seconds per all-reduce, and seconds more per byte of it."""
    small, large = (
        _median(_chain(strategy, size), rounds) / CHAIN
        for size in (SMALL, LARGE)
    )
    per_byte = (large - small) / (4 * (LARGE - SMALL))
    return small - 4 * SMALL * per_byte, per_byte


def _chain(strategy, size):
    def reduce(value):
        value = tf.identity(value)  # On the replica's device.
        context = tf.distribute.get_replica_context()
        for _ in range(CHAIN):
            value = context.all_reduce(tf.distribute.ReduceOp.MEAN, value)
        return value[0]

    run = tf.function(
        lambda value: strategy.run(reduce, args=(value,)), autograph=False
    )
    return functools.partial(run, tf.ones([size]))


def time_steps(settings, strategy, *, rounds):
    """Seconds of a step on half a batch, alone and with the other worker's.

    The other worker takes its steps on the same core at the same time.

    Returns:
      Both times, and the bytes of each all-reduce of the latter.
    """
    half = random_batch(settings)
    learner = build_learner(settings, feedback="exact")
    alone = tf.function(
        lambda: learner.train_step(half, costly=False), autograph=False
    )
    with strategy.scope():
        spread = build_learner(settings, feedback="exact")
    together = step_function(spread, strategy)
    counted = live_all_reduces(together, half)
    # In turn: other work on the machine, and the other worker, slow both.
    times = [
        (_timed(alone), _timed(lambda: together(half)))
        for _ in range(rounds + 1)
    ]
    return *np.median(times[1:], axis=0).tolist(), counted


def step_function(learner, strategy):
    """A train step that is not logged; all replicas get the same batch."""
    return tf.function(
        lambda batch: strategy.run(
            lambda: learner.train_step(batch, costly=False)
        ),
        autograph=False,
    )


def live_all_reduces(function, *arguments):
    """Bytes of each all-reduce that a function runs, on each replica.

    Tensors reduced by one call count as one. Operations that are traced but not
    needed for outputs or variables do not count.

    Args:
      function: a `tf.function` with one strategy's `run`, not traced yet.
      *arguments: its arguments.
    """
    with _marked_all_reduces():
        graph = function.get_concrete_function(*arguments).graph
    calls = collections.Counter()
    for operation in _live(graph):
        if MARK in operation.name:
            call = operation.name.split(MARK)[1].split("_of_")[0]
            calls[call] += operation.outputs[0].shape.num_elements() * (
                operation.outputs[0].dtype.size
            )
    return list(calls.values())


@contextlib.contextmanager
def _marked_all_reduces():
    """Names the outputs of all-reduces in the first replica."""
    base = tf.distribute.ReplicaContext.__mro__[1]
    original, calls = base.all_reduce, iter(range(10**9))
    lock = threading.Lock()

    def all_reduce(self, *args, **kwargs):
        reduced = original(self, *args, **kwargs)
        if tf.get_static_value(self.replica_id_in_sync_group):
            return reduced
        with lock:
            name = f"{MARK}{next(calls)}_of_"
        return tf.nest.map_structure(lambda x: tf.identity(x, name), reduced)

    with unittest.mock.patch.object(base, "all_reduce", all_reduce):
        yield


def _live(graph):
    """Operations that outputs or changes of variables depend on."""
    found = {}
    waiting = [tensor.op for tensor in graph.outputs]
    waiting += list(graph.control_outputs)
    while waiting:
        operation = waiting.pop()
        if operation.name not in found:
            found[operation.name] = operation
            waiting += [tensor.op for tensor in operation.inputs]
            waiting += operation.control_inputs
    return found.values()


def _median(function, rounds):
    function()
    return float(np.median([_timed(function) for _ in range(rounds)]))


def _timed(function):
    start = time.perf_counter()
    for value in tf.nest.flatten(function()):
        for part in getattr(value, "values", [value]):
            part.numpy()
    return time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=work.__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("rounds", type=int)
    print(json.dumps(work(**vars(parser.parse_args()))))
