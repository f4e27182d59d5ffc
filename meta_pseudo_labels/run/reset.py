"""Resets a run: deletes what it wrote into its folder, and nothing else."""

import os
import shutil

from meta_pseudo_labels.run.folder import (
    ACCURACY,
    CLASS_DISTRIBUTIONS,
    DATA,
    DONE,
    EVAL,
    EVAL_CONFUSION,
    EVAL_RELIABILITY,
    EVAL_REPORT,
    EVAL_SOURCES,
    EVALS,
    FINETUNE,
    HPARAMS,
    INFERENCE,
    LABELED,
    TEACHER_LABELS,
    VIEWS,
    saved_settings,
)
from meta_pseudo_labels.utils.checkpoint_files import BEST_FOLDER, FOLDER
from meta_pseudo_labels.utils.files import LOCK, SCRATCH
from meta_pseudo_labels.utils.settings import ConfigError

# What the stages of a run write into its folder. hparams.json, which tells a
# run from other folders, comes last: a reset that was killed can be repeated.
RUN_FILES = (
    "metrics.jsonl",
    "events",
    FOLDER,
    BEST_FOLDER,
    DONE,
    EVALS,
    ACCURACY,
    FINETUNE,
    INFERENCE,
    EVAL,
    EVAL_REPORT,
    EVAL_CONFUSION,
    EVAL_RELIABILITY,
    EVAL_SOURCES,
    "saved_model",
    DATA,
    VIEWS,
    "diagnosis.json",
    "diagnosis.png",
    CLASS_DISTRIBUTIONS,
    TEACHER_LABELS,
    LABELED,
    HPARAMS,
)

# What a run writes before its settings say that it is one, and what a look at
# its data leaves.
_BEFORE_SETTINGS = (LABELED, TEACHER_LABELS, DATA, VIEWS)


def reset(config):
    """Deletes the run in output_dir, where reset_output_dir asks for it.

    Only before training, and only what runs write (`RUN_FILES`); of a link
    the link alone. The release deletes the folder with all that it holds.

    Raises:
      ConfigError: see `check_reset`; nothing is deleted then.
    """
    check_reset(config)
    if _has_something_to_reset(config):
        for name in RUN_FILES:
            for path in (name + SCRATCH, name):
                _delete(os.path.join(config.output_dir, path))


def check_reset(config):
    """Refuses to reset a folder that is not plainly that of a run.

    Raises:
      ConfigError: for a root, a home, a repository, or a folder that holds
        files, but no run of ours.
    """
    if not _has_something_to_reset(config):
        return
    folder = config.output_dir
    path = os.path.realpath(folder)
    what = None
    if path == os.path.dirname(path):
        what = "is the root of the file system"
    elif path == os.path.realpath(os.path.expanduser("~")):
        what = "is your home"
    elif os.path.exists(os.path.join(path, ".git")):
        what = "is a git repository"
    elif not _is_run(folder):
        what = f"holds files, but no {HPARAMS} of a run"
    if what:
        raise ConfigError(
            f"--reset_output_dir: {folder} {what}, so nothing was deleted. "
            "Empty it yourself or name another --output_dir."
        )


def _is_run(folder):
    """Whether a folder is that of a run, or of one killed as it began."""
    # The release writes a hparams.json too, but knows no such setting.
    if "mpl_feedback" in saved_settings(folder):
        return True
    begun = {*_BEFORE_SETTINGS, *(f + SCRATCH for f in _BEFORE_SETTINGS)}
    return set(os.listdir(folder)) <= begun | {HPARAMS + SCRATCH, LOCK}


def _has_something_to_reset(config):
    folder = config.output_dir
    return (
        config.reset_output_dir
        and config.task_mode == "train"
        and os.path.isdir(folder)
        and bool(set(os.listdir(folder)) - {LOCK})
    )


def _delete(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.remove(path)
