"""Few labels of CIFAR-10, then students: each learns what the one before says.

    python -m benchmarks.controls.students --precision=bfloat16 \
        --data_dir=data/tfds

The second stage of Reduced Meta Pseudo Labels, without feedback, in rounds: a
network says what all images are, and a fresh student learns that, softly and on
strong views, beside the labels. The first network learns labels alone, from
strong views, or by UDA (--begin). Runs stay in --folder, where the same command
goes on; a JSON line a round goes to --json, by default of benchmarks/results.
With --feedback the last student is that of Reduced Meta Pseudo Labels, whose
small teacher hears its feedback, and is finetuned; `off` is its control. With
--select images of the unlabeled pool are classified, whose labels nobody
saw, under a seed that no comparison uses: to choose settings by.
"""

import argparse
import dataclasses
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from benchmarks.common.documents import with_part
from benchmarks.common.machine import RESULTS, ROOT
from benchmarks.controls import rows as control_rows
from benchmarks.controls import runs as control_runs
from benchmarks.controls.search import LABELS
from benchmarks.controls.search import SEED as SELECTING
from benchmarks.controls.tables import markdown
from meta_pseudo_labels.run.config.flags import config_from_flagfile
from meta_pseudo_labels.run.experiment import Experiment

ROWS = RESULTS / "cifar10_fast_students.jsonl"
DOCUMENT = ROOT / "docs" / "tutorials" / "cifar.md"
_STUDENT = "flags/cifar10_fast_student.flags"
_WIDE = {"model_type": "speednet-64", "num_warmup_steps": 200}
_BEGUN_WITH = {"augmented": "labels, on strong views", "uda": "UDA"}
# By how the first network learns; of each network a flagfile, and what differs
# from it.
ROUNDS = {
    "augmented": (
        ("flags/cifar10_fast_augmented.flags", {}),
        (_STUDENT, {}),
        (_STUDENT, _WIDE | {"num_train_steps": 1_000}),
        (_STUDENT, _WIDE | {"num_train_steps": 1_500}),
    ),
    "uda": (
        ("flags/cifar10_fast_uda.flags", {"num_train_steps": 1_500}),
        (_STUDENT, {}),
        (_STUDENT, {}),
        (_STUDENT, _WIDE | {"num_train_steps": 1_000}),
    ),
}
# Of a student whose teacher is not fixed.
_REDUCED = {
    "method": "mpl",
    "mpl_student_labeled_weight": 1.0,
    "mpl_student_lr": 1.25,
    "mpl_student_lr_wait_steps": 0,
    "mpl_student_lr_warmup_steps": 150,
    "mpl_teacher_lr": 0.1,
    "mpl_teacher_lr_warmup_steps": 150,
}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--precision",
        default="float32",
        choices=("auto", "float32", "bfloat16"),
        help="what networks compute in, see docs/command_line.md",
    )
    parser.add_argument("--data_dir", help="folder of sets prepared by TFDS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--begin", default="augmented", choices=ROUNDS)
    parser.add_argument("--rounds", type=int, help="of students; default all")
    parser.add_argument("--feedback", choices=("off", "exact"))
    parser.add_argument("--select", action="store_true")
    parser.add_argument("--threads", type=int, help="by default all cores")
    parser.add_argument("--folder", default="runs/students", type=pathlib.Path)
    parser.add_argument("--json", default=ROWS, type=pathlib.Path)
    parser.add_argument(
        "--table", action="store_true", help="write that of the document alone"
    )
    parsed = parser.parse_args(arguments)
    if parsed.table:
        text = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(with_part(text, "students", table()), "utf-8")
        return
    folder, path = parsed.folder.absolute(), parsed.json.absolute()
    os.chdir(ROOT)  # Where flagfiles name one another from.
    if parsed.threads:
        control_runs.use_threads(parsed.threads)
    seed = SELECTING if parsed.select else parsed.seed
    split = control_rows.VALIDATION if parsed.select else control_rows.TEST
    teacher = None
    begin = parsed.begin
    rounds = ROUNDS[begin]
    if parsed.rounds is not None:
        rounds = rounds[: parsed.rounds + 1]
    for number, (flagfile, changes) in enumerate(rounds):
        name, place = f"{begin}, round {number}", f"round-{number}"
        if parsed.feedback and number + 1 == len(rounds):
            name += f", {parsed.feedback}"
            place += f"-{parsed.feedback}"
            changes = changes | _REDUCED | {"mpl_feedback": parsed.feedback}
        settings = config_from_flagfile(
            flagfile,
            **{"num_labeled": LABELS, "seed": seed} | changes,
            data_dir=parsed.data_dir,
            precision=parsed.precision,
            teacher_labels=teacher,
            output_dir=str(folder / begin / f"seed-{seed}" / place),
            progress=False,
        )
        # Accuracies on the way would take time.
        settings = dataclasses.replace(
            settings, save_every=settings.num_train_steps
        )
        teacher = settings.output_dir
        rows = control_rows.read(path)
        found = control_rows.find(rows, name, settings, split=split)
        if not found or not os.path.isdir(teacher):
            found = [measure(name, settings, select=parsed.select)]
            control_rows.append(found[0], path)
        print(
            f"{name}  {settings.model_type}  {settings.num_train_steps:,} steps"
            f"  {100 * found[-1]['accuracy']:.2f} %"
            f"  {found[-1]['train_cpu_seconds']:.0f} processor s",
            flush=True,
        )


def table():
    """The test accuracies in `ROWS`, a line a round, as Markdown."""
    rounds = {}
    for row in control_rows.read(ROWS):
        if control_rows.split_of(row) == control_rows.TEST:
            begin, number = row["run"].split(", round ")
            rounds.setdefault((begin, number), []).append(row)
    lines = [
        (
            _BEGUN_WITH[begin],
            number,
            rows[0]["model"],
            f"{rows[0]['steps']:,}",
            ", ".join(f"{100 * _accuracy(row):.1f}" for row in rows),
            ", ".join(f"{row['train_cpu_seconds']:,.0f}" for row in rows),
            ", ".join(sorted({row["date"] for row in rows})),
        )
        for (begin, number), rows in sorted(rounds.items())
    ]
    heading = (
        *("begun with", "round", "network", "steps"),
        *("right, %", "seconds of the processor", "date"),
    )
    return markdown(heading, lines) + "\n"


def _accuracy(row):
    """Of the student, finetuned where it was."""
    finetuned = row["accuracy_finetuned"]
    return row["accuracy"] if finetuned is None else finetuned


def measure(name, settings, *, select):
    """One round: trains, says what all images are, classifies; its row.

    A student of Reduced Meta Pseudo Labels is finetuned instead of asked.

    Args:
      name: of the row.
      settings: its `Config`, with the folder that it stays in.
      select: see `control_runs.measure`.
    """
    keras.backend.clear_session()
    start, cpu_start = time.monotonic(), time.process_time()
    build = control_runs.PoolExperiment if select else Experiment
    experiment = build(settings)
    experiment.train()
    if settings.method == "mpl":
        experiment.finetune()
    else:
        experiment.cache_labels()
    seconds = time.monotonic() - start, time.process_time() - cpu_start
    return control_runs.row(
        name,
        settings,
        learned=len(experiment.data.labeled_images),
        accuracies={"finetuned": None, "teacher": None} | experiment.evaluate(),
        seconds=seconds,
        split=control_rows.VALIDATION if select else control_rows.TEST,
    )


if __name__ == "__main__":
    main()
