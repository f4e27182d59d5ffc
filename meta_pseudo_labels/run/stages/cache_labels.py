"""Predictions of a run's network for all images, to train a student on."""

import shlex

from meta_pseudo_labels.data.class_distributions import CLASS_DISTRIBUTIONS
from meta_pseudo_labels.run.inference.networks import network_of
from meta_pseudo_labels.run.labeled_choice import check_choice_of_labels
from meta_pseudo_labels.run.stages import STAGES, RunFile, Stage
from meta_pseudo_labels.run.teacher_labels import cache_labels
from meta_pseudo_labels.utils.files import reports_full_disk
from meta_pseudo_labels.utils.settings import ConfigError


@STAGES.register("cache_labels")
class CacheLabels(Stage):
    help = "Save the student's predictions on all images for --teacher_labels."
    files = (
        RunFile(
            CLASS_DISTRIBUTIONS,
            "a network's predictions for all images, for a run with "
            "`teacher_labels`",
        ),
    )

    @staticmethod
    def run(experiment):
        print(f"Cached: {experiment.cache_labels()}")
        folder = shlex.quote(experiment.output_dir)
        print(f"For a student: --teacher_labels={folder}")


def cache_labels_of_run(experiment):
    """Writes a network's predictions for all images; see `cache_labels`.

    Args:
      experiment: `Experiment` of a trained run.

    Raises:
      ConfigError: if the settings name other checkpoints to predict with.
    """
    config = experiment.config
    if config.inference_checkpoints != [config.from_checkpoint]:
        raise ConfigError(
            "--inference_ckpt and --inference_ckpt_ensemble are for `mpl "
            "predict`; choose the checkpoint whose labels are cached by "
            "--from_checkpoint."
        )
    learner, images = experiment.trained_learner(), experiment.data
    network = network_of(learner, config, images.spec)
    check_choice_of_labels(config, images)
    with reports_full_disk(config.output_dir):
        return cache_labels(network, config, images)
