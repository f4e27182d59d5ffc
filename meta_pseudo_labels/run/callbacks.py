"""What `fit` does besides the steps: evaluate, save. See also `metrics_log`
for what it logs, `progress` for what it shows, `stopping` for when it ends.
`named_callbacks` makes the callbacks of users.
"""

import keras

from meta_pseudo_labels.evaluation.evaluate import accuracy
from meta_pseudo_labels.learners.callbacks import AtStep
from meta_pseudo_labels.utils.plugins import failed, import_for
from meta_pseudo_labels.utils.settings import ConfigError


def named_callbacks(config):
    """The callbacks that the factories of `config.callbacks` make, a tuple.

    Args:
      config: the `Config` of the run, which each factory is called with.

    Raises:
      ConfigError: for a module or factory that is missing or fails, and for one
        that makes something other than Keras callbacks.
    """
    names = filter(None, config.callbacks.split(","))
    return tuple(callback for name in names for callback in _made(name, config))


def _made(name, config):
    """What one factory makes, a sequence of callbacks."""
    flag = f"--callback={name}"
    module, _, factory = name.partition(":")
    if not module or not factory:
        raise ConfigError(
            f"{flag}: name a module and a function in it that makes a "
            "callback, such as my_callbacks:tracker."
        )
    factory = getattr(import_for(flag, module), factory, None)
    if not callable(factory):
        raise ConfigError(f"{flag}: the module has no such function.")
    if getattr(factory, "__module__", "").partition(".")[0] == "keras":
        raise ConfigError(
            f"{flag} takes no Config; name a function of your own that takes "
            "one and returns the callback."
        )
    try:
        made = factory(config)
    except Exception as error:  # Whatever the user's code raises.
        raise failed(f"{flag} fails", error) from error
    made = made if isinstance(made, list | tuple) else [made]
    for callback in made:
        if not isinstance(callback, keras.callbacks.Callback):
            raise ConfigError(
                f"{flag} makes {callback!r:.80}, of type "
                f"{type(callback).__name__}; return a keras.callbacks.Callback "
                "or a list of them."
            )
    return made


class LogAccuracy(keras.callbacks.Callback):
    """Logs the accuracy where `fit` cannot: on only one of several workers.

    The others wait for it in the next step. Comes before `MetricsLogger`.

    Args:
      dataset: see `evaluation.predict_logits`.
    """

    def __init__(self, dataset):
        super().__init__()
        self.dataset = dataset

    def on_epoch_end(self, epoch, logs=None):
        logs["val_accuracy"] = accuracy(self.model, self.dataset)


class SaveCheckpoint(AtStep):
    """Saves a checkpoint at the end of every epoch of `fit`, in the background.

    It saves none while updates are skipped: a network that has begun to diverge
    is kept out of the checkpoints.

    Args:
      checkpoints: `Checkpoints` of the model.
      bad_steps: `StopAfterBadSteps`, which comes before it; or None.
      best_by: name of the log that chooses the best checkpoint; or None.

    Raises (in fit):
      CheckpointError: soon after one could not be written.
    """

    def __init__(self, checkpoints, *, bad_steps=None, best_by=None):
        super().__init__()
        self.checkpoints = checkpoints
        self.bad_steps = bad_steps
        self.best_by = best_by

    def on_train_batch_end(self, batch, logs=None):
        self.checkpoints.check()

    def on_epoch_end(self, epoch, logs=None):
        if self.model.stop_training or not self._in_bad_steps():
            self.checkpoints.save(self.step, accuracy=logs.get(self.best_by))

    def save_now(self):
        """Saves within an epoch, and waits until the checkpoint is on disk."""
        if not self._in_bad_steps():
            self.checkpoints.save(self.step)
        self.wait()

    def wait(self):
        """Waits until what was saved is on disk."""
        self.checkpoints.wait()

    def _in_bad_steps(self):
        return self.bad_steps is not None and self.bad_steps.in_a_row > 0
