"""The finetuning stage of a run, which resumes where it was interrupted."""

import contextlib
import dataclasses
import os

import keras
import numpy as np
from absl import logging

from meta_pseudo_labels import data
from meta_pseudo_labels.learners.build import build_model
from meta_pseudo_labels.learners.callbacks import AtStep, StopAtStep, position
from meta_pseudo_labels.learners.finetuning import (
    batch_norm_mode,
    compile_for_finetuning,
)
from meta_pseudo_labels.run.callbacks import SaveCheckpoint
from meta_pseudo_labels.run.checkpoints import Checkpoints
from meta_pseudo_labels.run.closing import closing_summary
from meta_pseudo_labels.run.config.after_training import FinetuningSettings
from meta_pseudo_labels.run.config.core import free_settings
from meta_pseudo_labels.run.data import class_weights
from meta_pseudo_labels.run.early_stopping import (
    EarlyStopping,
    epochs_since_best,
)
from meta_pseudo_labels.run.epochs import fit_epochs
from meta_pseudo_labels.run.finetuned import (
    finetuned_path,
    prepare,
    unfinished,
)
from meta_pseudo_labels.run.folder import FINETUNE, RunFolder
from meta_pseudo_labels.run.labeled_choice import check_choice_of_labels
from meta_pseudo_labels.run.metrics_log import MetricsLogger
from meta_pseudo_labels.run.progress import progress
from meta_pseudo_labels.run.restoring import variables_by_name
from meta_pseudo_labels.run.stages import STAGES, RunFile, Stage
from meta_pseudo_labels.run.stopping import (
    Diverged,
    StopOnSignal,
    watch_signals,
)
from meta_pseudo_labels.utils.checkpoint_files import (
    CheckpointError,
    DamagedCheckpoint,
    save_weights,
    weights_digest,
)
from meta_pseudo_labels.utils.deleting import delete
from meta_pseudo_labels.utils.files import (
    locked,
    reports_full_disk,
)
from meta_pseudo_labels.utils.settings import user_error


@STAGES.register("finetune")
class Finetune(Stage):
    help = "Finetune the student on the labels."
    settings = (FinetuningSettings,)
    files = (
        RunFile(
            f"{FINETUNE}/*.weights.h5", "the finetuned student", shown=True
        ),
        RunFile(
            f"{FINETUNE}/metrics.jsonl",
            "the logged steps and evaluations",
            shown=True,
        ),
        RunFile(f"{FINETUNE}/events", "the same for TensorBoard", shown=True),
    )
    next = "eval"

    @staticmethod
    def run(experiment):
        done = "Finetuned" if experiment.finetune() else "Already finetuned"
        print(f"{done}: {experiment.output_dir}")
        print(closing_summary(experiment))


def finetune_run(learner, config, images, *, callbacks=()):
    """Finetunes the student of a run, or resumes where that was interrupted.

    Args:
      learner: restored from a checkpoint of the run.
      config: `Config` of the run.
      images: `data.ImageData` or `data.ShardedData`.
      callbacks: further Keras callbacks, which come after the run's own.

    Returns:
      Whether there was anything left to do.

    Raises:
      CheckpointError: if the best of its own checkpoints is damaged.
      ConfigError: if the data is not that of the run, or its student was
        finetuned with other settings.
      Interrupted: by SIGTERM or Ctrl-C; the same call resumes.
      Diverged: if the loss is not finite.
    """
    check_choice_of_labels(config, images)
    # What the data set decides is recorded too.
    config = dataclasses.replace(config, finetune_steps=config.finetuning_steps)
    path = finetuned_path(learner, config)
    folder = os.path.dirname(path)
    first = learner.finished_student()
    with reports_full_disk(folder), locked(folder):
        if not prepare(config, path, weights_digest(first)):
            return False
        _save_settings(config)
        student = build_model(config, images.spec, role="student")
        student.set_weights(first.get_weights())
        with batch_norm_mode(student, config.finetune_batch_norm):
            user_error(
                compile_for_finetuning,
                student,
                config.finetune_lr,
                config.finetune_optimizer,
                weight_decay=config.finetune_weight_decay,
                backbone_lr_factor=config.finetune_backbone_lr_factor,
                freeze_backbone_steps=config.finetune_freeze_backbone_steps,
                layer_lr_decay=config.finetune_layer_lr_decay,
            )
            _train(student, config, images, path, callbacks)
        save_weights(student, path)
        delete(unfinished(path))
    return True


