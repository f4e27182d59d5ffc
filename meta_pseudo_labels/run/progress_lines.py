"""Lines that say how far a run is, for log files and log collectors."""

import json
import sys
import time

from meta_pseudo_labels.learners.callbacks import AtStep
from meta_pseudo_labels.run.json_lines import utc_now

_MEASURED = 10  # Units after the first until a rate is worth reporting.


class ProgressReport:
    """A line at the start, one now and then, one for each event and the end.

        report = ProgressReport("train", 2_000, unit="step", seconds=30)
        report.start(0)
        report.update(12, {"loss": 0.5})
        report.end(2_000)

    The first update starts the clock: a first step is compiled, which takes
    longer than many that follow. What happens between updates, such as an
    evaluation, counts.

    Args:
      title: of the stage.
      total: units, such as steps, of the whole stage.
      unit: what is counted, in the singular.
      seconds: between two lines.
      as_json: whether lines are JSON objects, which carry the time (UTC).
    """

    def __init__(self, title, total, *, unit, seconds, as_json=False):
        self.title = title
        self.total = total
        self.unit = unit
        self.seconds = seconds
        self.as_json = as_json
        self.began = None

    def start(self, done, note=None):
        """Says where the stage begins.

        Args:
          done: units done in earlier starts.
          note: what is about to happen, or None.
        """
        if self.began is None:  # The first of several `fit`s.
            self.began = time.monotonic()
        self.first = None
        self.is_measured = False
        self._say("started", done, {"note": note} if note else {})

    def update(self, done, scalars=None):
        """Says how far it is, if a line is due; scalars: numbers by name.

        The first line is due once `_MEASURED` units after the first have shown
        the rate, whatever the clock says.
        """
        now = time.monotonic()
        if self.first is None:
            self.first, self.last_line = (done, now), now
            return
        is_news = not self.is_measured and done - self.first[0] >= _MEASURED
        self.is_measured |= is_news
        if is_news or now - self.last_line >= self.seconds:
            self.last_line = now
            self._say("progress", done, self._pace(done, now) | (scalars or {}))

    def event(self, kind, done, scalars):
        """Says at once that something happened, such as an evaluation."""
        self._say(kind, done, scalars)

    def end(self, done):
        """Says how long this start of the stage took, in seconds."""
        self._say("ended", done, {"seconds": time.monotonic() - self.began})

    def _pace(self, done, now):
        """The rate since the first update, and the seconds that are left."""
        first, at = self.first
        if done == first or now == at:
            return {}
        rate = (done - first) / (now - at)
        left = (self.total - done) / rate
        return {f"{self.unit}s_per_second": rate, "seconds_left": left}

    def _say(self, kind, done, values):
        """Writes a line, at once: a collector may follow the file."""
        if self.as_json:
            row = dict(
                time=utc_now(),
                stage=self.title,
                event=kind,
                **{self.unit: done, f"{self.unit}s": self.total},
            )
            line = json.dumps(row | _finite(values))
        else:
            line = self._text(kind, done, values)
        print(line, file=sys.stdout, flush=True)

    def _text(self, kind, done, values):
        parts = [f"{self.title}: {self.unit} {done:,} of {self.total:,}"]
        if kind not in ("started", "progress"):
            parts.append(kind)
        on = values.get("on")
        for name, value in values.items():
            if name == "on":  # Comes before the accuracy.
                continue
            if name == "images" and on:
                parts.append(f"{value:,} images")
            elif name == "accuracy" and on:
                parts.append(f"{on} accuracy {value:.4g}")
            elif name == "seconds":
                parts[-1] += f" after {duration(value)}"
            elif name == "seconds_left":
                parts.append(f"{duration(value)} left")
            elif name == f"{self.unit}s_per_second":
                parts.append(f"{value:.3g} {self.unit}s/s")
            elif name == "note":
                parts.append(value)
            else:
                parts.append(f"{name} {value:.4g}")
        return ", ".join(parts)


class ProgressLines(AtStep):
    """A `ProgressReport` of what `fit` does.

    Args:
      report: `ProgressReport`.
      names: of the scalars to show, a dict from the logged name to the line's.
      judge: (part of the data, number of its images) that `fit` evaluates on;
        None if that need not be said.
      again: the note at the start of a later `fit`; None for none, as the step
        is compiled already.
    """

    def __init__(self, report, *, names, judge=None, again=None):
        super().__init__()
        self.report = report
        self.names = names
        self.judge = judge
        self.note = "compiling the first step takes 10 to 60 seconds"
        self.again = again

    def on_train_begin(self, logs=None):
        self.report.start(self.step, self.note)
        self.note = self.again

    def on_train_batch_end(self, batch, logs=None):
        shown = {k: float(logs[n]) for n, k in self.names.items() if n in logs}
        self.report.update(self.step, shown)

    def on_epoch_end(self, epoch, logs=None):
        evaluated = {
            name.removeprefix("val_"): float(value)
            for name, value in logs.items()
            if name.startswith("val_")
        }
        if evaluated and self.judge:
            evaluated |= dict(zip(("on", "images"), self.judge, strict=True))
        if evaluated:
            self.report.event("evaluated", self.step, evaluated)

    def on_train_end(self, logs=None):
        # Otherwise another `fit` follows, with other batches.
        if self.model.stop_training or self.step >= self.report.total:
            self.report.end(self.step)


def duration(seconds):
    """A text such as "3 h 20 min", "2 min 5 s" or "12 s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _finite(values):
    """The values, with None for numbers that JSON cannot express."""
    return {
        name: value
        if not isinstance(value, float) or abs(value) < float("inf")
        else None
        for name, value in values.items()
    }
