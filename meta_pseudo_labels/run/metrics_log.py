"""The numbers of a run: metrics.jsonl, and the same for TensorBoard."""

import errno
import json
import math
import os
import time

import numpy as np
import tensorflow as tf
from tensorboard.plugins.scalar.summary_v2 import scalar_pb

from meta_pseudo_labels.learners.callbacks import AtStep
from meta_pseudo_labels.run.event_files import drop_events_after
from meta_pseudo_labels.run.json_lines import utc_now
from meta_pseudo_labels.utils.compat import summary_class
from meta_pseudo_labels.utils.files import parse_json, write_whole

# What differs between runs that do the same.
TIMES = ("time", "seconds", "images_per_second")


class MetricsFiles:
    """The files of a folder that hold scalars: metrics.jsonl and events/.

        with MetricsFiles("runs/digits") as files:
            files.write({"step": 10, "loss/total": 0.5})

    metrics.jsonl has one JSON object per line, with the `time` (UTC). A scalar
    that is not finite, which JSON cannot express, is missing there;
    TensorBoard shows it. Whatever is written can be read at once.

    Args:
      folder: made if it does not exist.
      last_step: later rows and events are dropped, as are torn ones. By default
        none is too late.

    Raises (write and close too):
      OSError, tf.errors.OpError: as they are, if writing fails.
    """

    def __init__(self, folder, *, last_step=math.inf):
        self.folder = folder
        self.path = os.path.join(folder, "metrics.jsonl")
        events = os.path.join(folder, "events")
        os.makedirs(folder, exist_ok=True)
        _drop_rows_after(last_step, self.path)
        drop_events_after(last_step, events)
        self.events = tf.summary.create_file_writer(events)

    def write(self, row, **times):
        """Appends a row.

        Args:
          row: a dict of "step", an integer, and scalars by name.
          **times: numbers for metrics.jsonl alone.
        """
        step = row["step"]
        scalars = {k: float(v) for k, v in row.items() if k != "step"}
        finite = {k: v for k, v in scalars.items() if math.isfinite(v)}
        with open(self.path, "a") as file:
            when = {"time": utc_now(), **times}
            file.write(json.dumps({"step": step, **when, **finite}) + "\n")
        # All in one: an operation for each would take longer than some steps.
        summary = summary_class()()
        for name, value in scalars.items():
            summary.MergeFrom(scalar_pb(name, value))
        try:
            with self.events.as_default():  # Flushes at its end.
                # Not a Python number: TensorFlow keeps a tensor of every one
                # that it has met forever, 0.7 kB each.
                tf.summary.experimental.write_raw_pb(
                    summary.SerializeToString(), step=np.int64(step)
                )
        except tf.errors.OutOfRangeError as error:
            # A file beyond the allowed size. `fit` would take TensorFlow's
            # error for the end of the data.
            code = errno.EFBIG
            raise OSError(code, os.strerror(code), self.folder) from error

    def close(self):
        self.events.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


class MetricsLogger(AtStep):
    """Writes what is logged, and evaluations, to `MetricsFiles`.

    Evaluations appear under `eval/<name>`, at the step when they were made. A
    resumed run keeps only what was logged up to its step; what a killed run
    logged after its last checkpoint would otherwise appear twice.

    Rows of metrics.jsonl also hold the `seconds` of training so far, including
    evaluations and checkpoints, which continue from the rows before; and the
    `images_per_second` of the steps since the row before. A first step, which
    is compiled, has no rate.

    Args:
      folder: see `MetricsFiles`.
      every: steps between two logged steps. If several are taken at once or
        some are skipped, the first step past each multiple is logged.
      batch_images: images per batch, each counted once whatever its views; or
        a function from the number of a batch, from 0, to this count.

    Raises (in fit):
      OSError, tf.errors.OpError: as they are, if writing fails.
    """

    def __init__(self, folder, *, every, batch_images):
        super().__init__()
        self.folder = folder
        self.every = every
        self.batch_images = batch_images
        self.files = None

    def on_train_begin(self, logs=None):
        self.close()  # Those of a `fit` that failed.
        self.files = MetricsFiles(self.folder, last_step=self.step)
        self.evaluated = self.step
        self.periods = self.step // self.every
        before = [row.get("seconds", 0.0) for row in read_rows(self.files.path)]
        self.began = time.monotonic() - max(before, default=0.0)
        self.timed_from = None

    def on_epoch_begin(self, epoch, logs=None):
        if self.timed_from is not None:  # Otherwise the next step is the first.
            self._take_time()

    def on_train_batch_end(self, batch, logs=None):
        periods = self.step // self.every
        if periods > self.periods:
            self.periods = periods
            self.write(logs, **self._rate())
            self._take_time()
        elif self.timed_from is None:
            self._take_time()

    def on_epoch_end(self, epoch, logs=None):
        prefix = "val_"
        evaluated = {
            f"eval/{name.removeprefix(prefix)}": value
            for name, value in logs.items()
            if name.startswith(prefix)
        }
        # If all updates are skipped, the step stands still.
        if evaluated and self.step > self.evaluated:
            self.evaluated = self.step
            self.write(evaluated)

    def on_train_end(self, logs=None):
        self.close()

    def write(self, scalars, **times):
        """Logs a dict of scalars at the present step; see `MetricsFiles`."""
        seconds = round(time.monotonic() - self.began, 3)
        self.files.write(
            {"step": self.step, **scalars}, seconds=seconds, **times
        )

    def close(self):
        """Closes the files, if they are open."""
        if self.files is not None:
            files, self.files = self.files, None
            files.close()

    def _take_time(self):
        self.timed_from = self.position, time.monotonic()

    def _rate(self):
        if self.timed_from is None:
            return {}
        position, began = self.timed_from
        images = self.batch_images
        if callable(images):  # Batches of one size since the time was taken.
            images = images(position)
        images *= self.position - position
        rate = images / max(time.monotonic() - began, 1e-9)
        return {"images_per_second": round(rate, 3)}


def read_rows(path):
    """The rows of a metrics.jsonl, dicts; none if there is no such file.

    Rows that cannot be read are left out: a kill or a full disk tore them.
    """
    return [row for row in map(_parsed, _lines(path)) if row is not None]


def _drop_rows_after(step, path):
    """Rewrites a metrics.jsonl without rows beyond a step, or torn ones."""
    lines = _lines(path)
    kept = []
    for line in lines:
        row = _parsed(line)
        if row is not None and row["step"] <= step:
            # The last one may lack only its end; it gets one.
            kept.append(line.rstrip("\n") + "\n")
    if kept != lines:
        write_whole(path, "".join(kept))


def _lines(path):
    if not os.path.exists(path):
        return []
    with open(path, errors="replace") as file:
        return list(file)


def _parsed(line):
    """The dict in a line; None if it was torn."""
    try:
        row = parse_json(line)
    except ValueError:
        return None
    is_row = isinstance(row, dict) and isinstance(row.get("step"), int)
    return row if is_row else None
