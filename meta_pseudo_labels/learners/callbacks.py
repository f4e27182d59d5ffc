"""Callbacks that know the step of a run, across calls of `fit`."""

import keras


def position(model):
    """Batches that a model has taken, including those that were skipped."""
    counter = getattr(model, "position", model.optimizer.iterations)
    return int(counter.numpy())


class AtStep(keras.callbacks.Callback):
    """A callback that knows the step of the run, across calls of `fit`.

    The step is that of the student's optimizer: it is restored with a
    checkpoint, and stands still when an update is skipped.
    """

    @property
    def step(self):
        return int(self.model.optimizer.iterations.numpy())

    @property
    def position(self):
        """Batches taken, including those whose update was skipped."""
        return position(self.model)


class StopAtStep(AtStep):
    """Ends training at a step, even in the middle of an epoch."""

    def __init__(self, step):
        super().__init__()
        self.last_step = step

    def on_train_batch_end(self, batch, logs=None):
        if self.step >= self.last_step:
            self.model.stop_training = True
