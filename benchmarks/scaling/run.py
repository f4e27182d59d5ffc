"""Simulates the time of a step on 1 to 2,048 TPU cores; computed, not measured.

    python -m benchmarks.scaling.run
    python -m benchmarks.scaling.run --write    # into docs/scaling.md
    python -m benchmarks.scaling.run --measure --json scaling.json

A small model of Meta Pseudo Labels with the release's two runs: arithmetic,
all-reduces of gradients and of batch norm's moments, and the work that every
core repeats. The global batch is fixed. All constants are in model.py; what can
be checked without a TPU is in measure.py.
"""

import argparse
import json
import pathlib

from benchmarks.common.arguments import parsed, positive, write_report
from benchmarks.common.documents import with_part
from benchmarks.common.machine import RESULTS, ROOT
from benchmarks.scaling.model import RUNS, Machine
from benchmarks.scaling.steps import read_run
from benchmarks.scaling.tables import (
    measured_report,
    published_report,
    run_report,
)

DOC = ROOT / "docs" / "scaling.md"
PART = "scaling"
MEASURED = RESULTS / "scaling.json"
CORES = (1, *(2**power for power in range(3, 12)))


def report():
    """The Markdown for docs/scaling.md. The last run is of ResNet-50."""
    parts = []
    for run in RUNS:
        _, step = read_run(run.flagfile)
        machine = Machine(utilization=run.utilization)
        parts.append(run_report(run, step, machine, CORES))
    return "\n".join([*parts, published_report(step, machine) + "\n"])


def main():
    settings = parse_arguments()
    if settings.measure:
        from benchmarks.scaling.measure import measure

        found = measure(model=settings.model, rounds=settings.rounds)
        print(measured_report(found), end="")
        write_report(found, settings.json)
        return
    text = report()
    if MEASURED.exists():
        text += "\n" + measured_report(json.loads(MEASURED.read_text()))
    if settings.write:
        DOC.write_text(with_part(DOC.read_text(), PART, text))
    else:
        print(text, end="")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--write", action="store_true", help=f"into {DOC.name}, not here"
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="time two workers on this machine instead",
    )
    parser.add_argument("--json", type=pathlib.Path, help="of --measure")
    parser.add_argument(
        "--model", default="wrn-10-1", help="of --measure (%(default)s)"
    )
    parser.add_argument(
        "--rounds", type=positive, default=5, help="of --measure (%(default)s)"
    )
    return parsed(parser)


if __name__ == "__main__":
    main()
