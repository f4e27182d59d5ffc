"""Times a step of Meta Pseudo Labels against its bare parts.

    python -m benchmarks.step_time.run --torch --memory --json step_time.json

A step needs at least a teacher's forward and backward pass on labeled, weak and
strong images, a student's on strong and labeled ones, and a second forward pass
of the student on the labeled ones. The benchmark times these three parts alone,
and whole steps for every feedback: with losses, optimizers, weight decay,
clipping, averages and the feedback itself. A ratio of 1 would mean that all of
this is free.

--torch also times the step of "release" in plain PyTorch, after comparing the
losses of two steps with ours (torch_peer.py).

--bfloat16 also times our step in mixed_bfloat16, and PyTorch's under autocast,
for processors that have instructions for it (avx512_bf16, amx_bf16).

--teacher times steps of UDA, of Meta Pseudo Labels while its student waits and
is skipped, and of UDA whose weak views pass separately; ratios are those of the
last two to the first.

Everything runs in rounds; a round times every variant once, in random order. A
ratio is computed within each round, and the median over the rounds is reported:
when the machine slows down for a while, as shared machines do, it slows the
step and the parts of the same round alike, whereas the medians of step and
parts may come from different rounds. Processor seconds, over all threads, are
reported too: other processes hardly add to them.

A product of two large matrices is timed in the same rounds. It shows what the
processor can do: work per second is reported as a share of it.

--memory starts a process for every step, which reports its peak.

The logs that cost a backward pass are computed in one step out of fifty or
fewer, as in training, so that medians of times do not show them; memory peaks
do.
"""

import argparse
import contextlib
import json
import os
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf

from benchmarks.common.arguments import (
    benchmark_parser,
    parsed,
    recorded,
    write_report,
)
from benchmarks.common.machine import machine_facts
from benchmarks.step_time.memory import memory_of_own_processes, peak_of_steps
from benchmarks.step_time.report import print_table, summarize
from benchmarks.step_time.torch_peer import torch_steps
from benchmarks.step_time.variants import (
    BFLOAT16,
    FEEDBACKS,
    IN_BFLOAT16,
    MATMUL,
    TORCH,
    TORCH_BFLOAT16,
    bare_parts,
    build_learner,
    flops,
    matmul,
    random_batch,
    teacher_steps,
    whole_step,
)


def main():
    settings = parse_arguments()
    tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
    tf.config.threading.set_inter_op_parallelism_threads(settings.threads)
    keras.utils.set_random_seed(0)
    if settings.part:
        print(json.dumps(peak_of_steps(settings)))
        return
    machine = machine_facts()  # So far, its load comes from other programs.
    # First, while this process is small.
    memory = memory_of_own_processes(settings) if settings.memory else {}
    with contextlib.ExitStack() as stack:
        variants, facts = build_variants(settings, stack)
        rounds = time_in_rounds(
            variants, rounds=settings.rounds, warmup=settings.warmup
        )
    report = summarize(rounds, flops=flops(settings), memory=memory) | {
        "settings": recorded(settings, without=("part", "torch_path")),
        "machine": machine | facts,
    }
    print_table(report)
    write_report(report, settings.json)


def parse_arguments():
    parser = benchmark_parser(
        __doc__,
        (
            ("batch_size", 8, "labeled images, B"),
            ("unlabeled_ratio", 7, "unlabeled images per labeled one, mu"),
            ("image_size", 32, "height and width in pixels"),
            ("rounds", 15, "timed rounds"),
            ("warmup", 2, "untimed rounds before these"),
            ("threads", os.cpu_count(), "of TensorFlow and of PyTorch"),
        ),
    )
    parser.add_argument("--model", default="wrn-28-2", help="both networks")
    parser.add_argument(
        "--torch", action="store_true", help="whether to time PyTorch too"
    )
    parser.add_argument(
        "--torch_path", type=pathlib.Path, help="folder with another PyTorch"
    )
    parser.add_argument(
        "--teacher",
        action="store_true",
        help="whether to time steps of a teacher alone, UDA's and others",
    )
    parser.add_argument(
        "--bfloat16", action="store_true", help="whether to time it too"
    )
    parser.add_argument(
        "--memory", action="store_true", help="whether to measure peaks"
    )
    parser.add_argument("--part", choices=FEEDBACKS, help=argparse.SUPPRESS)
    return parsed(parser)


def build_variants(settings, stack):
    """Functions without arguments that return times, by name; and facts.

    Args:
      settings: of the command line.
      stack: a `contextlib.ExitStack`, which ends the processes of PyTorch.
    """
    batch = random_batch(settings)
    learners = {
        feedback: build_learner(settings, feedback=feedback)
        for feedback in FEEDBACKS
    }
    if settings.bfloat16:
        learners |= {
            name: build_learner(
                settings,
                feedback=name.removesuffix(IN_BFLOAT16),
                dtype="mixed_bfloat16",
            )
            for name in BFLOAT16
        }
    peers, facts = {}, {}
    if settings.torch:
        peers, facts = torch_steps(
            TORCH,
            settings,
            learner=learners["release"],
            batch=batch,
            stack=stack,
        )
    if settings.torch and settings.bfloat16:
        more, _ = torch_steps(
            TORCH_BFLOAT16,
            settings,
            learner=learners[f"release{IN_BFLOAT16}"],
            batch=batch,
            stack=stack,
            tolerance=0.05,  # Both round, but differently.
        )
        peers |= more
    ours = {MATMUL: matmul()} | bare_parts(settings, batch)
    if settings.teacher:
        ours |= teacher_steps(settings, batch)
    for feedback, learner in learners.items():
        ours[feedback] = whole_step(learner, batch)
    return {name: timed(run) for name, run in ours.items()} | peers, facts


def timed(run):
    """A function that runs another and returns how long that took."""

    def measure():
        start, cpu_start = time.perf_counter(), time.process_time()
        tf.nest.flatten(run())[0].numpy()
        return {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - cpu_start,
        }

    return measure


def time_in_rounds(variants, *, rounds, warmup):
    """{"seconds" and "cpu_seconds": {variant: [rounds] array}}."""
    measured = {name: [] for name in variants}
    generator = np.random.default_rng(0)
    for number in range(warmup + rounds):
        for name in generator.permutation(list(variants)):
            times = variants[name]()
            if number >= warmup:
                measured[name].append(times)
    return {
        kind: {
            name: np.array([times[kind] for times in rows])
            for name, rows in measured.items()
        }
        for kind in ("seconds", "cpu_seconds")
    }


if __name__ == "__main__":
    main()
