"""Random images of CIFAR-10's shape and number, and batches of them."""

import numpy as np

from meta_pseudo_labels import data

SPEC = data.DATASETS["cifar10"]
LABELED, TEST = 4_000, 10_000
MAGNITUDE = 16  # Of RandAugment, as in flags/cifar10_4000_mpl.flags.


def training_batches(settings, *, batch_size):
    """An iterator over what training reads, on random images."""
    return iter(
        data.training_dataset(
            random_data(settings.train_images),
            batch_size=batch_size,
            unlabeled_ratio=settings.unlabeled_ratio,
            magnitude=MAGNITUDE,
            seed=0,
        )
    )


def random_data(train_images):
    """Random images in memory, laid out like CIFAR-10 with 4,000 labels."""
    images = random_images(train_images)
    labels = np.arange(len(images), dtype=np.int32) % SPEC.num_classes
    labeled = np.arange(min(LABELED, len(images)))
    return data.ImageData(
        spec=SPEC,
        labeled_images=images[labeled],
        labeled_labels=labels[labeled],
        unlabeled_images=images,
        test_images=random_images(TEST),
        test_labels=np.zeros([TEST], np.int32),
        labeled_indices=labeled,
    )


def random_images(count):
    shape = [count, SPEC.image_size, SPEC.image_size, 3]
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
