"""A run's images and batches, from its settings."""

import json
import os

from meta_pseudo_labels import data
from meta_pseudo_labels.config import ConfigError, user_error
from meta_pseudo_labels.run_folder import LABELED, write_whole


def load_data(config):
    """The images, as `data.ImageData` or `data.ShardedData`.

    Raises:
      ConfigError: where they cannot be had as the settings say.
    """
    chosen = config.label_subset not in data.LABEL_SUBSETS  # By a file.
    images = user_error(
        data.load,
        config.dataset,
        # 0 is all; a file says itself how many.
        num_labeled=None if chosen else config.num_labeled or None,
        label_subset=config.label_subset,
        seed=config.seed,
        image_size=config.image_size,
        data_dir=config.data_dir,
        labeled_dir=config.labeled_dir,
        unlabeled_dir=config.unlabeled_dir,
        eval_dir=config.eval_dir,
        flip=config.flip,
        strict=config.strict_data,
    )
    config.check_classes(images.spec.num_classes)
    return images


def training_batches(config, images, *, start_step):
    """The endless training batches from a step on.

    Raises:
      ConfigError: for settings that do not fit the images, or a service that
        does not answer.
    """
    supervised = config.method == "supervised"
    return user_error(
        data.training_dataset,
        images,
        batch_size=config.train_batch_size,
        unlabeled_ratio=0 if supervised else config.uda_data,
        policy=config.augment_policy,
        magnitude=config.augment_magnitude,
        cutout_share=config.augment_cutout,
        # As in the release, whose other methods never read the flag.
        augment_labeled=config.use_augment and supervised,
        seed=config.seed,
        start_step=start_step,
        service=config.data_service,
    )


def check_choice_of_labels(config, images):
    """Refuses to go on with a run that chose other labels.

    Raises:
      ConfigError: where its labeled.json names other images or cannot be
        read.
    """
    path = os.path.join(config.output_dir, LABELED)
    if not os.path.exists(path):
        return
    try:
        with open(path) as file:
            saved = json.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read as the run's choice of labels: {error}. "
            "Restore it, or train in another --output_dir."
        ) from error
    if saved != data.labeled_choice(images):
        raise ConfigError(
            f"{path} names other labeled images than are found now: the data "
            "has changed since the run began. Restore it, or train in another "
            "--output_dir."
        )


def save_choice_of_labels(config, images):
    """Writes labeled.json, from which the choice can be repeated."""
    text = json.dumps(data.labeled_choice(images)) + "\n"
    write_whole(os.path.join(config.output_dir, LABELED), text)
