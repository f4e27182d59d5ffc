"""Callbacks that know the step of a run, across `fit`s."""

import keras


def position(model):
    """Batches that a model has taken, those that were skipped among them."""
    counter = getattr(model, "position", model.optimizer.iterations)
    return int(counter.numpy())


class AtStep(keras.callbacks.Callback):
    """A callback that knows the step of the run, across `fit`s.

    The step is the student's optimizer's: it is restored with a checkpoint and
    stands still where an update was skipped.
    """

    @property
    def step(self):
        return int(self.model.optimizer.iterations.numpy())

    @property
    def position(self):
        """Batches taken, those whose update was skipped among them."""
        return position(self.model)


class StopAtStep(AtStep):
    """Ends training at a step, also in the middle of an epoch."""

    def __init__(self, step):
        super().__init__()
        self.last_step = step

    def on_train_batch_end(self, batch, logs=None):
        if self.step >= self.last_step:
            self.model.stop_training = True
