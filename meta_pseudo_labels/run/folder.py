"""The folder of a run: which one it is, and whose settings it holds."""

import dataclasses
import json
import os

from absl import logging

from meta_pseudo_labels.run.config.evaluation import Evaluation
from meta_pseudo_labels.run.config.inference import Inference
from meta_pseudo_labels.run.config.machine import Machine
from meta_pseudo_labels.utils.files import write_whole
from meta_pseudo_labels.utils.settings import ConfigError

HPARAMS = "hparams.json"
LABELED = "labeled.json"
DATA = "data.json"
VIEWS = "views.png"
CLASS_DISTRIBUTIONS = "class_distributions.npz"
TEACHER_LABELS = "teacher_labels.json"
DONE = "done"
EVALS, ACCURACY = "evals", "acc"
FINETUNE = "finetune"
INFERENCE = "inference"
EVAL, EVAL_REPORT = "eval.json", "eval_report.json"
EVAL_CONFUSION, EVAL_RELIABILITY = "eval_confusion.png", "eval_reliability.png"
EVAL_SOURCES = "eval_sources"

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
    if is_done(config):
        os.remove(os.path.join(config.output_dir, DONE))


def _may_change(name, before, now):
    if name == "teacher_labels":  # Its content is checked where it is read.
        return bool(before) == bool(now)
    return name in FREE_SETTINGS
