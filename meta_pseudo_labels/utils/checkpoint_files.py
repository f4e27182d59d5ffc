"""Checkpoint files: where they are, whose they are, and whether intact."""

import errno
import hashlib
import math
import os
import re
import shutil

import tensorflow as tf

from meta_pseudo_labels.utils.deleting import delete
from meta_pseudo_labels.utils.files import replaces

FOLDER = "checkpoints"  # Within the folder of a run.
BEST_FOLDER = "best"
NAME = "step"  # The part of a checkpoint's name before its step.

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # A tensor that TF1 does not write.
# TensorFlow's: a folder of half-written files, a half-written index, and a
# half-written list of checkpoints.
_SCRATCH = re.compile(
    rf"{NAME}-\d+(_temp|.*\.tempstate\d+.*)|checkpoint\.tmp[0-9a-f]{{32}}"
)
# TensorFlow's reader turns some of its own errors into errors of Python.
READER_ERRORS = (tf.errors.OpError, IndexError, RuntimeError, ValueError)


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or of another model."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint whose files cannot be read."""


def checkpoint_paths(folder):
    """The checkpoints in a folder, sorted by step, without their suffixes."""
    if not os.path.isdir(folder):
        return []
    found = (
        re.fullmatch(rf"({NAME}-\d+)\.index", f) for f in os.listdir(folder)
    )
    paths = [os.path.join(folder, match[1]) for match in found if match]
    return sorted(paths, key=step_of)


def step_of(path):
    return int(path.rpartition("-")[2])


def remove_scratch(folder):
    """Removes what an interrupted save left behind.

    Raises:
      ConfigError: see `deleting.delete`.
    """
    if not os.path.isdir(folder):
        return
    names = os.listdir(folder)

    def is_scratch(name):
        data = re.fullmatch(rf"({NAME}-\d+)\.data-\d+-of-\d+", name)
        return _SCRATCH.fullmatch(name) or (
            data and f"{data[1]}.index" not in names
        )

    delete(*[os.path.join(folder, name) for name in filter(is_scratch, names)])


def find_checkpoint(path):
    """The name, without suffix, of the checkpoint that a user's path means.

    Args:
      path: of a checkpoint, with or without a suffix such as ".index"; of a
        folder, for its latest; or of a run, for the latest in its checkpoints/.

    Raises:
      CheckpointError: if there is none.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        folders = (path, os.path.join(path, FOLDER))
        prefix = next(filter(None, map(_latest, folders)), None)
    else:
        prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)
    if prefix is None or not os.path.exists(f"{prefix}.index"):
        where = f"no {prefix}.index" if prefix else "no checkpoint in it"
        raise CheckpointError(
            f"{path} is not a TensorFlow checkpoint: there is {where}. Name "
            "one, such as folder/ckpt-1000, or a folder that has one."
        )
    return prefix


def _latest(folder):
    """The latest checkpoint of a folder; None if there is none."""
    own = checkpoint_paths(folder)  # For others, TensorFlow's list must do.
    return own[-1] if own else tf.train.latest_checkpoint(folder)


def is_own_checkpoint(prefix):
    """Whether a checkpoint is one of ours, not from TF1."""
    try:
        names = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    except READER_ERRORS:
        return False  # Loading it will tell what is wrong with it.
    return _GRAPH in names


def check_readable(prefix):
    """Reads the description of itself that our checkpoints hold.

    Raises:
      DamagedCheckpoint: if that cannot be read.
    """
    try:
        tf.train.load_checkpoint(prefix).get_tensor(_GRAPH)
    except READER_ERRORS as error:
        raise damaged(prefix, error) from error


def damaged(prefix, error):
    """The error to raise for a checkpoint that cannot be read."""
    return DamagedCheckpoint(
        f"The checkpoint {prefix} cannot be read: {first_line(error)}"
    )


def save_weights(model, path):
    """Writes a Keras model's weights, whole or not at all.

    Raises:
      OSError: if there is no room.
    """
    folder, name = os.path.split(path)
    # HDF5 does not tolerate a disk that fills up while it writes.
    needed = 2**20 + 2 * sum(8 * math.prod(w.shape) for w in model.weights)
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    # Keras requires the suffix.
    with replaces(
        path, scratch=os.path.join(folder, f"part-{name}")
    ) as scratch:
        model.save_weights(scratch)


def load_weights(model, path):
    """Reads a Keras model's weights.

    Raises:
      CheckpointError: if the file is damaged or of another model.
    """
    try:
        model.load_weights(path)
    except Exception as error:  # Damaged files raise errors of any class.
        raise CheckpointError(
            f"{path} cannot be read as weights of {model.name!r}: "
            f"{first_line(error)} Delete it, and finetune again."
        ) from error


def weights_digest(*models):
    """A hash of the weights of Keras models, whatever file they came from."""
    hashed = hashlib.sha256()
    for model in models:
        for weights in model.get_weights():
            hashed.update(weights.tobytes())
    return hashed.hexdigest()


def files_digest(*paths):
    """A hash of the contents of those files that exist."""
    hashed = hashlib.sha256()
    for path in filter(os.path.exists, paths):
        with open(path, "rb") as file:
            hashed.update(file.read())
    return hashed.hexdigest()


def first_line(error):
    return str(error).strip().split("\n")[0][:200]
