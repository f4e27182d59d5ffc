"""How soon a command answers and takes its first training step.

    python -m benchmarks.starts.run

Every command is a process of its own. In each round all of them run once, after
a bare import of TensorFlow and Keras, and ratios are to that import in the same
round. The time to the first step of Meta Pseudo Labels, on random images of
CIFAR-10's size, is split into parts; see first_step.py. Seconds are what one
waits; processor seconds hardly depend on what else is running.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks.common.arguments import (
    benchmark_parser,
    parsed,
    recorded,
    write_report,
)
from benchmarks.common.machine import RESULTS, ROOT, headline, machine_facts
from benchmarks.starts.first_step import PARTS, TOTAL
from meta_pseudo_labels.learners.feedback import ESTIMATORS

BARE = "import tensorflow, keras"
ALL = "all"  # The one part of a command that is not split.
# Name: what follows `mpl`, and the exit status.
COMMANDS = {
    "mpl --help": (("--help",), 0),
    "mpl train --help": (("train", "--help"), 1),  # As in absl.
    "an unknown flag": (("train", "--methd=mpl"), 1),
    "a value out of range": (("train", "--train_batch_size=-1"), 1),
}
FIRST_STEP = "from benchmarks.starts.first_step import main; main()"


def main():
    settings = parse_arguments()
    machine = machine_facts()
    rounds = {}
    with tempfile.TemporaryDirectory() as folder:
        write_images(pathlib.Path(folder))
        for _ in range(settings.rounds):
            for name, found in one_round(settings, folder):
                rounds.setdefault(name, []).append(found)
                print(name, *(f"{s:.2f}" for s in total(found)), flush=True)
    report = summary(rounds)
    report |= {"machine": machine, "settings": recorded(settings)}
    print_report(report)
    write_report(report, settings.json)


def parse_arguments():
    parser = benchmark_parser(
        __doc__,
        (
            ("rounds", 5, "turns of every command"),
            ("batch_size", 8, "labeled images, B"),
            ("unlabeled_ratio", 7, "unlabeled images per labeled one, mu"),
        ),
    )
    add = parser.add_argument
    add("--models", nargs="*", default=["wrn-28-2", "speednet-32"])
    add(
        "--estimators",
        nargs="+",
        choices=tuple(ESTIMATORS),
        default=["off", "exact", "reinforce_per_example"],
    )
    parser.set_defaults(json=RESULTS / "starts.json")
    return parsed(parser)


def write_images(folder):
    """Writes CIFAR-10 files with a few images of random levels."""
    draws = np.random.default_rng(0)
    for name, count in (("train.bin", 400), ("test_batch.bin", 100)):
        records = draws.integers(0, 256, [count, 1 + 3 * 32**2], np.uint8)
        records[:, 0] = np.arange(count) % 10
        records.tofile(folder / name)


def one_round(settings, folder):
    """Yields a name and {part: [seconds, processor seconds]} of each command.

    For a first step, also `traces`: how often its Python code ran.
    """
    yield BARE, {ALL: run_process(["-c", BARE])}
    for name, (words, status) in COMMANDS.items():
        command = ["-m", "meta_pseudo_labels", *words]
        yield name, {ALL: run_process(command, status=status)}
    for model in settings.models:
        for estimator in settings.estimators:
            found = first_step(settings, folder, model, estimator)
            yield f"{model}, {estimator}", found


def first_step(settings, folder, model, estimator):
    """See `one_round`."""
    with tempfile.TemporaryDirectory() as own:
        report = os.path.join(own, "report.json")
        flags = {
            "output_dir": os.path.join(own, "run"),
            "dataset": "cifar10",
            "data_dir": folder,
            "num_labeled": 40,
            "method": "mpl",
            "model_type": model,
            "mpl_feedback": estimator,
            "train_batch_size": settings.batch_size,
            "uda_data": settings.unlabeled_ratio,
            "num_train_steps": 1_000,
        }
        typed = (f"--{name}={value}" for name, value in flags.items())
        began = time.monotonic()
        run_process(["-c", FIRST_STEP, report, str(began), *typed])
        with open(report, encoding="utf-8") as file:
            found = json.load(file)
    return found["parts"] | {"traces": found["traces"]}


def run_process(arguments, status=0):
    """[seconds, processor seconds] of Python and of all that it starts.

    Raises:
      RuntimeError: if it does not end with that status.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    process = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    seconds = time.monotonic() - start
    if process.returncode != status:
        raise RuntimeError(
            f"{arguments} ended with {process.returncode}: "
            f"{process.stdout[-500:]}{process.stderr[-2000:]}"
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (
        getattr(after, kind) - getattr(before, kind)
        for kind in ("ru_utime", "ru_stime")
    )
    return [seconds, sum(spent)]


def total(found):
    """[seconds, processor seconds] of a whole command."""
    return found.get(ALL) or found[TOTAL]


def summary(rounds):
    """Medians and quartiles, and ratios to the bare import within each round.

    Args:
      rounds: {name: [rounds] of what `one_round` yields}.
    """
    bare = np.array([total(found) for found in rounds[BARE]])
    report = {"parts": {}, "ratio": {}, "ratio_quartiles": {}, "cpu_ratio": {}}
    for name, found in rounds.items():
        report["parts"][name] = {
            part: spread([one[part] for one in found]) for part in found[0]
        }
        ratios = np.array([total(one) for one in found]) / bare
        if name != BARE:
            (low, middle, high), (_, cpu, _) = quartiles(ratios).T.tolist()
            report["ratio"][name] = middle
            report["ratio_quartiles"][name] = [low, high]
            report["cpu_ratio"][name] = cpu
    return report


def spread(values):
    """A part over all rounds; a count, as of traces, is the same in all."""
    if isinstance(values[0], int):
        return values[0]
    seconds, cpu_seconds = quartiles(values).T.round(3).tolist()
    return {"seconds": seconds, "cpu_seconds": cpu_seconds}


def quartiles(values):
    """[3, ...]: lower quartile, median and upper quartile of [rounds, ...]."""
    return np.quantile(values, [0.25, 0.5, 0.75], axis=0)


def print_report(report):
    """Prints medians of seconds and processor seconds."""
    print(headline(report["machine"]))
    for name, parts in report["parts"].items():
        whole = parts.get(ALL) or parts[TOTAL]
        ratio = report["ratio"].get(name, 1.0)
        print(f"{name}: {words(whole)}, {ratio:.2f} times the bare import")
        for part in PARTS if TOTAL in parts else ():
            print(f"  {part}: {words(parts[part])}")
        if "traces" in parts:
            print(f"  the step is traced {parts['traces']} times")


def words(times):
    seconds, cpu_seconds = times["seconds"][1], times["cpu_seconds"][1]
    return f"{seconds:.2f} s ({cpu_seconds:.2f} s of processor time)"


if __name__ == "__main__":
    main()
