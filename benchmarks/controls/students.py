"""Few labels of CIFAR-10, then students, each taught by the one before.

    python -m benchmarks.controls.students --precision=bfloat16 \
        --data_dir=data/tfds

The second stage of Reduced Meta Pseudo Labels, without feedback, in rounds:
networks label all images, and fresh students learn the average of their soft
labels, on strong views, along with the known labels. The first networks learn
from labels alone, on strong views, or by UDA (--begin). With
--begin=pretrained and --begin=pretrained-uda, every network starts from the
weights of ImageNet in --weights. The networks of a round share their labels and
differ in seed. With --feedback the last round is Reduced Meta Pseudo Labels: a
small teacher hears how its student does, and the student is finetuned; `off`,
where the teacher hears nothing, is the control. Runs stay in --folder, where
the same command continues them; one JSON line per network goes to --json, by
default in benchmarks/results. --select, for choosing settings, classifies
images of the unlabeled pool, whose labels nobody saw, under a seed that no
comparison uses.
"""

import argparse
import dataclasses
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from benchmarks.common.documents import with_part
from benchmarks.common.machine import RESULTS, ROOT
from benchmarks.controls import rows as control_rows
from benchmarks.controls import runs as control_runs
from benchmarks.controls.rounds import BEGUN_WITH, ROUNDS
from benchmarks.controls.search import LABELS
from benchmarks.controls.search import SEED as SELECTING
from benchmarks.controls.tables import markdown
from benchmarks.controls.weights import (
    add_weights,
    check_weights,
    with_weights,
)
from meta_pseudo_labels.run.config.flags import config_from_flagfile
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.folder import LABELED
from meta_pseudo_labels.utils.checkpoint_files import FOLDER
from meta_pseudo_labels.utils.settings import ConfigError

