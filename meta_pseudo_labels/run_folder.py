"""The folder of a run: which one it is, and whose settings it holds."""

import dataclasses
import json
import os

from meta_pseudo_labels.config import ConfigError

HPARAMS = "hparams.json"

# What may change between the stages of a run, without making it another run.
FREE_SETTINGS = frozenset(
    {
        "task_mode",
        "output_dir",
        "eval_batch_size",
        "finetune_lr",
        "finetune_steps",
        "finetune_batch_size",
        "save_every",
        "progress",
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
    """Writes all settings to hparams.json."""
    write_whole(os.path.join(config.output_dir, HPARAMS), config.to_json())


def check_same_training(config):
    """Refuses to go on with a run under settings other than its own.

    Raises:
      ConfigError: with each setting that differs from the saved ones.
    """
    saved = saved_settings(config.output_dir)
    differences = []
    for field in dataclasses.fields(config):
        now = getattr(config, field.name)
        before = saved.get(field.name, now)
        if field.name not in FREE_SETTINGS and before != now:
            differences.append(f"{field.name} was {before}, is now {now}")
    if differences:
        raise ConfigError(
            f"{config.output_dir} holds a run with other settings: "
            f"{'; '.join(differences)}. Use these (is the --flagfile there?) "
            "or another --output_dir."
        )


def write_whole(path, text):
    """Replaces a file, whole or not at all."""
    scratch = f"{path}.part"
    with open(scratch, "w") as file:
        file.write(text)
    os.replace(scratch, path)
