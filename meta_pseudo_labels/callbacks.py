"""What `fit` does beside the steps: log, show progress, stop, save."""

import json
import os
import sys

import keras
import tensorflow as tf

from meta_pseudo_labels.evaluation import accuracy
from meta_pseudo_labels.run_folder import write_whole


class _AtStep(keras.callbacks.Callback):
    """A callback that knows the step of the run, across `fit`s.

    The step is the student's optimizer's: it is restored with a checkpoint and
    stands still where an update was skipped.
    """

    @property
    def step(self):
        return int(self.model.optimizer.iterations.numpy())


class MetricsLogger(_AtStep):
    """Writes scalars to metrics.jsonl and as TensorBoard events.

    One JSON object a line: the step and the logged scalars by name. Evaluations
    appear under `eval/<name>`, at the step they were made. A run that goes on
    keeps the lines up to its step; those that a killed run wrote after its last
    checkpoint would come twice.

    Args:
      folder: made where it does not exist.
      every: steps between two logged steps.
    """

    def __init__(self, folder, *, every):
        super().__init__()
        self.folder = folder
        self.path = os.path.join(folder, "metrics.jsonl")
        self.every = every

    def on_train_begin(self, logs=None):
        os.makedirs(self.folder, exist_ok=True)
        _drop_rows_after(self.step, self.path)
        self.events = tf.summary.create_file_writer(
            os.path.join(self.folder, "events")
        )

    def on_train_batch_end(self, batch, logs=None):
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
        with open(self.path, "a") as file:
            file.write(json.dumps({"step": self.step, **scalars}) + "\n")
        with self.events.as_default(step=self.step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)


def _drop_rows_after(step, path):
    """Rewrites a metrics.jsonl without rows beyond a step, or unreadable."""
    if not os.path.exists(path):
        return
    with open(path) as file:
        kept = [row for row in file if _step_of(row) <= step]
    write_whole(path, "".join(kept))


def _step_of(row):
    """The step of a row; past every step where a kill cut the row short."""
    try:
        return json.loads(row)["step"]
    except (KeyError, TypeError, ValueError):
        return float("inf")


class Evaluation(keras.callbacks.Callback):
    """Logs the accuracy where `fit` cannot: on one of several workers alone.

    The others wait for it with the next step. Goes before `MetricsLogger`.

    Args:
      dataset: see `evaluation.predict_logits`.
    """

    def __init__(self, dataset):
        super().__init__()
        self.dataset = dataset

    def on_epoch_end(self, epoch, logs=None):
        logs["val_accuracy"] = accuracy(self.model, self.dataset)


class Progress(_AtStep):
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
        self.accuracy = []
        self.bar = keras.utils.Progbar(
            self.steps, stateful_metrics=[*self.names.values(), "accuracy"]
        )

    def on_train_batch_end(self, batch, logs=None):
        shown = [
            (label, logs[name])
            for name, label in self.names.items()
            if name in logs
        ]
        self.bar.update(self.step, shown + self.accuracy, finalize=False)

    def on_epoch_end(self, epoch, logs=None):
        if "val_accuracy" in logs:
            self.accuracy = [("accuracy", logs["val_accuracy"])]

    def on_train_end(self, logs=None):
        self.bar.update(self.step, self.accuracy, finalize=True)


class StopAtStep(_AtStep):
    """Ends training at a step, also in the middle of an epoch."""

    def __init__(self, step):
        super().__init__()
        self.last_step = step

    def on_train_batch_end(self, batch, logs=None):
        if self.step >= self.last_step:
            self.model.stop_training = True


class SaveCheckpoint(_AtStep):
    """Saves a checkpoint at the end of every epoch of `fit`.

    Args:
      manager: a `tf.train.CheckpointManager` over the learner.
    """

    def __init__(self, manager):
        super().__init__()
        self.manager = manager

    def on_epoch_end(self, epoch, logs=None):
        self.manager.save(checkpoint_number=self.step)


def progress_bar(steps, *, show):
    """A list with the run's `Progress`; empty where nobody wants to see it."""
    shown = {
        "loss/total": "loss",
        "cross_entropy/teacher_on_l": "teacher",
        "cross_entropy/student_on_u": "student",
    }
    return [Progress(steps, names=shown)] if show and on_terminal() else []


def on_terminal():
    """Whether a person is watching; a log file gets no progress bar."""
    return sys.stdout.isatty()
