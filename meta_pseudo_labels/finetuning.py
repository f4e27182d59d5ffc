"""Finetuning the student on the labeled images, which it never trained on."""

import contextlib
import json
import os
import shutil
import zlib

import keras
import numpy as np
from absl import logging

from meta_pseudo_labels import data
from meta_pseudo_labels.build import build_model
from meta_pseudo_labels.callbacks import AtStep, SaveCheckpoint
from meta_pseudo_labels.checkpoint_files import DamagedCheckpoint, save_weights
from meta_pseudo_labels.checkpointing import Checkpoints, variables_by_name
from meta_pseudo_labels.config import ConfigError
from meta_pseudo_labels.files import locked, reports_full_disk, write_whole
from meta_pseudo_labels.fitting import fit_epochs
from meta_pseudo_labels.metrics_log import MetricsLogger
from meta_pseudo_labels.progress import progress_bar
from meta_pseudo_labels.run_data import check_choice_of_labels
from meta_pseudo_labels.run_folder import (
    FINETUNE,
    FINETUNING_SETTINGS,
    save_settings,
)
from meta_pseudo_labels.stopping import (
    Diverged,
    StopAtStep,
    StopOnSignal,
    watch_signals,
)


def finetune(student, dataset, *, learning_rate, steps, callbacks=()):
    """Trains the student on labels: the last stage of the paper (section 3).

    Plain SGD at a fixed rate, and whatever weights the last step leaves: no
    selection. Batch norm runs in training mode, so that its moving averages go
    over to the labeled images.

    Args:
      student: a Keras model that returns logits, [batch, classes]; changed.
      dataset: batches of (inputs, integer labels [batch]), without end.
      learning_rate: the paper's is 1e-5.
      steps: the paper's is 1,000 for CIFAR-10 and SVHN, 2,000 for ImageNet.
      callbacks: for `fit`.

    Returns:
      The `keras.callbacks.History` of the only epoch.
    """
    _compile(student, learning_rate)
    return student.fit(
        dataset,
        steps_per_epoch=steps,
        epochs=1,
        callbacks=list(callbacks),
        shuffle=False,
        verbose=0,
    )


def finetune_run(learner, config, images):
    """Finetunes the student of a run, and goes on where that was cut off.

    Args:
      learner: as a checkpoint of the run has it.
      config: `Config` of the run.
      images: `data.ImageData` or `data.ShardedData`.

    Returns:
      Whether there was anything left to do.

    Raises:
      ConfigError: where the data is not that of the run, or its student was
        finetuned otherwise.
      Interrupted: by SIGTERM or Ctrl-C; the same call goes on.
      Diverged: where the loss is not finite.
    """
    check_choice_of_labels(config, images)
    path = finetuned_path(learner, config)
    folder = os.path.dirname(path)
    with reports_full_disk(folder), locked(folder):
        if not _prepare(config, path):
            return False
        save_settings(config)
        student = build_model(config, images.spec, role="student")
        student.set_weights(learner.finished_student().get_weights())
        _compile(student, config.finetune_lr)
        # It is of this step, whatever an earlier finetuning began with.
        checkpoints = Checkpoints(
            variables_by_name(student=student, optimizer=student.optimizer),
            _unfinished(path),
            max_to_keep=2,
        )
        try:
            checkpoints.restore_latest()
        except DamagedCheckpoint as error:
            logging.warning("Finetuning begins anew: %s", error)
        with (
            contextlib.closing(checkpoints),
            watch_signals() as signals,
        ):
            save = SaveCheckpoint(checkpoints)
            fit_epochs(
                student,
                lambda start: _batches(config, images, start),
                every=config.save_every,
                callbacks=[
                    StopAtStep(config.finetune_steps),
                    MetricsLogger(folder, every=config.log_every),
                    *progress_bar(
                        config.finetune_steps,
                        show=config.progress,
                        stage="finetune",
                    ),
                    _StopWhereNotFinite(),
                    save,
                    StopOnSignal(signals, every=config.save_every, saving=save),
                ],
            )
            checkpoints.wait()
            save_weights(student, path)
            shutil.rmtree(_unfinished(path))
    return True


def finetuned_path(learner, config):
    """Where the student finetuned from a learner's step is."""
    source = config.from_checkpoint
    of_another = ""
    if source not in ("latest", "best"):  # Its step may be that of two runs.
        name = os.path.realpath(source).encode()
        of_another = f"-of-{zlib.crc32(name):08x}"
    step = int(learner.step.numpy())
    name = f"from-step-{step}{of_another}.weights.h5"
    return os.path.join(config.output_dir, FINETUNE, name)


def _compile(student, learning_rate):
    student.compile(
        optimizer=keras.optimizers.SGD(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    student.optimizer.build(student.trainable_variables)


def _batches(config, images, start):
    """The endless labeled batches from a step of finetuning on."""
    return data.finetuning_dataset(
        images,
        batch_size=min(config.finetune_batch_size, len(images.labeled_images)),
        seed=config.seed,
        start_step=start,
    )


def _prepare(config, path):
    """Compares the settings with those of an earlier finetuning.

    Returns:
      Whether there is anything to do; what is in the way is gone then.
    """
    settings = {
        name: getattr(config, name) for name in sorted(FINETUNING_SETTINGS)
    }
    beside = f"{path}.json"
    if os.path.exists(beside):
        before = _settings_in(beside)
        if before != settings and not config.allow_hparam_change:
            raise ConfigError(
                f"{path} was finetuned with other settings: {before}, now "
                f"{settings}. Use these, or --allow_hparam_change to finetune "
                "it anew."
            )
        if before == settings and os.path.exists(path):
            # A kill may have come before they went.
            shutil.rmtree(_unfinished(path), ignore_errors=True)
            return False
        if before != settings:  # What they made goes before the new ones come.
            shutil.rmtree(_unfinished(path), ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
    write_whole(beside, json.dumps(settings, indent=2) + "\n")
    return True


def _settings_in(path):
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read as the settings of a finetuning: {error}. "
            "Delete it to finetune again."
        ) from error


def _unfinished(path):
    """Folder of the checkpoints of a finetuning that goes on."""
    return path.removesuffix(".weights.h5")


class _StopWhereNotFinite(AtStep):
    """Ends finetuning before it saves weights that are of no use."""

    def on_train_batch_end(self, batch, logs=None):
        if not np.isfinite(logs["loss"]):
            raise Diverged(
                f"The loss of finetuning is {logs['loss']} at step "
                f"{self.step}. Use a lower --finetune_lr than the present one."
            )
