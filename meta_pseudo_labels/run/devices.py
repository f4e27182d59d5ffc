"""What a run trains on: the strategy of its settings, and its checks."""

import contextlib
import dataclasses
import signal

import tensorflow as tf
from absl import logging

from meta_pseudo_labels import models
from meta_pseudo_labels.distribute.strategies import (
    build_strategy,
    is_multi_worker,
)
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.models.batch_norm import replicas_per_group
from meta_pseudo_labels.run.data import unlabeled_ratios
from meta_pseudo_labels.run.stopping import Interrupted
from meta_pseudo_labels.utils.settings import ConfigError, user_error

# What collective operations raise when a worker is gone.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)


def training_strategy(config):
    """The strategy that a run trains with, see `build_strategy`.

    Raises:
      ConfigError: as `build_strategy`, and for settings that its replicas
        cannot run with.
    """
    strategy = build_strategy(config)
    check_replicas(config, strategy)
    return strategy


def check_replicas(config, strategy):
    """Refuses settings that a strategy's replicas cannot run with.

    Raises:
      ConfigError: if they cannot share a batch, or compile the step.
    """
    replicas = strategy.num_replicas_in_sync
    is_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    if config.train_batch_size % replicas:
        raise ConfigError(
            f"--train_batch_size={config.train_batch_size} cannot be shared by "
            f"{replicas} replicas; give a multiple of {replicas}."
        )
    share = config.train_batch_size // replicas
    if share % config.batch_slices:
        raise ConfigError(
            f"--batch_slices={config.batch_slices} does not divide the "
            f"{share} labeled images of each of {replicas} replicas."
        )
    if config.jit_compile and replicas > 1 and not is_tpu:
        raise ConfigError(
            f"--jit_compile works on one device; there are {replicas}. Leave "
            "it out, or use --distribution=one_device."
        )
    types = (config.model_type, config.teacher_model_type or config.model_type)
    if any(map(models.has_blocks, types)):
        for parts in _all_passes(config):
            user_error(
                replicas_per_group,
                replicas,
                batch_size=share // config.batch_slices * parts,
                group_batch_size=config.batch_norm_batch_size,
            )


def _all_passes(config):
    """What `passes` of a method gives for all batches of a run."""
    ratios = unlabeled_ratios(config).values()
    passes = LEARNERS[config.method].passes
    return set().union(
        *(
            passes(dataclasses.replace(config, uda_data=n or config.uda_data))
            for n in ratios
        )
    )


@contextlib.contextmanager
def reports_lost_workers(strategy, config, signals=()):
    """Turns what a collective operation raises without partners into one line.

    Args:
      strategy: tells whether there are other workers.
      config: `Config`.
      signals: those that this worker got. Its partners then got them too: the
        one that notices first ends between two steps; in the others a step
        fails, and they blame nobody.
    """
    try:
        yield
    except _LOST as error:
        if not is_multi_worker(strategy):
            raise
        logging.debug("%s", error)
        if signals:
            name = signal.Signals(signals[0]).name
            why = f"{name} ended this worker, as another one ended."
        else:
            why = (
                "The workers lost one another: one of them stopped, or the "
                f"network did ({type(error).__name__})."
            )
        raise Interrupted(
            f"{why} Start all of them again with the same commands: they go on "
            f"from the latest checkpoint in {config.output_dir}."
        ) from error
