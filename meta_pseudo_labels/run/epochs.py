"""`fit` in epochs that end at the same batches wherever it began."""

import contextlib
import sys

from meta_pseudo_labels.learners.callbacks import position


def fit_epochs(model, batches, *, every, callbacks, ends=(), **kwargs):
    """Fits epochs of `every` batches until a callback stops it.

    If it begins within an epoch, the first one is the rest of that epoch.

    Args:
      model: a compiled Keras model; a `Learner` knows its own position.
      batches: called with the number of the next batch, from 0; returns an
        endless data set.
      every: batches per epoch.
      ends: epochs, in order, after which batches change, so that `batches` is
        called again.
      callbacks: for `fit`. Those with a `close` are closed however it ends;
        Keras calls `on_train_end` only if nothing went wrong.
      **kwargs: for `fit`.
    """

    def fit(initial_epoch, epochs, steps):
        model.fit(
            batches(position(model)),
            initial_epoch=initial_epoch,
            epochs=epochs,
            steps_per_epoch=steps,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
            **kwargs,
        )

    with contextlib.ExitStack() as stack:
        for callback in callbacks:
            stack.callback(getattr(callback, "close", lambda: None))
        epoch, done = divmod(position(model), every)
        if done:
            fit(epoch, epoch + 1, steps=every - done)
            if model.stop_training:
                return
            epoch += 1
        # Without end: batches that are skipped do not count as steps.
        for end in (*ends, sys.maxsize):
            if end > epoch:
                fit(epoch, end, steps=every)
                if model.stop_training:
                    return
                epoch = end
