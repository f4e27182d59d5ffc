"""Every method on the digits, over seeds: what does the feedback add?

    python benchmarks/digits_controls.py --seeds=3

    # The table of the rows that are kept in this repository.
    python benchmarks/digits_controls.py --json=benchmarks/results/digits.jsonl

Runs the supervised and UDA controls and MPL with each feedback, finetunes each
student, and appends one JSON line per run to --json. Runs that stand there
already, with the same settings, are not repeated: an interrupted table goes on
where it stopped. Prints mean and standard deviation over the seeds.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

import meta_pseudo_labels
from meta_pseudo_labels import reports
from meta_pseudo_labels.experiment import Experiment
from meta_pseudo_labels.flags import config_from_flagfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Name in the table: the flagfile and what differs from it.
RUNS = {
    "supervised": ("flags/digits_supervised.flags", {}),
    "uda": ("flags/digits_uda.flags", {}),
    "mpl off": ("flags/digits_mpl.flags", {"mpl_feedback": "off"}),
    "mpl release": ("flags/digits_mpl.flags", {"mpl_feedback": "release"}),
    "mpl exact": ("flags/digits_mpl.flags", {"mpl_feedback": "exact"}),
    "mpl reinforce": ("flags/digits_mpl.flags", {"mpl_feedback": "reinforce"}),
}


def main():
    arguments = _parse_arguments()
    path = arguments.json.resolve()
    os.chdir(ROOT)  # Where flagfiles name one another from.
    path.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.first_seed, arguments.seeds):
        for run in arguments.runs:
            settings = _settings(run, seed, arguments)
            if not _find(_read(path), run, settings):
                row = _measure(run, settings)
                with path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    rows = [
        row
        for seed in range(arguments.seeds)
        for run in RUNS
        for row in _find(_read(path), run, _settings(run, seed, arguments))
    ]
    print(_table(rows))
    revisions = {str(row["revision"]) for row in rows}
    print(f"Code at {', '.join(sorted(revisions))}.")


def _parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="0 to this - 1")
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--num_labeled", type=int, default=40)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument(
        "--json",
        type=pathlib.Path,
        default=ROOT / "runs" / "controls.jsonl",
        help="rows to go on from and to append to",
    )
    return parser.parse_args()


def _settings(run, seed, arguments):
    flagfile, changes = RUNS[run]
    return config_from_flagfile(
        flagfile, seed=seed, num_labeled=arguments.num_labeled, **changes
    )


def _read(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _find(rows, run, settings):
    """The recorded rows of a run under these settings.

    Settings that a row does not know came later, and did not count for it.
    """
    wanted = dataclasses.asdict(settings)
    return [
        row
        for row in rows
        if row["run"] == run and row["settings"].items() <= wanted.items()
    ]


def _measure(run, settings):
    """Trains, finetunes and evaluates; one row of results."""
    keras.backend.clear_session()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment(
            dataclasses.replace(settings, output_dir=folder, progress=False)
        )
        experiment.train()
        seconds = time.monotonic() - start
        experiment.finetune()
        accuracies = experiment.evaluate()
    row = {
        "run": run,
        "dataset": settings.dataset,
        "labels": settings.num_labeled,
        "method": settings.method,
        "feedback": settings.mpl_feedback if settings.method == "mpl" else None,
        "seed": settings.seed,
        "steps": settings.num_train_steps,
        "model": settings.model_type,
        "accuracy": accuracies["student"],
        "accuracy_finetuned": accuracies["finetuned"],
        "accuracy_teacher": accuracies.get("teacher"),
        "train_seconds": round(seconds, 1),
        "date": time.strftime("%Y-%m-%d"),
        "revision": _revision(),
        "versions": {
            "meta_pseudo_labels": meta_pseudo_labels.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        "settings": dataclasses.asdict(settings),
    }
    print(
        f"{run}, seed {settings.seed}: {row['accuracy']:.4f}, finetuned "
        f"{row['accuracy_finetuned']:.4f}, {seconds:.0f} s",
        flush=True,
    )
    return row


def _revision():
    """Of the code that ran; None outside a git checkout."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
    )
    return git.stdout.strip() or None


def _table(rows):
    """Mean and standard deviation over seeds, in percent, a line per run."""
    by_run = collections.defaultdict(list)
    for row in rows:
        by_run[row["run"]].append(row)
    return reports.results_table(
        [
            {
                "run": run,
                "seeds": len(group),
                "student": _spread(group, "accuracy"),
                "finetuned": _spread(group, "accuracy_finetuned"),
                "teacher": _spread(group, "accuracy_teacher"),
                "seconds": _mean(group, "train_seconds"),
            }
            for run, group in by_run.items()
        ]
    )


def _spread(rows, key):
    values = [100 * row[key] for row in rows if row[key] is not None]
    if not values:
        return ""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} +- {deviation:.2f}"


def _mean(rows, key):
    return f"{statistics.mean(row[key] for row in rows):.0f}"


if __name__ == "__main__":
    main()
