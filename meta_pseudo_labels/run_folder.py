"""The folder of a run: which one it is, and whose settings it holds."""

import dataclasses
import json
import os
import shutil

from absl import logging

from meta_pseudo_labels.checkpoint_files import BEST_FOLDER, FOLDER
from meta_pseudo_labels.config_evaluation import Evaluation
from meta_pseudo_labels.config_inference import Inference
from meta_pseudo_labels.config_machine import Machine
from meta_pseudo_labels.files import LOCK, SCRATCH, write_whole
from meta_pseudo_labels.settings import ConfigError

HPARAMS = "hparams.json"
LABELED = "labeled.json"
CLASS_DISTRIBUTIONS = "class_distributions.npz"
TEACHER_LABELS = "teacher_labels.json"
DONE = "done"
EVALS, ACCURACY = "evals", "acc"
FINETUNE = "finetune"
INFERENCE = "inference"
EVAL, EVAL_REPORT = "eval.json", "eval_report.json"
EVAL_CONFUSION, EVAL_RELIABILITY = "eval_confusion.png", "eval_reliability.png"
EVAL_SOURCES = "eval_sources"

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
    "data.json",
    "views.png",
    "diagnosis.json",
    "diagnosis.png",
    CLASS_DISTRIBUTIONS,
    TEACHER_LABELS,
    LABELED,
    HPARAMS,
)

# What a run writes before its settings say that it is one.
_BEFORE_SETTINGS = (LABELED, TEACHER_LABELS)

FINETUNING_SETTINGS = frozenset(
    {
        "finetune_lr",
        "finetune_steps",
        "finetune_batch_size",
        "finetune_batch_norm",
        "finetune_patience",
        "finetune_eval_every",
    }
)

# What may change between the stages of a run, without making it another run.
# Not load_checkpoint: a run that began elsewhere would be another one.
FREE_SETTINGS = frozenset(
    {
        "task_mode",
        "output_dir",
        "eval_batch_size",
        *(field.name for field in dataclasses.fields(Evaluation)),
        *(field.name for field in dataclasses.fields(Inference)),
        *FINETUNING_SETTINGS,
        "export_keras",
        "export_litert",
        "diagnose_batches",
        "diagnose_draws",
        "diagnose_lr",
        "save_every",
        "max_to_keep",
        "stop_after_bad_steps",
        "from_checkpoint",
        "allow_hparam_change",
        "progress",
        "data_dir",
        "labeled_dir",
        "unlabeled_dir",
        "eval_dir",
        "strict_data",
        "data_service",
        "teacher_labels",  # Where they are, not whether there are any.
        "reset_output_dir",
        # A run may go on on other machines.
        *(field.name for field in dataclasses.fields(Machine)),
    }
)


def require_output_dir(config, *, must_exist=False):
    """The run's folder.

    Raises:
      ConfigError: where none is given, one that must be there is not, or it
        cannot be written to.
    """
    path = config.output_dir
    if not path:
        raise ConfigError(
            "--output_dir is missing: name the folder of the run, for example "
            "--output_dir=runs/digits_mpl."
        )
    if "://" in path:
        raise ConfigError(
            f"--output_dir={path}: runs are written to folders of a file "
            "system, which locks and moves files. Name one, also a network's, "
            "and copy it to the bucket afterwards (tpu/fetch.sh does so)."
        )
    if set(os.path.realpath(path)) & set("*?[]\\"):
        raise ConfigError(
            f"--output_dir={path}: TensorFlow takes *, ?, [, ] and \\ for "
            "patterns of names and would touch other folders; name one "
            "without them."
        )
    nearest = path
    while not os.path.exists(nearest):
        nearest = os.path.dirname(nearest) or "."
    if not os.path.isdir(nearest):
        raise ConfigError(
            f"--output_dir={path}: {nearest} is a file; name a folder."
        )
    if not os.access(nearest, os.W_OK):
        raise ConfigError(
            f"--output_dir={path}: you may not write to {nearest}; name "
            "another folder."
        )
    if must_exist and not os.path.isdir(path):
        raise ConfigError(
            f"--output_dir={path} does not exist: train there first, with "
            "--task_mode=train."
        )
    return path


def saved_settings(output_dir):
    """The settings of the run in a folder, a dict; empty where there is none.

    Raises:
      ConfigError: where its hparams.json cannot be read.
    """
    path = os.path.join(output_dir or "", HPARAMS)
    if not output_dir or not os.path.exists(path):
        return {}
    try:
        with open(path) as file:
            settings = json.load(file)
        if not isinstance(settings, dict):
            raise ValueError(f"it holds a {type(settings).__name__}")
        return settings
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read as the settings of a run: {error}"
        ) from error


def save_settings(config):
    """Writes all settings to hparams.json, as those of a run to go on with.

    reset_output_dir and allow_hparam_change are about the folder as it was; a
    later stage that took them from the file would not check what it finds.
    """
    settings = dataclasses.replace(
        config, reset_output_dir=False, allow_hparam_change=False
    )
    write_whole(os.path.join(config.output_dir, HPARAMS), settings.to_json())


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


def check_same_training(config):
    """Refuses to go on with a run under settings other than its own.

    With allow_hparam_change it warns of them.

    Raises:
      ConfigError: with each setting that differs from the saved ones.
    """
    saved = saved_settings(config.output_dir)
    differences = []
    for field in dataclasses.fields(config):
        now = getattr(config, field.name)
        before = saved.get(field.name, now)
        if before != now and not _may_change(field.name, before, now):
            differences.append(f"{field.name} was {before}, is now {now}")
    if not differences:
        return
    text = (
        f"{config.output_dir} holds a run with other settings: "
        f"{'; '.join(differences)}."
    )
    if not config.allow_hparam_change:
        raise ConfigError(
            f"{text} Use these (is the --flagfile there?) or another "
            "--output_dir; --allow_hparam_change goes on with what is given."
        )
    logging.warning("%s It goes on with what is given.", text)


def mark_done(config):
    """Writes the file `done`, as the release does when a run has ended."""
    text = f"{config.num_train_steps} steps\n"
    write_whole(os.path.join(config.output_dir, DONE), text)


def is_done(config):
    """Whether training has ended at its last step."""
    return os.path.exists(os.path.join(config.output_dir, DONE))


def mark_not_done(config):
    """Removes the file `done` of a run that goes on."""
    _delete(os.path.join(config.output_dir, DONE))


def _may_change(name, before, now):
    if name == "teacher_labels":  # Its content is checked where it is read.
        return bool(before) == bool(now)
    return name in FREE_SETTINGS