ROWS = RESULTS / "cifar10_fast_students.jsonl"
DOCUMENT = ROOT / "docs" / "tutorials" / "cifar.md"
# What is added to the seed for each further network of a round.
_APART = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked for.

    Attributes:
      begin: of ROUNDS.
      num_labeled: how many labels there are.
      students: how many rounds follow the first.
      feedback: the estimator of the last round; None for pseudo labels.
      seed: draws the labels.
      select: whether images of the pool are classified.
      folder: of all rounds, an absolute path.
      json: of the rows, an absolute path.
      weights: of ImageNet, an absolute path; None for what starts without.
      data_dir, precision: see `Config`.
    """

    begin: str
    num_labeled: int
    students: int
    feedback: str | None
    seed: int
    select: bool
    folder: pathlib.Path
    json: pathlib.Path
    weights: str | None
    data_dir: str | None
    precision: str


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--precision",
        default="float32",
        choices=("auto", "float32", "bfloat16"),
        help="what networks compute in; see docs/command_line.md",
    )
    parser.add_argument("--data_dir", help="folder of sets prepared by TFDS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_labeled", type=int, default=LABELS)
    parser.add_argument("--begin", default="augmented", choices=ROUNDS)
    add_weights(parser)
    parser.add_argument("--students", type=int, help="rounds; default: all")
    parser.add_argument("--feedback", choices=("off", "exact"))
    parser.add_argument("--select", action="store_true")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--folder", default="runs/students", type=pathlib.Path)
    parser.add_argument("--json", default=ROWS, type=pathlib.Path)
    parser.add_argument(
        "--table", action="store_true", help="only write the document's table"
    )
    parsed = parser.parse_args(arguments)
    if parsed.table:
        text = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(with_part(text, "students", table()), "utf-8")
        return
    most, fewest = len(ROUNDS[parsed.begin]) - 1, int(bool(parsed.feedback))
    students = most if parsed.students is None else parsed.students
    if not fewest <= students <= most:
        parser.error(f"--students={students}: give {fewest} to {most}.")
    begun, needs = f"--begin={parsed.begin}", "pretrained" in parsed.begin
    if needs and parsed.feedback:
        parser.error(
            f"{begun} --feedback={parsed.feedback}: the small teacher's rate "
            "is for networks from scratch; leave --feedback out."
        )
    check_weights(parser, parsed, begun, needs=needs)
    if "," in str(parsed.folder.absolute()):
        parser.error(
            f"--folder={parsed.folder}: a comma separates teachers; name a "
            "folder without one."
        )
    seed = SELECTING if parsed.select else parsed.seed
    asked = Asked(
        begin=parsed.begin,
        num_labeled=parsed.num_labeled,
        students=students,
        feedback=parsed.feedback,
        seed=seed,
        select=parsed.select,
        folder=parsed.folder.absolute()
        / parsed.begin
        / f"{parsed.num_labeled}-labels"
        / f"seed-{seed}",
        json=parsed.json.absolute(),
        weights=parsed.weights,
        data_dir=parsed.data_dir and os.path.abspath(parsed.data_dir),
        precision=parsed.precision,
    )
    os.chdir(ROOT)  # Flagfiles name one another relative to it.
    if parsed.threads:
        control_runs.use_threads(parsed.threads)
    try:
        train_rounds(asked)
    except ConfigError as error:
        sys.exit(f"students: {error}")


def train_rounds(asked):
    """Trains networks that have no row yet; prints a line per network.

    Args:
      asked: `Asked`.

    Raises:
      ConfigError: see `Experiment.train`.
    """
    teachers, anew = [], False
    for number in range(asked.students + 1):
        learned, measured = [], False
        for name, settings in _networks(number, asked, teachers):
            row = _found(name, settings, asked, teachers)
            # The labels of a new network are new to all that come after it.
            if anew or not row or not os.path.isdir(settings.output_dir):
                row = measure(
                    name,
                    dataclasses.replace(settings, reset_output_dir=anew),
                    teachers=teachers,
                    select=asked.select,
                ) | {"labels_seed": asked.seed}
                control_rows.append(row, asked.json)
                measured = True
            print(
                f"{name}  {settings.model_type}"
                f"  {settings.num_train_steps:,} steps"
                f"  {100 * _accuracy(row):.2f} %"
                f"  {_seconds(row)} processor s",
                flush=True,
            )
            learned.append(settings)
        teachers, anew = learned, anew or measured


def _found(name, settings, asked, teachers):
    """The last row of a network with these teachers; None without one."""
    rows = control_rows.find(
        control_rows.read(asked.json),
        name,
        settings,
        split=control_rows.VALIDATION if asked.select else control_rows.TEST,
        teacher=teachers[0] if teachers else None,
    )
    alike = [row for row in rows if _teachers(row) == len(teachers)]
    return alike[-1] if alike else None


def _teachers(row):
    """The number of teachers; older rows had one, if they had any."""
    return row.get("teachers", int(bool(row["settings"]["teacher_labels"])))


def _networks(number, asked, teachers):
    """Yields (name, `Config`) of the networks of a round.

    In the first round, all others need the choice of labels that the first
    network saves, so it must be trained before they are asked for.

    Args:
      number: of the round.
      asked: `Asked`.
      teachers: [`Config`] of the round before.
    """
    of_round = ROUNDS[asked.begin][number]
    feedback = asked.feedback if number == asked.students else None
    for network in range(1 if feedback else of_round.networks):
        name, place = f"{asked.begin}, round {number}", f"round-{number}"
        choice = {"seed": asked.seed + _APART * network}
        if network:
            name += f", network {network + 1}"
            place += f"-network-{network + 1}"
            choice["label_subset"] = str(asked.folder / "round-0" / LABELED)
        if feedback:
            name, place = f"{name}, {feedback}", f"{place}-{feedback}"
        settings = config_from_flagfile(
            of_round.flagfile,
            **{"num_labeled": asked.num_labeled} | choice | of_round.changes,
            data_dir=asked.data_dir,
            precision=asked.precision,
            teacher_labels=",".join(one.output_dir for one in teachers) or None,
            output_dir=str(asked.folder / place),
            progress=False,
        )
        # Accuracies along the way would take time.
        settings = dataclasses.replace(
            with_weights(settings, asked.weights),
            save_every=settings.num_train_steps,
        )
        if feedback:
            settings = reduced(settings, feedback)
        yield name, settings


def reduced(settings, estimator):
    """The `Config` of a student of a fixed teacher as one of Reduced MPL's."""
    warmup = settings.num_warmup_steps
    return dataclasses.replace(
        settings,
        method="mpl",
        mpl_feedback=estimator,
        mpl_student_labeled_weight=1.0,
        mpl_student_lr=settings.lr,
        mpl_student_lr_wait_steps=0,
        mpl_student_lr_warmup_steps=warmup,
        mpl_teacher_lr=0.1,
        mpl_teacher_lr_warmup_steps=warmup,
    )


