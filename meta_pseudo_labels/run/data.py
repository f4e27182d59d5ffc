"""A run's images and batches, from its settings."""

import contextlib
import dataclasses
import os

import numpy as np
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data import inspection
from meta_pseudo_labels.learners.losses import (
    balanced_weights,
    with_class_weights,
)
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.run.folder import LABELED
from meta_pseudo_labels.utils.settings import ConfigError, user_error


def load_data(config, given=None):
    """The images, as `data.ImageData` or `data.ShardedData`.

    Args:
      config: `Config`.
      given: such images, to use instead of those that the settings name. The
        settings of `data.vary`, which make another problem of them, and
        labels_csv apply to these too.

    Raises:
      ConfigError: if they cannot be loaded as the settings ask.
    """
    images = _load(config) if given is None else given
    config.check_classes(images.spec.num_classes)
    if isinstance(images, data.ShardedData):
        config.check_images_in_files(images.spec.name)
    if config.labels_csv is not None:
        from meta_pseudo_labels.data.answers import answer

        images = user_error(answer, images, config.labels_csv)
    return user_error(
        data.vary,
        images,
        seed=config.seed,
        known_classes=config.known_classes,
        label_noise=config.label_noise,
        num_validation=config.num_validation,
        num_feedback=config.num_feedback,
    )


def load_all_labels(config):
    """The images, where those of a run can no longer be chosen.

    Once files were removed from folders of labeled images, or added, there may
    not be enough of a class, or other files have the numbers of those chosen.

    Args:
      config: `Config` of the run.

    Returns:
      `data.ImageData` of which all images with a label keep it; None if the
      choice is not what stands in the way, or is not one among files.
    """
    if config.dataset != "folders" or not os.path.exists(
        os.path.join(config.output_dir, LABELED)
    ):
        return None
    every = dict(num_labeled=0, label_subset="balanced")
    try:
        images = load_data(dataclasses.replace(config, **every))
    except ConfigError:
        return None
    return dataclasses.replace(images, label_subset=config.label_subset)


def check_answers(config, *, given):
    """Refuses answers that cannot be used, before images are read.

    Args:
      config: `Config`.
      given: whether the images are given, not named by the settings.

    Raises:
      ConfigError: for a file that cannot be read, or images without names.
    """
    if config.labels_csv is None:
        return
    from meta_pseudo_labels.data.answers import read_answers

    if config.dataset != "folders" and not given:
        raise ConfigError(
            f"--labels_csv={config.labels_csv} is for --dataset=folders, whose "
            f"images have names; got --dataset={config.dataset}."
        )
    user_error(read_answers, config.labels_csv)


def _load(config):
    """The images that the settings name."""
    chosen = config.label_subset not in data.LABEL_SUBSETS  # A file chooses.
    subset = config.label_subset
    if chosen and not os.path.isfile(subset):  # The run has made it its own.
        subset = os.path.join(config.output_dir, LABELED)
    images = user_error(
        data.load,
        config.dataset,
        # 0 is all; a file sets the number.
        num_labeled=None if chosen else config.num_labeled or None,
        label_subset=subset,
        seed=config.seed,
        image_size=config.image_size,
        image_fit=config.image_fit,
        data_dir=config.data_dir,
        labeled_dir=config.labeled_dir,
        unlabeled_dir=config.unlabeled_dir,
        # With eval_dataset, it is not part of the run.
        eval_dir=None if config.eval_dataset else config.eval_dir,
        flip=config.flip,
        strict=config.strict_data,
    )
    return dataclasses.replace(images, label_subset=config.label_subset)


def training_batches(
    config, images, *, start_step, distributions=None, share=None
):
    """The endless training batches from a step on, of that step's size.

    Args:
      config: `Config`.
      images: `data.ImageData` or `data.ShardedData`.
      start_step: of the first batch.
      distributions: `data.ClassDistributions` of a fixed teacher, or None.
      share: `data.Share` of some replicas; None for whole batches.

    Raises:
      ConfigError: for settings that do not fit the images, or a service that
        does not answer.
    """
    batches = user_error(
        data.training_dataset,
        images,
        batch_size=config.train_batch_size,
        unlabeled_ratio=unlabeled_ratio(config, start_step),
        **_view_settings(config),
        balanced=config.label_sampling == "balanced",
        seed=config.seed,
        start_step=start_step,
        service=config.data_service,
        distributions=distributions,
        indices="unlabeled_indices" in LEARNERS[config.method].keys(config),
        share=share,
    )
    weights = class_weights(config, images)
    if weights is None:
        return batches
    return with_class_weights(batches, weights, images.spec.num_classes)


