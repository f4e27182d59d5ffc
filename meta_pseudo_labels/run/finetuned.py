"""The finetuned student of a run, and what is noted of how it was made.

Its weights are named after the step and the checkpoint that they come from;
beside them, a file of JSON holds the settings of the finetuning and a hash of
the weights that it began with.
"""

import dataclasses
import json
import os

from absl import logging

from meta_pseudo_labels.learners.build import build_model
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.config.after_training import FinetuningSettings
from meta_pseudo_labels.run.config.core import free_settings
from meta_pseudo_labels.run.config.run import OWN_CHECKPOINTS
from meta_pseudo_labels.run.config.unread import unread_settings
from meta_pseudo_labels.run.folder import RunFolder
from meta_pseudo_labels.utils.checkpoint_files import (
    BEST_FOLDER,
    FOLDER,
    find_checkpoint,
    load_weights,
    weights_digest,
)
from meta_pseudo_labels.utils.deleting import delete
from meta_pseudo_labels.utils.files import read_object, write_whole
from meta_pseudo_labels.utils.settings import ConfigError

# Settings of training that finetuning reads too.
_OF_TRAINING = (
    "batch_norm_batch_size",
    "batch_norm_decay",
    "batch_norm_epsilon",
    "class_weight",
    "crop_padding",
    "dense_dropout_rate",
    "flip",
    "label_sampling",
    "seed",
    "stochastic_depth_drop_rate",
    "use_bfloat16",
)
_BEGAN_WITH = "began_with"  # The key of the hash, beside the settings.


def finetuned_path(learner, config):
    """The path of the student finetuned from a learner's checkpoint.

    However from_checkpoint spells it: all checkpoints of a run that are of one
    step are the same.

    Args:
      learner: restored from a checkpoint.
      config: `Config` of the run, with its from_checkpoint.

    Raises:
      CheckpointError: if from_checkpoint names none.
    """
    folder, source = RunFolder(config.output_dir), config.from_checkpoint
    step = int(learner.step.numpy())
    if source in OWN_CHECKPOINTS:
        return folder.finetuned_path(step, source)
    path = finetuned_from(folder, find_checkpoint(source), step)
    # Named after the source as it was spelled, by earlier versions.
    earlier = folder.finetuned_path(step, source)
    spelled = os.path.exists(earlier) and not os.path.exists(path)
    return earlier if spelled else path


def finetuned_from(folder, checkpoint, step):
    """The path of the student of a run that was finetuned from a checkpoint.

    Args:
      folder: `RunFolder`.
      checkpoint: of this or another run, as `find_checkpoint` returns it.
      step: of the checkpoint.
    """
    own = map(os.path.realpath, map(folder.path, (FOLDER, BEST_FOLDER)))
    is_own = os.path.realpath(os.path.dirname(checkpoint)) in own
    source = "latest" if is_own else checkpoint
    return folder.finetuned_path(step, source)


def is_finetuned(learner, config):
    """Whether there is a student that was finetuned from these weights.

    One finetuned before training continued, or from other weights of the same
    step, does not count.

    Args:
      learner: restored from a checkpoint.
      config: `Config` of the run.

    Raises:
      ConfigError: if the file beside its weights cannot be read.
    """
    path = finetuned_path(learner, config)
    if not os.path.exists(path):
        return False
    with learner.averaged_student() as student:
        began_with = weights_digest(student)
    is_of_these = _noted(path).get(_BEGAN_WITH, began_with) == began_with
    if not is_of_these:
        logging.warning(
            "%s is left out: it was finetuned from other weights of this "
            "step; finetuning makes it anew.",
            path,
        )
    return is_of_these


def finetuned_student(learner, config, spec):
    """The student finetuned from a learner's weights; None if there is none.

    Args:
      learner, config: see `is_finetuned`.
      spec: `DatasetSpec` of its images.
    """
    if not is_finetuned(learner, config):
        return None
    student = build_model(config, spec, role="student")
    load_weights(student, finetuned_path(learner, config))
    return student


def prepare(config, path, began_with):
    """Compares the settings with those of an earlier finetuning.

    Args:
      config: `Config` of the run.
      path: of the finetuned student.
      began_with: hash of the weights that finetuning begins with.

    Returns:
      Whether there is anything to do; if so, nothing is in the way any more.

    Raises:
      ConfigError: if they differ, and allow_hparam_change does not accept that.
    """
    settings, noted = _settings_of(config), _noted(path)
    before = _settings_in(noted, config)
    same = {name: before.get(name) for name in settings} == settings
    if noted and not same and not config.allow_hparam_change:
        raise ConfigError(
            f"{path} was finetuned with other settings: {before}, now "
            f"{settings}. Use those, or --allow_hparam_change to finetune "
            "it again."
        )
    is_of_these = noted.get(_BEGAN_WITH, began_with) == began_with
    if noted and same and is_of_these:
        if os.path.exists(path):
            # A kill may have come before this was deleted.
            delete(unfinished(path))
            return False
    else:  # Their results go before the new settings come.
        if os.path.exists(path) and not noted:
            logging.warning(
                "%s is made anew: %s.json, which said how it was made, is "
                "gone.",
                path,
                path,
            )
        elif not is_of_these:
            logging.warning(
                "%s is made anew: it was finetuned from other weights of this "
                "step.",
                path,
            )
        delete(unfinished(path), path)
    noted = settings | {_BEGAN_WITH: began_with}
    write_whole(f"{path}.json", json.dumps(noted, indent=2) + "\n")
    return True


def unfinished(path):
    """Folder of the checkpoints of a finetuning that has not ended."""
    return path.removesuffix(".weights.h5")


def _noted(path):
    """What the file beside a finetuned student holds; empty without one."""
    if not os.path.exists(f"{path}.json"):
        return {}
    return read_object(
        f"{path}.json",
        "the settings of a finetuning",
        mend="Delete it to finetune again.",
    )


def _settings_of(config):
    """All settings that the outcome of finetuning depends on, by name."""
    unread = unread_settings(dataclasses.asdict(config))
    names = (*sorted(free_settings(FinetuningSettings)), *_OF_TRAINING)
    return {name: getattr(config, name) for name in names if name not in unread}


def _settings_in(noted, config):
    """The settings of an earlier finetuning.

    Any of its own that it lacks had the default; any of training was the run's.
    """
    of_training = {name: getattr(config, name) for name in _OF_TRAINING}
    known = {k: one for k, one in noted.items() if k != _BEGAN_WITH}
    return _settings_of(Config()) | of_training | known
