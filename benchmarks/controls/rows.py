"""Rows of control runs: one JSON object a line, self-describing.

A row says which run it was (`run`, `dataset`, `labels`, `seed`), what came out
(`accuracy` of the student, `accuracy_finetuned`, `accuracy_teacher`, shares of
the images of `split`), its cost (`train_seconds`; `train_cpu_seconds`, of all
threads, in newer rows; null for a stopped run that went on), and all that it
came from (`settings`, those of a fixed teacher, `teacher_settings`, `revision`,
`versions`, `machine`, `date`).
Of `labels` the networks learn `labels_learned`: those whose class is known and
that no split holds out. Students of several networks say of how many,
`teachers` (1 in older rows), and by which seed their labels were drawn,
`labels_seed`, as `settings` only know that a file chose them.
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

# Settings that say where and how a run is done, not what comes out of it.
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
# Beginnings of the names of those that no trained network depends on.
_NO_MATTER = ("diagnose_", "eval_batch_size")
# Files of first weights: their place is this machine's, their name is not.
FIRST_WEIGHTS = ("student_weights", "teacher_weights")
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Config)}


def read(path):
    """The rows of a file, in its order; none where there is no file.

    Raises:
      ValueError: for a line that is no JSON, with its number.
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
                f"{path}, line {number}: {error}; a run was cut off while it "
                "wrote. Remove the line."
            ) from error
    return rows


def append(row, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def recorded_settings(config):
    """What a row records of a `Config`: all, without this machine's places."""
    settings = dataclasses.asdict(config)
    kept = {name: _DEFAULTS[name] for name in _PLACES if name in _DEFAULTS}
    # Which file it was is this machine's; that there was one is another method.
    if settings["teacher_labels"]:
        kept["teacher_labels"] = "given"
    kept["label_subset"] = _subset(settings)
    for name in FIRST_WEIGHTS:
        if settings[name]:
            kept[name] = os.path.basename(settings[name])
    return settings | kept


def recipe(settings):
    """What came to bear on a result beside the seed: a comparable value.

    Settings that a row does not know came later: they had their default then.
    Those that its method does not read do not count.

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
    """How labels were chosen: a file's path is this machine's alone."""
    subset = settings["label_subset"]
    return subset if subset in LABEL_SUBSETS else "given"


def split_of(row):
    """ "test", or "validation" where images of the pool were classified."""
    return row.get("split", TEST)


def find(rows, run, settings, *, split=TEST, teacher=None):
    """The rows of a run with these settings, its seed included.

    Args:
      rows: see `read`.
      run: its name.
      settings: a `Config`.
      split: of the images that were classified.
      teacher: `Config` of the fixed teacher, where it learns from one. Old
        rows, which do not know theirs, count as of this one.
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
