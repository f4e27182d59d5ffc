"""One training run up to its second step, with the time of each part.

run.py starts it as a process of its own. It is `mpl train` except for the
order of imports: TensorFlow and Keras come first, to be timed separately. The
rest is recorded by a callback (`--callback`), which ends the process.
"""

import json
import os
import sys
import time

import keras

IMPORTS = "import TensorFlow and Keras"
PACKAGE = "import the package"
BUILDING = "data and networks"
TRACING = "tracing"
COMPILING = "compiling"
STEP = "a step"
TOTAL = "to the first step"
PARTS = (IMPORTS, PACKAGE, BUILDING, TRACING, COMPILING, STEP)


# Pairs of seconds and processor seconds: when the command was given, after both
# imports, when training begins, and after each of two steps.
MARKS = []


class Recorder(keras.callbacks.Callback):
    """Notes when training begins, its step is traced, and two steps end.

    Args:
      path: where the report is written.
    """

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.traces = []

    def on_train_begin(self, logs=None):
        step = self.model.train_step

        def timed(*args, **kwargs):  # Called only while it is traced.
            start = now()
            result = step(*args, **kwargs)
            self.traces.append(elapsed(start, now()))
            return result

        self.model.train_step = timed
        MARKS.append(now())

    def on_train_batch_end(self, batch, logs=None):
        MARKS.append(now())
        if batch:
            parts = split(MARKS, self.traces)
            report = {"traces": len(self.traces), "parts": parts}
            with open(self.path, "w", encoding="utf-8") as file:
                json.dump(report, file)
            os._exit(0)  # Without checkpoints and evaluation.


def split(marks, traces):
    """The parts of a start: {part: (seconds, processor seconds)}.

    What the first step takes beyond its tracing and beyond the second step
    counts as compiling: TensorFlow optimizes the graph and prepares memory, and
    the step waits for the first batch.

    Args:
      marks: all six of `MARKS`.
      traces: such pairs, the time that each call of the step took.
    """
    began, imports, package, built, first, second = marks
    step = elapsed(first, second)
    tracing = tuple(sum(kind) for kind in zip((0, 0), *traces, strict=True))
    parts = {
        IMPORTS: elapsed(began, imports),
        PACKAGE: elapsed(imports, package),
        BUILDING: elapsed(package, built),
        TRACING: tracing,
        COMPILING: elapsed(step, elapsed(tracing, elapsed(built, first))),
        STEP: step,
    }
    return parts | {TOTAL: elapsed(began, first)}


def now():
    return time.monotonic(), time.process_time()


def elapsed(start, end):
    """The difference of two pairs of seconds and processor seconds."""
    return tuple(b - a for a, b in zip(start, end, strict=True))


def recorder(config):
    """The callback of the run; a factory for `--callback`."""
    del config
    return Recorder(sys.argv[1])


def main():
    """Arguments: the report, the time of the command, `mpl train`'s flags.

    By then this module is imported, and with it TensorFlow and Keras.
    """
    _, _, began, *typed = sys.argv
    MARKS.extend([(float(began), 0.0), now()])
    from meta_pseudo_labels.run import cli, command  # noqa: F401

    MARKS.append(now())
    named = f"--callback={__name__}:recorder"
    cli.run("mpl", [*typed, named], task_mode="train")
