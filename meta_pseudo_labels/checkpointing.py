"""Checkpoints of a run: everything that the next step depends on."""

import os
import re

import tensorflow as tf

_FOLDER = "checkpoints"


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or of another model."""


def checkpoint_manager(learner, output_dir, *, max_to_keep=3):
    """TensorFlow's manager over a learner's whole state.

    That is student, teacher, averages, both optimizers, the step and the
    feedback's baseline. Input needs no state: it is a function of the step.

    Args:
      learner: a compiled `Learner`.
      output_dir: folder of the run; checkpoints go to a folder within.
      max_to_keep: older ones are deleted.
    """
    return tf.train.CheckpointManager(
        _checkpoint(learner),
        os.path.join(output_dir, _FOLDER),
        max_to_keep=max_to_keep,
        checkpoint_name="step",
    )


def _checkpoint(learner):
    # By itself TensorFlow does not find the states of random seeds (dropout),
    # which Keras keeps in objects that are no layers.
    counters = [v for v in learner.variables if "float" not in v.dtype]
    return tf.train.Checkpoint(learner=learner, counters=counters)


def restore_latest(manager):
    """Restores the newest checkpoint, if there is one.

    Args:
      manager: see `checkpoint_manager`.

    Returns:
      The step of the checkpoint, or None where there is none.

    Raises:
      CheckpointError: where the checkpoint cannot be read, or any variable is
        in the checkpoint and not in the learner, or the other way round.
    """
    path = manager.latest_checkpoint
    if path is None:
        return None
    _restore(manager.checkpoint, path)
    return int(manager.checkpoint.learner.step.numpy())


def find_checkpoint(path):
    """The name, without ending, of the checkpoint that a user's path means.

    Args:
      path: of a checkpoint, with or without an ending such as ".index"; of a
        folder, for its latest; or of a run, for that in its checkpoints/.

    Raises:
      CheckpointError: where there is none.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        folders = (path, os.path.join(path, _FOLDER))
        found = [tf.train.latest_checkpoint(f) for f in folders]
        prefix = next((f for f in found if f), None)
    else:
        prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)
    if prefix is None or not os.path.exists(f"{prefix}.index"):
        where = f"no {prefix}.index" if prefix else "no checkpoint in it"
        raise CheckpointError(
            f"{path} is no TensorFlow checkpoint: there is {where}. Name one "
            "such as folder/ckpt-1000, or a folder that has one."
        )
    return prefix


def is_own_checkpoint(prefix):
    """Whether a checkpoint is one of ours, not of TF1."""
    try:
        names = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    except (tf.errors.OpError, RuntimeError, ValueError):
        return False  # Whoever loads it says what is wrong with it.
    return "_CHECKPOINTABLE_OBJECT_GRAPH" in names


def restore(learner, path, *, restart=False):
    """Restores a checkpoint of another run of ours.

    Args:
      learner: a compiled `Learner`.
      path: see `find_checkpoint`.
      restart: whether to count steps from 0 again.

    Raises:
      CheckpointError: as `restore_latest`.
    """
    _restore(_checkpoint(learner), find_checkpoint(path))
    if restart:
        learner.set_step(0)


def _restore(checkpoint, path):
    try:
        status = checkpoint.restore(path).expect_partial()
        status.assert_consumed()
    except tf.errors.OpError as error:
        raise CheckpointError(
            f"The checkpoint {path} cannot be read: {_first_line(error)} Train "
            "again in another --output_dir."
        ) from error
    except (AssertionError, ValueError) as error:
        raise CheckpointError(
            f"The checkpoint {path} is of another model or method: "
            f"{_first_line(error)} Give the settings that the run was trained "
            "with (see hparams.json there), or another --output_dir."
        ) from error


def save_weights(model, path):
    """Writes a Keras model's weights, whole or not at all."""
    folder, name = os.path.split(path)
    scratch = os.path.join(folder, f"part-{name}")  # Keras wants the ending.
    model.save_weights(scratch)
    os.replace(scratch, path)


def load_weights(model, path):
    """Reads a Keras model's weights.

    Raises:
      CheckpointError: where the file is damaged or of another model.
    """
    try:
        model.load_weights(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as weights of {model.name!r}: "
            f"{_first_line(error)} Delete it, and finetune again."
        ) from error


def _first_line(error):
    return str(error).strip().split("\n")[0][:200]
