"""Diagnoses a run, and writes the table and the figure of docs/feedback.md.

    make demo
    python -m benchmarks.diagnosis.run runs/demo/mpl

Keeps the table's data in benchmarks/results/diagnosis.json, with the code and
the machine that measured it; without a run, makes the table from that file.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.common.documents import with_part
from benchmarks.common.machine import (
    RESULTS,
    ROOT,
    headline,
    machine_facts,
    revision,
)
from benchmarks.controls import tables as control_tables

KEPT = RESULTS / "diagnosis.json"
DOCUMENT = ROOT / "docs" / "feedback.md"
FIGURE = "diagnosis.png"
PART = "diagnosis"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "run", nargs="?", type=pathlib.Path, help="folder of a run of MPL"
    )
    run = parser.parse_args().run
    if run:
        measure(run.resolve())
    found = json.loads(KEPT.read_text(encoding="utf-8"))
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(with_part(text, PART, table(found)), encoding="utf-8")


def measure(run):
    """Diagnoses a run; keeps the figure, and all data but single batches."""
    machine = machine_facts() | {"revision": revision()}
    command = [sys.executable, "main.py", "--task_mode=diagnose"]
    ended = subprocess.run([*command, f"--output_dir={run}"], cwd=ROOT)
    if ended.returncode:  # The command has said why.
        sys.exit(ended.returncode)
    found = json.loads((run / "diagnosis.json").read_text(encoding="utf-8"))
    del found["batches"]
    found["machine"] = machine
    shutil.copyfile(run / FIGURE, DOCUMENT.with_name(FIGURE))
    KEPT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def table(found):
    """Markdown: lines for estimators and for single draws; then facts."""
    settings, estimators = found["settings"], found["estimators"]
    heading = [
        *("estimator", "norm ratio", "cosine, one draw"),
        *(f"mean of {settings['draws']}", "noise", "r", "r within"),
        *("predicted", "measured", "held-out"),
    ]
    steps = found["teacher_steps"]
    lines = [
        [
            _label(name, estimators),
            *_of_estimator(estimators.get(name, {})),
            *_of_step(steps.get(name)),
        ]
        for name in dict.fromkeys([*estimators, *steps])
    ]
    machine = found["machine"]
    return (
        f"{control_tables.markdown(heading, lines)}\n\n"
        f"{settings['batches']} batches; {headline(machine)}; code at "
        f"{machine['revision']}.\n"
    )


def _label(name, estimators):
    """A name in code marks, with anything after its comma as words."""
    code, comma, words = name.partition(", ")
    return f"`{code}`{comma}{words}" if code in estimators else f"a {name}"


def _of_estimator(numbers):
    formats = {
        "norm_ratio": "{:.3g}",
        "cosine_one_draw": "{:.2f}",
        "cosine_mean": "{:.2f}",
        "noise": "{:.3g}",
        "pearson": "{:.2f}",
        "pearson_within": "{:.2f}",
    }
    for key, form in formats.items():
        value = numbers.get(key)
        yield "" if value is None else form.format(value)


def _of_step(step):
    """In 0.001 nats; measured values have their standard error."""
    if step is None:
        return ["", "", ""]
    predicted, measured, error, held_out, held_out_error = (
        1e3 * step[key]
        for key in (
            *("predicted", "measured", "measured_error"),
            *("held_out", "held_out_error"),
        )
    )
    return [
        f"{predicted:.2f}",
        f"{measured:.2f} ± {error:.2f}",
        f"{held_out:.2f} ± {held_out_error:.2f}",
    ]


if __name__ == "__main__":
    main()