def images_per_batch(config, step):
    """Number of images in a batch, each counted once whatever its views."""
    return config.train_batch_size * (1 + unlabeled_ratio(config, step))


def unlabeled_ratio(config, step):
    """Unlabeled images per labeled one in the batch of a step."""
    ratios = unlabeled_ratios(config)
    return ratios[max(start for start in ratios if start <= step)]


def unlabeled_ratios(config):
    """The ratios of a run's batches, by the step at which they begin."""
    whole, growth = config.uda_data, config.uda_data_growth_steps
    if not LEARNERS[config.method].reads_unlabeled():
        return {0: 0}
    doublings = (whole - 1).bit_length() if growth else 0
    ratios = {growth * n: min(whole, 2**n) for n in range(doublings)}
    return ratios | {growth * doublings: whole}


def class_weights(config, images):
    """Class weights of labeled losses, as the settings ask, or None."""
    if config.class_weight is None:
        return None
    return balanced_weights(images.labeled_labels, images.spec.num_classes)


def adaptation_images(images, count=5_000):
    """Images that networks are adapted to, see `models.adapt`.

    Args:
      images: `data.ImageData`, or `data.ShardedData`, whose first images of
        each part are read.
      count: how many, spread evenly over labeled and unlabeled ones.

    Returns:
      [n, height, width, 3] float32, normalized; the same ones every time.
    """
    if isinstance(images, data.ShardedData):
        from meta_pseudo_labels.data.samples import sample

        images = sample(images, count=count // 2)
    labeled, unlabeled = images.labeled_images, images.unlabeled_images
    total = len(labeled) + len(unlabeled)
    rows = np.linspace(0, total - 1, min(count, total)).astype(int)
    own, others = rows[rows < len(labeled)], rows[rows >= len(labeled)]
    levels = [np.asarray(labeled[own])]
    if len(others):
        levels.append(np.asarray(unlabeled[others - len(labeled)]))
    spec = images.spec
    return data.normalize(
        np.concatenate(levels), mean=spec.mean, std=spec.std
    ).numpy()


def _view_settings(config):
    """The fields of the data's `ViewSettings`."""
    return dict(
        magnitude=config.augment_magnitude,
        cutout_share=config.augment_cutout,
        policy=config.augment_policy,
        augment_labeled=LEARNERS[config.method].augments_labeled(config),
        alternate_flips=config.alternate_flips,
        crop_padding=config.crop_padding,
    )


def evaluation_batches(config, images):
    """All test images once, see `data.evaluation_dataset`; None without any."""
    if not len(images.test_images):
        return None
    return data.evaluation_dataset(
        images.test_images,
        images.test_labels,
        spec=images.spec,
        batch_size=config.eval_batch_size,
        skip_counter=getattr(images, "skip_counter", None),
    )


def require_unlabeled_images(config, images):
    """Refuses to learn from unlabeled images where there are none.

    Args:
      config: `Config`.
      images: `data.ImageData` or `data.ShardedData`.

    Raises:
      ConfigError: if the method learns from some.
    """
    if any(unlabeled_ratios(config).values()) and not len(
        images.unlabeled_images
    ):
        raise ConfigError(
            f"--method={config.method} learns from unlabeled images, and "
            f"{images.spec.name!r} has none: give some (--unlabeled_dir for "
            "folders), keep fewer labels (--num_labeled), or learn from the "
            "labels alone (--method=supervised)."
        )


def require_test_images(images, *, why="", instead=""):
    """Refuses data without test images.

    Args:
      images: `data.ImageData` or `data.ShardedData`.
      why: what needs them, if that is not plain.
      instead: what else to do.

    Raises:
      ConfigError: if there are none.
    """
    if not len(images.test_images):
        why, instead = why and f"{why}: ", instead and f", {instead}"
        raise ConfigError(
            f"{why}{images.spec.name!r} has no test images; give some, for "
            f"folders with --eval_dir{instead}."
        )


def draw_views(config, images, path):
    """Draws the views that the settings give, see `inspection.draw_views`.

    Raises:
      ConfigError: for settings that give none.
    """
    user_error(
        inspection.draw_views,
        images,
        path,
        **_view_settings(config),
        seed=config.seed,
    )


@contextlib.contextmanager
def input_errors(experiment):
    """Turns what an input pipeline raises on purpose into a line of text.

    Raises:
      ConfigError: if records cannot be used; any other error as it is.
    """
    try:
        yield
    except tf.errors.OpError as error:
        text = data.explain_input_error(error, experiment.data)
        if text is None:
            raise
        raise ConfigError(text) from error
