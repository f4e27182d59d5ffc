"""What `fit` does beside the steps: log, show progress, stop, save."""

import json
import os
import sys

import keras
import tensorflow as tf


class MetricsLogger(keras.callbacks.Callback):
    """Writes scalars to metrics.jsonl and as TensorBoard events.

    One JSON object a line: the step and the logged scalars by name. Evaluations
    appear under `eval/<name>`, at the step they were made. A run that goes on
    keeps the lines up to its step; those that a killed run wrote after its last
    checkpoint would come twice.

    Args:
      folder: an existing folder.
      every: steps between two logged steps.
    """

    def __init__(self, folder, *, every):
        super().__init__()
        self.folder = folder
        self.every = every

    def on_train_begin(self, logs=None):
        self.step = int(self.model.step.numpy())
        self.path = f"{self.folder}/metrics.jsonl"
        _drop_rows_after(self.step, self.path)
        self.events = tf.summary.create_file_writer(f"{self.folder}/events")

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step % self.every == 0:
            self.write(logs)

    def on_epoch_end(self, epoch, logs=None):
        prefix = "val_"
        self.write(
            {
                f"eval/{name.removeprefix(prefix)}": value
                for name, value in logs.items()
                if name.startswith(prefix)
            }
        )
        self.events.flush()

    def on_train_end(self, logs=None):
        self.events.close()

    def write(self, scalars):
        scalars = {name: float(value) for name, value in scalars.items()}
        if not scalars:
            return
        row = {"step": self.step, **scalars}
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")
        with self.events.as_default(step=self.step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)


def _drop_rows_after(step, path):
    """Rewrites a metrics.jsonl without rows beyond a step, or cut short."""
    if not os.path.exists(path):
        return
    with open(path) as file:
        rows = [row for row in file if row.endswith("\n")]
    with open(path, "w") as file:
        file.writelines(row for row in rows if json.loads(row)["step"] <= step)


class Progress(keras.callbacks.Callback):
    """Keras's progress bar over the whole run, with a few scalars only.

    Args:
      steps: of the whole run.
      names: of the scalars to show, by the name they get in the bar.
    """

    def __init__(self, steps, *, names):
        super().__init__()
        self.steps = steps
        self.names = names

    def on_train_begin(self, logs=None):
        self.step = int(self.model.step.numpy())
        self.accuracy = []
        self.bar = keras.utils.Progbar(
            self.steps, stateful_metrics=[*self.names.values(), "accuracy"]
        )

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        shown = [
            (label, logs[name])
            for name, label in self.names.items()
            if name in logs
        ]
        self.bar.update(
            self.step,
            shown + self.accuracy,
            finalize=False,
        )

    def on_epoch_end(self, epoch, logs=None):
        if "val_accuracy" in logs:
            self.accuracy = [("accuracy", logs["val_accuracy"])]

    def on_train_end(self, logs=None):
        self.bar.update(self.step, self.accuracy, finalize=True)


class StopAtStep(keras.callbacks.Callback):
    """Ends training at a step, also in the middle of an epoch."""

    def __init__(self, step):
        super().__init__()
        self.last_step = step

    def on_train_begin(self, logs=None):
        self.step = int(self.model.step.numpy())

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step >= self.last_step:
            self.model.stop_training = True


class SaveCheckpoint(keras.callbacks.Callback):
    """Saves a checkpoint at the end of every epoch of `fit`.

    Args:
      manager: a `tf.train.CheckpointManager` over the learner.
    """

    def __init__(self, manager):
        super().__init__()
        self.manager = manager

    def on_epoch_end(self, epoch, logs=None):
        self.manager.save(checkpoint_number=int(self.model.step.numpy()))


def on_terminal():
    """Whether a person is watching; a log file gets no progress bar."""
    return sys.stdout.isatty()
