"""Checkpoints of a run: everything that the next step depends on.

They are TensorFlow's, of copies of all variables: training goes on while one is
written in the background. CheckpointOptions(enable_async=True) would do that
too, but reports a failed write only when the process ends; `sync` does not.
Which checkpoints there are is read from the files on disk, not from the file
`checkpoint`, which may be out of date after a crash.
"""

import concurrent.futures
import glob
import os
import re

import tensorflow as tf
from absl import logging

from meta_pseudo_labels.utils.checkpoint_files import (
    BEST_FOLDER,
    FOLDER,
    NAME,
    READER_ERRORS,
    CheckpointError,
    DamagedCheckpoint,
    check_readable,
    checkpoint_paths,
    damaged,
    first_line,
    remove_scratch,
    step_of,
)
from meta_pseudo_labels.utils.files import is_out_of_room, sync, write_whole


class Checkpoints:
    """The checkpoints of a run, newest last, and separately the best one.

    Args:
      state: the variables to save, a dict by name; see `learner_state`.
      output_dir: folder of the run; checkpoints go to folders in it.
      max_to_keep: how many to keep; older ones are deleted.
    """

    def __init__(self, state, output_dir, *, max_to_keep=3):
        self.folder = os.path.join(output_dir, FOLDER)
        self.best_folder = os.path.join(output_dir, BEST_FOLDER)
        self._max_to_keep = max_to_keep
        self._state = state
        with tf.device("CPU:0"):
            self._copies = {
                name: tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False)
                for name, v in state.items()
            }
            # Of the best checkpoint; below 0 before there is one.
            self._best_accuracy = tf.Variable(-1.0, dtype=tf.float64)
        self._checkpoint = tf.train.Checkpoint(
            state=self._copies, best_accuracy=self._best_accuracy
        )
        self._managers = None
        self._writer = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._writing = None

    def save(self, step, *, accuracy=None):
        """Saves the variables as they are now, in the background.

        Waits if the last one is still being written: one at a time.

        Args:
          step: of the checkpoint.
          accuracy: by which the best one is chosen; None for no choice.

        Raises:
          CheckpointError: if an earlier one could not be written.
        """
        self.wait()
        is_best = accuracy is not None and accuracy > self.best_accuracy
        if is_best:
            self._best_accuracy.assign(accuracy)
        for name, variable in self._state.items():
            self._copies[name].assign(variable)
        self._writing = self._writer.submit(self._write, step, is_best)

    def wait(self):
        """Waits until everything to be saved is on disk.

        Raises:
          CheckpointError: if it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self):
        """Ends the background writing, after finishing what was begun."""
        self._writer.shutdown(wait=True)

    def check(self):
        """Does what `wait` does, but only if there is no need to wait."""
        if self._writing is not None and self._writing.done():
            self.wait()

    @property
    def best_accuracy(self):
        """Of the best checkpoint, in [0, 1]; below 0 if there is none."""
        return float(self._best_accuracy.numpy())

    def paths(self):
        """Paths of the checkpoints, without extension, oldest first."""
        return checkpoint_paths(self.folder)

    def restore_latest(self):
        """Restores the newest checkpoint that is not damaged.

        Returns:
          Its step, or None if there is no checkpoint.

        Raises:
          CheckpointError: if all are damaged, or if any variable is in the
            checkpoint but not here, or vice versa.
        """
        paths = self.paths()
        for path in reversed(paths):
            try:
                self.restore(path)
            except DamagedCheckpoint as error:
                logging.warning("%s The one before it is used.", error)
            else:
                return step_of(path)
        if paths:
            raise DamagedCheckpoint(
                f"None of the checkpoints in {self.folder} can be read. "
                "Restore them, or train again with --reset_output_dir or in "
                "another --output_dir."
            )
        return None

    def restore_best(self):
        """Restores the best checkpoint.

        Returns:
          Its step.

        Raises:
          CheckpointError: as `restore_latest`, or if there is none.
        """
        paths = checkpoint_paths(self.best_folder)
        if not paths:
            raise CheckpointError(
                f"{self.best_folder} has no checkpoint: the best one is kept "
                "if --num_validation holds out images to choose it by, or "
                "with --best_on=test."
            )
        self.restore(paths[-1])
        return step_of(paths[-1])

    def restore(self, path):
        """Restores a checkpoint: all of it or, on an error, nothing.

        Args:
          path: without extension.

        Raises:
          CheckpointError: as `restore_latest`.
        """
        check_readable(path)
        try:
            status = self._checkpoint.restore(path).expect_partial()
            status.assert_consumed()
        except tf.errors.OpError as error:
            raise damaged(path, error) from error
        except (AssertionError, ValueError) as error:
            raise CheckpointError(
                f"The checkpoint {path} is of another model or method: "
                f"{first_line(error)} Give the settings that the run was "
                "trained with (see hparams.json there), or another "
                "--output_dir."
            ) from error
        for name, variable in self._state.items():
            variable.assign(self._copies[name])

    def _write(self, step, is_best):
        """Writes the copies; runs in the background."""
        try:
            if self._managers is None:
                self._managers = (
                    self._manager(self.best_folder, 1),
                    self._manager(self.folder, self._max_to_keep),
                )
            best, latest = self._managers
            if is_best:  # First: the latest one refers to it.
                _sync(best.save(checkpoint_number=step))
            _sync(latest.save(checkpoint_number=step))
        except (OSError, tf.errors.OpError) as error:
            for folder in (self.best_folder, self.folder):
                remove_scratch(folder)
            why = "no room" if is_out_of_room(error) else first_line(error)
            raise CheckpointError(
                f"The checkpoint of step {step} could not be written to "
                f"{self.folder}: {why}. Earlier checkpoints are intact. Fix "
                "that, and start the same command again: it goes on from the "
                "latest one."
            ) from error

    def _manager(self, folder, max_to_keep):
        """TensorFlow's manager, after its file is brought up to date."""
        remove_scratch(folder)
        paths = checkpoint_paths(folder)
        if paths:
            lines = [f'model_checkpoint_path: "{os.path.basename(paths[-1])}"']
            for path in paths:
                written = os.path.getmtime(f"{path}.index")
                lines += [
                    f'all_model_checkpoint_paths: "{os.path.basename(path)}"',
                    f"all_model_checkpoint_timestamps: {written}",
                ]
            text = "\n".join(lines) + "\n"
            write_whole(os.path.join(folder, "checkpoint"), text)
        return tf.train.CheckpointManager(
            self._checkpoint,
            folder,
            max_to_keep=max_to_keep,
            checkpoint_name=NAME,
        )


def saved_shapes(path):
    """The shapes of what a checkpoint holds, by the names in `learner_state`.

    Args:
      path: without extension.

    Returns:
      A dict from name to list of sizes; empty if the file cannot be read.
    """
    try:
        shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    except READER_ERRORS:
        return {}  # Restoring it will tell what is wrong with it.
    found = ((re.fullmatch(r"state/(.+?)/.*", key), key) for key in shapes)
    return {unescaped(match[1]): shapes[key] for match, key in found if match}


def unescaped(key):
    """The name of what a dict holds, from TensorFlow's key for it."""
    return re.sub(r"\.([.S])", lambda x: "/" if x[1] == "S" else ".", key)


def _sync(path):
    """Makes a checkpoint survive the loss of the machine."""
    for file in glob.glob(f"{glob.escape(path)}.*"):
        sync(file)
    sync(os.path.dirname(path))
