"""The networks that predict, restored from checkpoints."""

import dataclasses
import functools
import os

import numpy as np

from meta_pseudo_labels.data.spec import DATASETS, same_names
from meta_pseudo_labels.learners.build import build_learner, build_model
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.config.core import config_class
from meta_pseudo_labels.run.config.inference import InferenceSettings
from meta_pseudo_labels.run.config.run import OWN_CHECKPOINTS
from meta_pseudo_labels.run.finetuned import (
    finetuned_path,
    finetuned_student,
    is_finetuned,
)
from meta_pseudo_labels.run.folder import LABELED, RunFolder
from meta_pseudo_labels.run.restoring import fitting_learner, restore_learner
from meta_pseudo_labels.utils.checkpoint_files import (
    BEST_FOLDER,
    FOLDER,
    find_checkpoint,
)
from meta_pseudo_labels.utils.files import read_json
from meta_pseudo_labels.utils.plugins import load_plugins
from meta_pseudo_labels.utils.settings import ConfigError, command_for


def check_checkpoints(config):
    """Raises CheckpointError if a path leads to no checkpoint."""
    for name in config.inference_checkpoints:
        if name not in OWN_CHECKPOINTS:
            find_checkpoint(name)


def checkpoint_networks(experiment):
    """The networks that the settings ask for, one for each checkpoint.

    Args:
      experiment: `Experiment`.

    Returns:
      A list of Keras models.

    Raises:
      ConfigError: if there is no such network, or a checkpoint is of a run
        on other images.
      CheckpointError: if a checkpoint is missing, damaged or of another
        model.
    """
    ours, spec = experiment.config, experiment.data.spec
    networks = []
    for name in ours.inference_checkpoints:
        learner, config = _restored(experiment, name)
        if name not in OWN_CHECKPOINTS:
            config = _finetuned_here(learner, name, ours) or config
        networks.append(network_of(learner, config, spec))
    return networks


def network_of(learner, config, spec):
    """A copy of the network that predicts; see `inference_network`.

    The learner's student gets its averaged weights; see `finished_student`.

    Args:
      learner: restored from a checkpoint.
      config: `Config` of its run.
      spec: `DatasetSpec` of the images.

    Raises:
      ConfigError: if the run has no such network.
    """
    wanted = config.inference_network
    if wanted in (None, "finetuned"):
        finetuned = finetuned_student(learner, config, spec)
        if finetuned is not None:
            return finetuned
    if wanted == "finetuned":
        raise ConfigError(
            "--inference_network=finetuned: this checkpoint has no "
            f"{finetuned_path(learner, config)}; finetune first, with "
            f"`{command_for('finetune', config.output_dir)}`."
        )
    if wanted == "teacher":
        if learner.teacher_type(config) is None:
            raise ConfigError(
                "--inference_network=teacher: the run in "
                f"{config.output_dir} trains no teacher that sees images; use "
                "student."
            )
        source = learner.teacher
    else:
        source = learner.finished_student()
    network = build_model(config, spec, role=wanted or "student")
    network.set_weights(source.get_weights())
    return network


def _finetuned_here(learner, name, config):
    """The settings with which this run finetuned a path; None if it did not.

    As with --from_checkpoint, whichever run the path belongs to: evaluation
    and export use that student too.
    """
    config = dataclasses.replace(config, from_checkpoint=name)
    return config if is_finetuned(learner, config) else None


def _restored(experiment, name):
    """A learner restored from a checkpoint, and the settings of its run."""
    config = experiment.config
    if (
        name in OWN_CHECKPOINTS
    ):  # Whatever checkpoint the run was finetuned from last.
        own = dataclasses.replace(config, from_checkpoint=name)
        return experiment.trained_learner(name), own
    path = find_checkpoint(name)
    folder = os.path.dirname(path)
    if os.path.basename(folder) in (FOLDER, BEST_FOLDER):
        folder = os.path.dirname(folder) or "."
    saved = RunFolder(folder).settings()
    is_own = os.path.realpath(folder) == os.path.realpath(config.output_dir)
    if is_own or not saved:
        learner = experiment.trained_learner(path)
        return learner, dataclasses.replace(config, output_dir=folder)
    load_plugins(saved.get("plugins"))
    known = {field.name for field in dataclasses.fields(config_class())}
    known -= {field.name for field in dataclasses.fields(InferenceSettings)}
    other = Config(
        **{key: value for key, value in saved.items() if key in known}
        | {
            "task_mode": config.task_mode,
            "output_dir": folder,
            "inference_network": config.inference_network,
        }
    )
    _check_same_images(other, config)
    build = functools.partial(build_learner, other, experiment.data.spec)
    learner = build(unlabeled=len(experiment.data.unlabeled_images))
    learner = fitting_learner(learner, build, path, folder)
    restore_learner(learner, path, folder)
    return learner, other


def _check_same_images(other, config):
    """Refuses a run whose networks know other classes or see other pixels."""
    theirs, ours = _of_images(other), _of_images(config)
    for name in ours:
        if theirs[name] != ours[name]:
            raise ConfigError(
                f"The run in {other.output_dir} has {name} {theirs[name]}, the "
                f"one in {config.output_dir} {ours[name]}: they cannot predict "
                "together."
            )
    (names, theirs), (our_names, ours) = _facts(other), _facts(config)
    if None not in (names, our_names) and not same_names(names, our_names):
        raise ConfigError(
            f"The runs in {other.output_dir} and {config.output_dir} name "
            "their classes differently, or in another order: they cannot "
            "predict together."
        )
    if None not in (theirs, ours) and not np.allclose(theirs, ours, atol=1e-5):
        raise ConfigError(
            f"The runs in {other.output_dir} and {config.output_dir} normalize "
            "images by different means or deviations: they learned from "
            "different images and cannot predict together."
        )


def _of_images(config):
    """The settings that make classes and pixels, a dict.

    Where none is given, the data set's own, if it is known without loading it.
    """
    own = DATASETS.get(config.dataset)
    return {
        "dataset": config.dataset,
        "image_size": config.image_size or (own and own.image_size),
        "image_fit": config.image_fit,
        "known_classes": config.known_classes or (own and own.num_classes),
    }


def _facts(config):
    """Names of the classes, and mean and deviation, that a run began with.

    Both are None for old runs, which did not record them.
    """
    try:
        facts = read_json(os.path.join(config.output_dir, LABELED))
        return facts.get("class_names"), [facts["mean"], facts["std"]]
    except (
        ArithmeticError,
        AttributeError,
        OSError,
        KeyError,
        TypeError,
        ValueError,
    ):
        return None, None
