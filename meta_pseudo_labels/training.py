"""The training stage of a run, on whatever devices there are."""

import functools
import os

import tensorflow as tf
from absl import logging

from meta_pseudo_labels import data
from meta_pseudo_labels.callbacks import (
    Evaluation,
    MetricsLogger,
    SaveCheckpoint,
    StopAtStep,
    progress_bar,
)
from meta_pseudo_labels.checkpointing import CheckpointError, checkpoint_manager
from meta_pseudo_labels.config import ConfigError
from meta_pseudo_labels.distribution import is_multi_worker, worker_of
from meta_pseudo_labels.run_data import (
    check_choice_of_labels,
    save_choice_of_labels,
    training_batches,
)
from meta_pseudo_labels.run_folder import reset, save_settings
from meta_pseudo_labels.starting import restore_start
from meta_pseudo_labels.teacher_labels import (
    load_teacher_labels,
    save_teacher_labels,
)


def train(learner, config, images, *, validation):
    """Trains to num_train_steps, from the latest checkpoint on.

    Of several workers each calls it; the first one writes.

    Args:
      learner: the compiled `Learner`, built in the scope of its strategy.
      config: `Config`.
      images: `data.ImageData` or `data.ShardedData`.
      validation: data set to evaluate on after every save_every steps, or None.

    Returns:
      Whether there was anything left to do.

    Raises:
      CheckpointError, ConfigError: before any step, where the run cannot begin
        or go on. ConfigError also where another worker went.
    """
    strategy = learner.distribute_strategy
    fresh = config.reset_output_dir and learner.step.numpy() == 0
    if not fresh:
        check_choice_of_labels(config, images)
    start = restore_start(learner, config, fresh=fresh)
    _check_same_start(strategy, start)
    if start >= config.num_train_steps:
        return False
    distributions = load_teacher_labels(config, images, fresh=fresh)
    batches = functools.partial(
        training_batches,
        config,
        images,
        start_step=start,
        distributions=distributions,
    )
    if strategy.num_replicas_in_sync > 1:
        dataset = data.distribute(strategy, lambda share: batches(share=share))
    else:
        dataset = batches()
    writes = worker_of(strategy) == 0
    if writes:
        if fresh:  # Only now that all else is known to be in order.
            reset(config)
        os.makedirs(config.output_dir, exist_ok=True)
        save_choice_of_labels(config, images)
        save_teacher_labels(config, distributions)
        save_settings(config)
    alone = not is_multi_worker(strategy)
    callbacks = [StopAtStep(config.num_train_steps)]
    if writes and not alone and validation is not None:
        callbacks.append(Evaluation(validation))
    if writes:
        callbacks += _records(learner, config)
    try:
        learner.fit(
            dataset,
            epochs=-(-config.num_train_steps // config.save_every),
            initial_epoch=start // config.save_every,
            steps_per_epoch=config.save_every,
            validation_data=validation if alone else None,
            callbacks=callbacks,
            verbose=0,
        )
    except tf.errors.OpError as error:
        if alone:
            raise
        raise _lost_worker(config, error) from error
    return True


def _records(learner, config):
    """Callbacks that write and show what happens."""
    return [
        MetricsLogger(config.output_dir, every=config.log_every),
        SaveCheckpoint(checkpoint_manager(learner, config.output_dir)),
        *progress_bar(config.num_train_steps, show=config.progress),
    ]


def _check_same_start(strategy, start):
    """Refuses workers that go on from different checkpoints."""
    if not is_multi_worker(strategy):
        return

    @tf.function
    def gather():
        own = strategy.run(lambda: tf.constant([start], tf.int64))
        return strategy.gather(own, axis=0)

    starts = gather().numpy()
    if len(set(starts)) > 1:
        raise CheckpointError(
            "The workers found checkpoints of different steps, "
            f"{', '.join(map(str, starts))}: --output_dir must be one folder "
            "that all of them share."
        )


def _lost_worker(config, error):
    """What to tell where a collective operation failed."""
    logging.debug("%s", error)
    return ConfigError(
        "The workers lost one another: one of them stopped, or the network "
        f"did ({type(error).__name__}). Start all of them again with the same "
        "commands: they go on from the latest checkpoint in "
        f"{config.output_dir}."
    )
