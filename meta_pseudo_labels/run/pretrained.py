"""Weights that the networks of a run begin with, and where they are."""

import contextlib
import dataclasses
import glob
import json
import os
import re

import tensorflow as tf
from absl import logging

from meta_pseudo_labels import models
from meta_pseudo_labels.learners.build import sees
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.models.pretrained import (
    check_weights_file,
    load_arrays,
    plain_name,
)
from meta_pseudo_labels.run.checkpoints import unescaped
from meta_pseudo_labels.run.folder import WEIGHTS, RunFolder, resets
from meta_pseudo_labels.run.labeled_choice import has_classes
from meta_pseudo_labels.utils.checkpoint_files import (
    BEST_FOLDER,
    FOLDER,
    check_readable,
    checkpoint_paths,
    files_digest,
    find_checkpoint,
    step_of,
)
from meta_pseudo_labels.utils.files import is_inside, write_whole
from meta_pseudo_labels.utils.settings import ConfigError

_ROLES = ("student", "teacher")
_OF_PRESET = "model.weights.h5"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def check_weights(config):
    """Looks for the weights that a first start would read.

    Args:
      config: `Config` of the run.

    Raises:
      ConfigError: if there are none, or the reset would delete them.
    """
    output_dir = config.output_dir
    begun = checkpoint_paths(os.path.join(output_dir, FOLDER))
    if begun and not resets(config):
        return
    for role, path in _given(config):
        flag = f"{role}_weights"
        with _named(role, path):
            _find(path, _model_type(config, role))
            _check_pixels(path, config, role)
        if resets(config) and is_inside(path, output_dir):
            raise ConfigError(
                f"--{flag}={path} is in the folder that --reset_output_dir "
                "would empty: name another --output_dir, or say "
                "--noreset_output_dir."
            )


def load_first_weights(learner, config, class_names=()):
    """Gives new networks the weights that they begin with.

    The student's moving average begins with them too. What was read is logged.

    Args:
      learner: a compiled `Learner`.
      config: `Config` of the run.
      class_names: of the run, in the order of their numbers; () if unknown.

    Returns:
      What `save_reports` takes: a dict from role to `WeightsReport`.

    Raises:
      ConfigError: if a file cannot be read, or is of another network.
    """
    reports = {}
    for role, path in _given(config):
        network = getattr(learner, role, None)
        if network is None:
            continue
        model_type = _model_type(config, role)
        with _named(role, path):
            reports[role] = _load(
                network,
                _find(path, model_type),
                model_type,
                same_classes=has_classes(path, class_names),
            )
        logging.warning(
            "--%s_weights=%s: %s It sees pixels as with --preprocessing=%s.",
            role,
            path,
            reports[role],
            sees(dataclasses.asdict(config), role, model_type),
        )
        if reports[role].head and config.optim_type == "lars":
            logging.warning(
                "--optim_type=lars takes the first step of a head that begins "
                "at 0 at the full rate, as a norm of 0 cannot scale it; other "
                "optimizers do not."
            )
    _tell_of_fresh_ones(config)
    if "student" in reports and learner.student_ema is not None:
        learner.student_ema.reset(learner.student)
    return reports


def _tell_of_fresh_ones(config):
    """Warns of networks of a preset that begin without its weights."""
    teacher = LEARNERS[config.method].teacher_type(config)
    for role, model_type in (
        ("student", config.model_type),
        ("teacher", teacher),
    ):
        preset = model_type and models.preset_of(model_type)
        begun = getattr(config, f"{role}_weights") or config.load_checkpoint
        if preset and not begun:
            logging.warning(
                "The %s begins with fresh weights; those of the preset are "
                "--%s_weights=%s.",
                role,
                role,
                preset,
            )


def save_reports(output_dir, reports):
    """Writes what was read, if anything was."""
    if reports:
        text = {role: dataclasses.asdict(r) for role, r in reports.items()}
        path = RunFolder(output_dir).path(WEIGHTS)
        write_whole(path, json.dumps(text, indent=2) + "\n")