def table():
    """The test accuracies in `ROWS`, one line per round, as Markdown."""
    rounds = {}
    for row in control_rows.read(ROWS):
        if control_rows.split_of(row) == control_rows.TEST:
            name, _, network = row["run"].partition(", network ")
            begin, number = name.split(", round ")
            seed = row.get("labels_seed", row["seed"])
            what = _teachers(row), row["model"], row["steps"]
            # Of several rows, the last counts.
            key = begin, row["labels"], number, seed, *what
            rounds.setdefault(key, {})[network] = row
    lines = [
        (
            BEGUN_WITH[begin],
            f"{labels:,}",
            number,
            str(seed),
            f"{teachers} of round {int(number[0]) - 1}" if teachers else "",
            f"{len(rows)} {model}" if len(rows) > 1 else model,
            f"{steps:,}",
            ", ".join(f"{100 * _accuracy(row):.1f}" for row in rows.values()),
            ", ".join(map(_seconds, rows.values())),
            ", ".join(sorted({row["date"] for row in rows.values()})),
        )
        for (
            (begin, labels, number, seed, teachers, model, steps),
            rows,
        ) in sorted(rounds.items())
    ]
    heading = (
        *("begun with", "labels", "round", "seed", "learns from", "network"),
        *("steps", "right, %", "seconds of the processor", "date"),
    )
    return markdown(heading, lines) + "\n"


def _accuracy(row):
    """Of the student, after finetuning if there was any."""
    finetuned = row["accuracy_finetuned"]
    return row["accuracy"] if finetuned is None else finetuned


def _seconds(row):
    seconds = row["train_cpu_seconds"]
    return "unknown" if seconds is None else f"{seconds:,.0f}"


def measure(name, settings, *, teachers, select):
    """Trains one network, labels all images, evaluates; returns its row.

    A student of Reduced Meta Pseudo Labels is finetuned and labels nothing.

    Args:
      name: of the row.
      settings: its `Config`, with the folder that it is kept in.
      teachers: [`Config`] of the round before.
      select: see `control_runs.measure`.
    """
    keras.backend.clear_session()
    checkpoints = pathlib.Path(settings.output_dir, FOLDER)
    went_on = not settings.reset_output_dir and any(checkpoints.glob("*.index"))
    start, cpu_start = time.monotonic(), time.process_time()
    build = control_runs.PoolExperiment if select else Experiment
    experiment = build(settings)
    experiment.train()
    if settings.method != "mpl":
        experiment.cache_labels()
    seconds = time.monotonic() - start, time.process_time() - cpu_start
    if settings.method == "mpl":
        experiment.finetune()
    row = control_runs.row(
        name,
        settings,
        learned=len(experiment.data.labeled_images),
        accuracies={"finetuned": None, "teacher": None} | experiment.evaluate(),
        seconds=seconds,
        split=control_rows.VALIDATION if select else control_rows.TEST,
        teacher=teachers[0] if teachers else None,
    )
    if teachers:
        row["teachers"] = len(teachers)
    if went_on:  # The time of the earlier part is unknown.
        row |= {"train_seconds": None, "train_cpu_seconds": None}
    return row


if __name__ == "__main__":
    main()
