"""Features of CIFAR-10 by a frozen network: of images, weak and strong views.

    python -m benchmarks.pretrained.convert --output runs/lite0.weights.h5
    python -m benchmarks.frozen_features.features --data_dir data/tfds \
        --weights runs/lite0.weights.h5 --output runs/features.npz

Views are those of this project at 32 x 32 pixels, scaled up to 96 x 96 for
EfficientNet-Lite0. Everything is keyed by a seed and the image, so that a
second run writes the same.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from meta_pseudo_labels import data, models

NAME = "efficientnet-lite0"
IMAGE_SIZE = 96
MEAN, SCALE = 127.0, 128.0  # What its weights expect, of levels 0 to 255.
POOL, VALIDATION = 10_000, 2_000  # The first of the 50,000 training images.
VIEWS = 4  # Pairs of a weak and a strong view of each image of the pool.
MAGNITUDE = 16  # Of RandAugment, as in the release's CIFAR-10 runs.
BATCH, SEED = 250, 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_dir", required=True, help="folder for TFDS")
    parser.add_argument("--weights", required=True, help="*.weights.h5")
    parser.add_argument("--output", required=True, help="*.npz")
    arguments = parser.parse_args()
    start = time.monotonic()
    extract = extractor(arguments.weights)
    split = f"train[:{POOL + VALIDATION}]"
    images, labels = load(arguments.data_dir, split)
    test_images, test_labels = load(arguments.data_dir, "test")
    pool = images[:POOL]
    pairs = [views(pool, view) for view in range(VIEWS)]
    arrays = {
        "plain": extract(pool),
        "weak": np.stack([extract(weak) for weak, _ in pairs]),
        "strong": np.stack([extract(strong) for _, strong in pairs]),
        "labels": labels[:POOL],
        "validation": extract(images[POOL:]),
        "validation_labels": labels[POOL:],
        "test": extract(test_images),
        "test_labels": test_labels,
    }
    np.savez(arguments.output, **arrays)
    count = (1 + 2 * VIEWS) * POOL + VALIDATION + len(test_images)
    print(f"{count} images in {time.monotonic() - start:.0f} seconds.")


def load(folder, split):
    """Images, [N, 32, 32, 3] uint8, and labels, [N] int64."""
    images, labels = tfds.as_numpy(
        tfds.load(
            "cifar10",
            split=split,
            data_dir=folder,
            download=False,
            batch_size=-1,
            as_supervised=True,
        )
    )
    return images, labels


def views(images, number):
    """A pair of views of each image: arrays like the images."""
    spec = data.DATASETS["cifar10"]
    weak_view = data.weak_view(spec)
    strong_view = data.strong_view(spec, magnitude=MAGNITUDE)

    @tf.function
    def pair(some, seed):
        weak = weak_view(some, seed)
        return weak, strong_view(weak, seed + 1)

    pairs = [
        pair(images[first : first + BATCH], tf.constant([SEED + number, first]))
        for first in range(0, len(images), BATCH)
    ]
    return [np.concatenate(side) for side in zip(*pairs, strict=True)]


def extractor(weights):
    """A function from images to features, [N, 1280] float16."""
    model = models.build(
        NAME, input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3), num_classes=1_000
    )
    model.load_weights(weights)
    network = keras.Model(
        model.input, model.get_layer("head.global_avg_pool").output
    )

    @tf.function
    def features(images):
        images = tf.image.resize(images, [IMAGE_SIZE, IMAGE_SIZE], "bicubic")
        found = network((images - MEAN) / SCALE, training=False)
        return tf.cast(found, tf.float16)

    def extract(images):
        return np.concatenate(
            [
                features(images[first : first + BATCH]).numpy()
                for first in range(0, len(images), BATCH)
            ]
        )

    return extract


if __name__ == "__main__":
    main()