def _given(config):
    """(role, path) of each role that has a path."""
    paths = [(role, getattr(config, f"{role}_weights")) for role in _ROLES]
    return [(role, path) for role, path in paths if path]


def _model_type(config, role):
    teacher = config.teacher_model_type if role == "teacher" else None
    return teacher or config.model_type


@contextlib.contextmanager
def _named(role, path):
    """Names the flag in errors of the library."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"--{role}_weights={path}: {error}") from error


def _is_of_keras(path):
    """Whether `models.pretrained_network` accepts a path."""
    return (
        path == "imagenet"
        or models.is_preset(path)
        or (path.endswith(".h5") and not path.endswith(".weights.h5"))
    )


def _check_pixels(path, config, role):
    """Refuses weights that were learned from other or unknown pixels.

    Raises:
      ValueError: with the message.
    """
    ours = sees(dataclasses.asdict(config), role, _model_type(config, role))
    if ours == "network":
        models.check_pixels(_model_type(config, role))
    up = os.path.dirname(os.path.dirname(path))
    theirs = RunFolder(path if os.path.isdir(path) else up or ".").settings()
    if "model_type" not in theirs or _is_of_keras(path):
        return
    saw = sees(theirs, "student", _model_type(config, role))
    if saw != ours:
        raise ValueError(
            f"the student of that run saw pixels in another form; give "
            f"--preprocessing={saw} too."
        )


def _find(path, model_type):
    """The file of weights that a path means, or a checkpoint's prefix.

    Raises:
      ValueError: if there is none.
    """
    if _is_of_keras(path):
        models.check_pretrained(model_type, path)
        return path
    folder = path if os.path.isdir(path) else None
    if folder is None and os.path.exists(f"{path}.index"):
        return path
    if folder is None:
        check_weights_file(path)
        return path
    best = checkpoint_paths(os.path.join(folder, BEST_FOLDER))
    latest = checkpoint_paths(os.path.join(folder, FOLDER))
    for checkpoint in latest[-1:] + best[-1:]:
        # Not what was finetuned before training went on.
        finetuned = RunFolder(folder).finetuned_path(step_of(checkpoint))
        if os.path.exists(finetuned):
            return finetuned
    return best[-1] if best else find_checkpoint(folder)


def _load(network, path, model_type, *, same_classes):
    if _is_of_keras(path):
        donor = models.pretrained_network(
            model_type, path, input_shape=network.input_shape[1:]
        )
        report = models.load_weights(network, donor)
        file = os.path.join(path, _OF_PRESET) if os.path.isdir(path) else path
        digest = files_digest(file) if os.path.isfile(file) else report.sha256
        return dataclasses.replace(report, source=path, sha256=digest)
    if os.path.isfile(path):
        return models.load_weights(network, path, same_classes=same_classes)
    files = sorted(glob.glob(f"{glob.escape(path)}.*"))
    return load_arrays(
        network,
        _student_of(path),
        source=path,
        sha256=files_digest(*files),
        same_classes=same_classes,
    )


def _student_of(prefix):
    """(name, array) of a checkpoint's student, of its average if it has one.

    Raises:
      ValueError: if it is damaged, or has no student.
    """
    check_readable(prefix)
    reader = tf.train.load_checkpoint(prefix)
    found = {"average": [], "student": []}
    for key, dtype in reader.get_variable_to_dtype_map().items():
        name = unescaped(key.removesuffix(_VALUE))
        part = re.fullmatch(r"state/(average|student)/(\d+)/(.*)", name)
        if part and dtype.is_floating:
            plain = plain_name(part[3]).removeprefix("student_ema.")
            found[part[1]].append((int(part[2]), plain, key))
    named = found["average"] or found["student"]
    if not named:
        raise ValueError(f"{prefix} is not a checkpoint of a run of ours.")
    return [(name, reader.get_tensor(key)) for _, name, key in sorted(named)]
