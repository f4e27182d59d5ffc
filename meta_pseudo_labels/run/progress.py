"""How far a run is: a bar on a terminal, lines in a log file."""

import contextlib
import os
import sys

from absl import logging
from tqdm import tqdm

from meta_pseudo_labels.learners.callbacks import AtStep
from meta_pseudo_labels.run.progress_lines import ProgressLines, ProgressReport

# What the bar of a stage shows: a logged scalar, and its name there.
SCALARS = {
    "train": {
        "loss/total": "loss",
        "cross_entropy/teacher_on_l": "teacher",
        "cross_entropy/student_on_u": "student",
    },
    "finetune": {"loss": "loss"},
}
# Elapsed time is not shown: after a restart it is not the run's.
_FORMAT = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
    "[{rate_fmt}, {remaining} left{postfix}]"
)
# Before there is a rate: tracing the first step takes some time.
_BEGINNING = _FORMAT.replace("{rate_fmt}, {remaining} left", "starting")
_COLUMNS, _ROWS = 80, 24  # If a terminal does not report its size.
_NARROW, _LOW = 30, 3  # Below that a bar shows no number, or is left out.


class Progress(AtStep):
    """A progress bar over the whole stage, with a few scalars only.

    It goes on where the run does, also over several `fit`s, and shows the last
    accuracy that was evaluated. Warnings logged by absl get lines of their own.

    Args:
      steps: of the whole stage.
      names: of the scalars to show, a dict from the logged name to the bar's.
      title: of the bar.
      accuracy: label of the accuracy.
    """

    def __init__(self, steps, *, names, title, accuracy="accuracy"):
        super().__init__()
        self.steps = steps
        self.names = names
        self.title = title
        self.label = accuracy
        self.accuracy = {}
        self.counts_time = False  # Not before the first step.
        self.bar = None

    def on_train_begin(self, logs=None):
        self.close()  # Of a `fit` that failed.
        self.counts_time = False
        self.bar = tqdm(
            desc=self.title,
            total=self.steps,
            initial=self.step,
            unit="step",
            bar_format=_BEGINNING,
            **bar_size(),
            miniters=1,  # Drawn by the clock, not by a number of steps.
            position=0,  # Not below a bar that an error left behind.
            file=sys.stdout,
        )
        logging.get_absl_logger().addFilter(self._make_room)

    def on_train_batch_end(self, batch, logs=None):
        scalars = {
            label: logs[name]
            for name, label in self.names.items()
            if name in logs
        }
        # Accuracy first: a narrow terminal cuts off the end of the line.
        shown = self.accuracy | {k: f"{v:.3g}" for k, v in scalars.items()}
        self.bar.set_postfix(shown, refresh=False)
        if self.counts_time:
            self.bar.bar_format = _FORMAT
            self.bar.update(self.step - self.bar.n)
        else:  # Time, and rate, begin here.
            self.counts_time = True
            self.bar.n = self.bar.last_print_n = self.step
            self.bar.unpause()
            self.bar.refresh()

    def on_epoch_end(self, epoch, logs=None):
        if "val_accuracy" in logs:
            self.accuracy = {self.label: f"{logs['val_accuracy']:.4f}"}

    def on_train_end(self, logs=None):
        # The bar of an unfinished run is wiped: another `fit` may redraw it.
        self.bar.leave = self.step >= self.steps
        self.close()

    def close(self):
        """Ends the bar, and its line, also if training failed."""
        if self.bar is not None:
            logging.get_absl_logger().removeFilter(self._make_room)
            bar, self.bar = self.bar, None
            bar.close()

    def _make_room(self, record):
        """Wipes the bar off the line that a message is about to use."""
        bar = self.bar  # Another thread may log while this one closes it.
        if bar is not None:
            bar.clear()
        return True


def progress(steps, config, *, stage="train", judge=None, again=None):
    """A list with a callback that shows how far a stage is; or an empty one.

    It shows a bar on a terminal, and lines elsewhere, on a terminal that is too
    narrow for a bar, or if they are to be JSON.

    Args:
      steps: of the whole stage.
      config: `Config`, whose `progress` says whether to show it.
      stage: one of `SCALARS`.
      judge, again: see `ProgressLines`.
    """
    if not config.progress:
        return []
    if _draws_bar(config):
        label = f"{judge[0]} accuracy" if judge else "accuracy"
        names = SCALARS[stage]
        return [Progress(steps, names=names, title=stage, accuracy=label)]
    report = progress_report(stage, steps, config, unit="step")
    names = SCALARS[stage]
    return [ProgressLines(report, names=names, judge=judge, again=again)]


@contextlib.contextmanager
def counted(stage, total, done, config, *, unit):
    """Yields a function that takes how many more are done, and shows it.

    Args:
      stage: its name.
      total: of the whole stage.
      done: how many in earlier starts.
      config: see `progress`.
      unit: what is counted, in the singular.
    """
    if not config.progress:
        yield lambda more: None
    elif _draws_bar(config):
        sizes = bar_size() | dict(initial=done, total=total)
        with tqdm(desc=stage, unit=unit, file=sys.stdout, **sizes) as bar:
            yield bar.update
    else:
        report = progress_report(stage, total, config, unit=unit)
        report.start(done)

        def count(more):
            nonlocal done
            done += more
            report.update(done)

        yield count
        report.end(done)


def progress_report(stage, total, config, *, unit):
    """The `ProgressReport` of a stage, as the settings ask."""
    return ProgressReport(
        stage,
        total,
        unit=unit,
        seconds=config.progress_seconds,
        as_json=config.log_format == "json",
    )


def bar_size():
    """The size of a terminal for a bar, as arguments for tqdm."""
    size = _terminal_size()
    if size is None or (size.columns > 0 and size.lines >= _LOW):
        return dict(dynamic_ncols=True)
    rows = size.lines if size.lines >= _LOW else _ROWS
    return dict(ncols=size.columns or _COLUMNS, nrows=rows)


def _terminal_size():
    try:
        return os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):  # No terminal.
        return None


def _draws_bar(config):
    """Whether to draw a bar that can be read; otherwise there are lines."""
    size = _terminal_size() if on_terminal() else None
    fits = size is None or not 0 < size.columns < _NARROW
    return on_terminal() and config.log_format == "text" and fits


def on_terminal():
    """Whether a person is watching; a log file gets lines, not a bar."""
    return sys.stdout.isatty()
