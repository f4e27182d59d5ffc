"""Rows of control runs: one JSON object a line, self-describing.

A row tells which run it was (`run`, `dataset`, `labels`, `seed`), its results
(`accuracy` of the student, `accuracy_finetuned`, `accuracy_teacher`, as shares
of the images of `split`), its cost (`train_seconds`; `train_cpu_seconds`, of
all threads, in newer rows; null for a run that was stopped and continued), and
everything it came from (`settings`, those of a fixed teacher,
`teacher_settings`, `revision`, `versions`, `machine`, `date`).
Of `labels`, the networks learn from `labels_learned`: those whose class is
known and that no split holds out. Rows of students of several networks also
give their number, `teachers` (1 in older rows), and the seed that drew the
labels, `labels_seed`, because `settings` only record that a file chose them.
"""

import dataclasses
import json
import os

from meta_pseudo_labels import Config
from meta_pseudo_labels.data import LABEL_SUBSETS
from meta_pseudo_labels.learners.settings import StepSettings
from meta_pseudo_labels.run.config.core import free_settings
from meta_pseudo_labels.run.config.machine import MachineSettings
from meta_pseudo_labels.run.config.unread import unread_settings

TEST, VALIDATION = "test", "validation"

# Settings of where and how a run is done, which do not affect its result.
_PLACES = (
    "task_mode",
    "output_dir",
    "reset_output_dir",
    "data_dir",
    "progress",
    "log_every",
    "save_every",
    *sorted(free_settings(MachineSettings, StepSettings)),
)
# Prefixes of the names of settings that no trained network depends on.
_NO_MATTER = ("diagnose_", "eval_batch_size")
# Files of initial weights: the folder is specific to this machine, the name is
# not.
FIRST_WEIGHTS = ("student_weights", "teacher_weights")
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Config)}


def read(path):
    """The rows of a file, in its order; none if there is no file.

    Raises:
      ValueError: for a line that is not JSON, with its number.
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(
        path.read_text(encoding="utf-8").splitlines(), start=1
    ):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}: {error}; a run was cut off while "
                "writing it. Remove the line."
            ) from error
    return rows


def append(row, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def recorded_settings(config):
    """What a row records of a `Config`: all but places on this machine."""
    settings = dataclasses.asdict(config)
    kept = {name: _DEFAULTS[name] for name in _PLACES if name in _DEFAULTS}
    # Which file it was is specific to this machine, but a file makes it another
    # method.
    if settings["teacher_labels"]:
        kept["teacher_labels"] = "given"
    kept["label_subset"] = _subset(settings)
    for name in FIRST_WEIGHTS:
        if settings[name]:
            kept[name] = os.path.basename(settings[name])
    return settings | kept


def recipe(settings):
    """What a result depends on besides the seed: a comparable value.

    Settings missing from a row were added later: their defaults applied then.
    Settings that its method does not read do not count.

    Args:
      settings: a dict as in a row, or `dataclasses.asdict` of a `Config`.
    """
    known = _DEFAULTS | settings
    known |= {name: bool(known[name]) for name in FIRST_WEIGHTS}
    known["teacher_labels"] = bool(known["teacher_labels"])
    known["label_subset"] = _subset(known)
    unread = unread_settings(known)
    if known["method"] == "pseudo_labels":  # Always given; old rows lack it.
        unread["teacher_labels"] = "given"
    kept = {
        name: value
        for name, value in known.items()
        if name not in ("seed", *_PLACES, *unread)
        and not name.startswith(_NO_MATTER)
    }
    return json.dumps(kept, sort_keys=True)


def _subset(settings):
    """How labels were chosen; a file's path is specific to this machine."""
    subset = settings["label_subset"]
    return subset if subset in LABEL_SUBSETS else "given"


def split_of(row):
    """ "test", or "validation" if images of the pool were classified."""
    return row.get("split", TEST)


def find(rows, run, settings, *, split=TEST, teacher=None):
    """The rows of a run with these settings, its seed included.

    Args:
      rows: see `read`.
      run: its name.
      settings: a `Config`.
      split: of the images that were classified.
      teacher: `Config` of the fixed teacher, if the run learns from one. Old
        rows, which do not record theirs, count as having this one.
    """
    wanted = recipe(dataclasses.asdict(settings))
    taught = teacher and recipe(dataclasses.asdict(teacher))
    return [
        row
        for row in rows
        if row["run"] == run
        and row["seed"] == settings.seed
        and split_of(row) == split
        and recipe(row["settings"]) == wanted
        and not (
            row.get("teacher_settings")
            and recipe(row["teacher_settings"]) != taught
        )
    ]
