"""What a run trains on: the strategy of its settings, and its checks."""

import dataclasses

import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.distribute.strategies import build_strategy
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.models.batch_norm import replicas_per_group
from meta_pseudo_labels.run.data import unlabeled_ratios
from meta_pseudo_labels.utils.settings import ConfigError, user_error


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
