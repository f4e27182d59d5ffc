"""When training ends early: by a signal, or because of bad updates."""

import contextlib
import signal
import sys
import threading

from absl import logging

from meta_pseudo_labels.learners.callbacks import AtStep
from meta_pseudo_labels.run.json_lines import tell_end
from meta_pseudo_labels.utils.signals import EXIT_INTERRUPTED, ending_at_once


class _Signal(BaseException):
    """Like KeyboardInterrupt: whatever runs at the time must not catch it."""


class Interrupted(Exception):
    """A signal, or a lost worker, ended training, which can be resumed.

    Attributes:
      step: the step at which training ended; None if that is not known.
    """

    def __init__(self, message, *, step=None):
        super().__init__(message)
        self.step = step


class Diverged(Exception):
    """Too many updates in a row were not finite."""


class StopAfterBadSteps(AtStep):
    """Ends training if one update after another is not finite.

    Such updates are skipped by the learner, which counts them.

    Args:
      limit: bad steps in a row at which it ends.
    """

    tells_of_skipped = True  # So that `fit` need not.

    def __init__(self, limit):
        super().__init__()
        self.limit = limit
        self.in_a_row = 0
        self.first = None

    def on_train_begin(self, logs=None):
        self.skipped, self.taken = self._counts()
        if self.first is None:  # One training is several `fit`s.
            self.first = self.taken

    def on_train_batch_end(self, batch, logs=None):
        skipped, taken = self._counts()
        all_bad = skipped - self.skipped == taken - self.taken
        self.in_a_row += taken - self.taken
        if not all_bad:
            self.in_a_row = 0
        self.skipped, self.taken = skipped, taken
        if self.in_a_row >= self.limit:
            raise Diverged(
                f"The last {self.in_a_row} updates were skipped, since losses "
                f"or gradients were not finite; training stopped at step "
                f"{self.step}. Look for bad images or labels, or for a loss or "
                "feedback of your own that is not finite; or go on with lower "
                "learning rates and --allow_hparam_change."
            )

    def close(self):
        """Warns at the end, see `fit_epochs`, if nothing was learned."""
        if not 0 < self.in_a_row < self.limit:  # `Diverged` said it.
            return
        if self.in_a_row == self.taken - self.first:
            logging.warning(
                "All %s updates were skipped, since losses or gradients were "
                "not finite: nothing was learned.",
                self.in_a_row,
            )

    def _counts(self):
        return int(self.model.skipped_steps.numpy()), self.position


class StopOnSignal(AtStep):
    """Ends training if a signal asks for it: saves, then raises.

    At the end of an epoch, it does so after the evaluation and the checkpoint,
    which come first. Until the first step is over there is nothing to save,
    and a program ends at once.

    Args:
      signals: see `watch_signals`.
      every: batches per epoch.
      saving: the `SaveCheckpoint` that comes before; None if others save.

    Raises (in fit):
      Interrupted
    """

    def __init__(self, signals, *, every, saving=None):
        super().__init__()
        self.signals = signals
        self.every = every
        self.saving = saving
        self.first_step = contextlib.ExitStack()
        self.has_begun = False

    def on_train_begin(self, logs=None):
        if not self.has_begun:  # One training is several `fit`s.
            self.has_begun = True
            self.first_step.enter_context(ending_at_once(_tell_of_no_step))

    def close(self):
        self.first_step.close()

    def on_train_batch_end(self, batch, logs=None):
        self.first_step.close()
        within_epoch = self.position % self.every
        if self.signals and within_epoch and not self.model.stop_training:
            if self.saving is not None:
                self.saving.save_now()
            self._stop()

    def on_epoch_end(self, epoch, logs=None):
        if self.signals and not self.model.stop_training:
            if self.saving is not None:
                self.saving.wait()
            self._stop()

    def _stop(self):
        name = signal.Signals(self.signals[0]).name
        raise Interrupted(
            f"{name} ended training at step {self.step}. The same command goes "
            "on from the latest checkpoint.",
            step=self.step,
        )


def _tell_of_no_step(name):
    line = (
        f"{name} ended this before its first step was over. The same command "
        "goes on."
    )
    tell_end(EXIT_INTERRUPTED, line)
    sys.stdout.flush()
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def signals_interrupt():
    """Turns SIGTERM and Ctrl-C into `Interrupted` if nobody watches them.

    For a program: before and after training, when nothing is lost but time.
    """

    def interrupt(number, frame):
        raise _Signal(
            f"{signal.Signals(number).name} ended this; nothing that was saved "
            "is lost. The same command goes on."
        )

    try:
        with _handling(interrupt):
            yield
    except _Signal as signal_:
        raise Interrupted(str(signal_)) from None


@contextlib.contextmanager
def watch_signals():
    """Collects SIGTERM and Ctrl-C for `StopOnSignal` instead of dying at once.

    A second one has its usual effect.

    Yields:
      A list of the signals received.
    """
    came = []

    def note(number, frame):
        came.append(number)
        restore()

    with _handling(note) as restore:
        yield came


@contextlib.contextmanager
def _handling(handler):
    """Handles SIGTERM and Ctrl-C; yields a function that stops this early."""
    before = {}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    # Python handles signals in the main thread only.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, handler)
    try:
        yield restore
    finally:
        restore()