def _save_settings(config):
    """Saves the settings of finetuning beside those that training had.

    With --allow_hparam_change finetuning may read others of the latter, such as
    class_weight; training goes on with its own.
    """
    folder = RunFolder(config.output_dir)
    names = {f.name for f in dataclasses.fields(config)} - free_settings()
    saved = folder.settings()
    own = {name: value for name, value in saved.items() if name in names}
    if saved:  # It goes with use_bfloat16.
        own["precision"] = saved.get("precision")
    folder.save_settings(dataclasses.replace(config, **own))


def _train(student, config, images, path, callbacks):
    """Takes the remaining steps; the student gets the weights to keep."""
    # It is of this step, whatever an earlier finetuning began with.
    checkpoints = Checkpoints(
        variables_by_name(student=student, optimizer=student.optimizer),
        unfinished(path),
        max_to_keep=2,
    )
    try:
        checkpoints.restore_latest()
    except DamagedCheckpoint as error:
        logging.warning("Finetuning starts over: %s", error)
    with contextlib.closing(checkpoints), watch_signals() as signals:
        if not _is_over(config, checkpoints, position(student)):
            fit_epochs(
                student,
                lambda start: _batches(config, images, start),
                every=_epoch_steps(config),
                validation_data=_validation_data(config, images),
                class_weight=class_weights(config, images),
                callbacks=[
                    *_callbacks(
                        config,
                        images,
                        os.path.dirname(path),
                        checkpoints,
                        signals,
                    ),
                    *callbacks,
                ],
            )
            checkpoints.wait()
    if config.finetune_patience:
        _restore_best(checkpoints, path)


def _callbacks(config, images, folder, checkpoints, signals):
    """The callbacks beside the steps, in the order in which they run.

    Args:
      config: `Config` of the run.
      images: of the run.
      folder: for the log.
      checkpoints: `Checkpoints` of the student.
      signals: see `watch_signals`.
    """
    every = _epoch_steps(config)
    save = SaveCheckpoint(
        checkpoints,
        best_by="val_accuracy" if config.finetune_patience else None,
    )
    callbacks = [
        StopAtStep(config.finetune_steps),
        _LogStepsAlone(),
        MetricsLogger(
            folder,
            every=config.log_every,
            batch_images=_batch_size(config, images),
        ),
        *progress(config.finetune_steps, config, stage="finetune"),
        _StopWhereNotFinite(),
    ]
    if config.finetune_patience:
        patience = config.finetune_patience
        callbacks.append(
            EarlyStopping(checkpoints, patience=patience, every=every)
        )
    stop_on_signal = StopOnSignal(signals, every=every, saving=save)
    return [*callbacks, save, stop_on_signal]


def _epoch_steps(config):
    """Steps in an epoch of `fit`, which ends at the next checkpoint."""
    if config.finetune_patience:
        return config.finetune_eval_every
    return config.save_every


def _batches(config, images, start):
    """The endless labeled batches, starting at a step of finetuning."""
    return user_error(
        data.finetuning_dataset,
        images,
        batch_size=_batch_size(config, images),
        seed=config.seed,
        start_step=start,
        balanced=config.label_sampling == "balanced",
        crop_padding=config.crop_padding,
    )


def _batch_size(config, images):
    return min(config.finetune_batch_size, len(images.labeled_images))


def _validation_data(config, images):
    """The held-out images, if they decide when finetuning ends."""
    if not config.finetune_patience:
        return None
    return user_error(
        data.validation_dataset, images, batch_size=config.eval_batch_size
    )


def _is_over(config, checkpoints, step):
    """Whether no step is left, as after a kill before weights were written."""
    if step >= config.finetune_steps:
        return True
    if not config.finetune_patience:
        return False
    waited = epochs_since_best(checkpoints, step, every=_epoch_steps(config))
    return waited >= config.finetune_patience


def _restore_best(checkpoints, path):
    try:
        checkpoints.restore_best()
    except CheckpointError as error:
        raise CheckpointError(
            f"{error} Delete {unfinished(path)} to finetune again."
        ) from error


class _LogStepsAlone(keras.callbacks.Callback):
    """Makes `fit` log every step alone, not the mean since its epoch began.

    That mean would be different if a signal cut the epoch in two.
    """

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()


class _StopWhereNotFinite(AtStep):
    """Ends finetuning before it saves useless weights."""

    def on_train_batch_end(self, batch, logs=None):
        if not np.isfinite(logs["loss"]):
            raise Diverged(
                f"The loss of finetuning is {logs['loss']} at step "
                f"{self.step}. Use a lower --finetune_lr."
            )
