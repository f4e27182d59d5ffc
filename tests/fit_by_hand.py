"""`fit` for callbacks without a model to train: its steps are made by hand."""

import types

import tensorflow as tf


def clock_by_hand(monkeypatch, module, *, now=0.0):
    """A clock that stands still, in place of a module's; `now` moves it."""
    clock = types.SimpleNamespace(now=now)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(module, "time", clock)
    return clock


class FitByHand:
    """Calls what `fit` calls, at the steps that a test says.

    Args:
      *callbacks: Keras's.
      start: step of the checkpoint that training goes on from.
    """

    def __init__(self, *callbacks, start=0):
        self.iterations = tf.Variable(start, dtype=tf.int64)
        self.model = types.SimpleNamespace(
            optimizer=types.SimpleNamespace(iterations=self.iterations)
        )
        self.callbacks = callbacks
        for callback in callbacks:
            callback.set_model(self.model)

    def begin(self):
        for callback in self.callbacks:
            callback.on_train_begin()
        return self

    def step(self, by=1, **logs):
        """A step, or several taken at once; by=0 is one that was skipped."""
        self.iterations.assign_add(by)
        for callback in self.callbacks:
            callback.on_train_batch_end(0, logs)

    def steps(self, number):
        """Steps that log two scalars; the loss is the number of the step."""
        for _ in range(number):
            step = float(self.iterations.numpy()) + 1
            self.step(**{"loss/total": step, "loss/lr": 0.1})
        return self

    def end_epoch(self, **logs):
        for callback in self.callbacks:
            callback.on_epoch_end(0, logs)
        return self

    def end(self, *, stopped=True):
        """Where epochs ended, or a callback stopped it."""
        self.model.stop_training = stopped
        for callback in self.callbacks:
            callback.on_train_end()
        return self
