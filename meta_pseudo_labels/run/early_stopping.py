"""Early stopping that goes on counting where a run was interrupted."""

import keras

from meta_pseudo_labels.learners.callbacks import position
from meta_pseudo_labels.utils.checkpoint_files import checkpoint_paths, step_of


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Keras's, on val_accuracy, but it goes on from the checkpoints.

    Keras's own begins anew with every `fit`. This one needs no state: the
    best checkpoint has the accuracy and the step.

    Args:
      checkpoints: `Checkpoints`, one after every epoch, the best by
        val_accuracy.
      patience: epochs in a row without a gain after which it stops.
      every: steps per epoch.
    """

    def __init__(self, checkpoints, *, patience, every):
        super().__init__("val_accuracy", mode="max", patience=patience)
        self.checkpoints = checkpoints
        self.every = every

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.checkpoints.wait()
        if self.checkpoints.best_accuracy >= 0:
            self.best = self.checkpoints.best_accuracy
        self.wait = epochs_since_best(
            self.checkpoints, position(self.model), every=self.every
        )


def epochs_since_best(checkpoints, step, *, every):
    """Whole epochs from the best checkpoint to a step; 0 before there is one.

    Args:
      checkpoints: `Checkpoints`, with nothing left to write.
      step: of the run.
      every: steps per epoch.
    """
    paths = checkpoint_paths(checkpoints.best_folder)
    if not paths or checkpoints.best_accuracy < 0:
        return 0
    # The best is ahead of the step if a kill came between it and the latest.
    return max(0, (step - step_of(paths[-1])) // every)
