"""The ImageNet path, and the minimum that any such path must do.

`imagenet` is what training reads as labeled images: records in keyed order,
Inception crops, flips, normalized. `bare_decode_and_crop` reads the same
records one after another, decodes a random window of each and resizes it:
plain tf.data, whose order cannot be resumed.
"""

import functools
import pathlib
import tempfile

import numpy as np
import tensorflow as tf

from meta_pseudo_labels import data

OURS, BARE = "imagenet", "bare_decode_and_crop"
BATCH_SIZE, RECORDS = 32, 128
HEIGHT, WIDTH, SIZE = 375, 500, 224  # Pixels, usual for ImageNet.


def imagenet_variants(images_per_second):
    """The two variants by name (see variants.py), on made-up pictures."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mpl-records-"))
    for split in ("train", "ten_percent", "validation"):
        write_records(folder / f"{split}-00000-of-00001")
    return {
        name: functools.partial(images_per_second, iter(batches), BATCH_SIZE)
        for name, batches in (
            (OURS, our_batches(folder)),
            (BARE, bare_batches(folder)),
        )
    }


def write_records(path):
    """Writes smooth random pictures as JPEGs in the release's records."""
    generator = np.random.default_rng(0)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(RECORDS):
            coarse = generator.integers(0, 256, [24, 32, 3], np.uint8)
            picture = tf.image.resize(coarse, [HEIGHT, WIDTH])
            picture = tf.cast(tf.clip_by_value(picture, 0, 255), tf.uint8)
            encoded = tf.io.encode_jpeg(picture, quality=90).numpy()
            feature = {
                "image/encoded": tf.train.Feature(
                    bytes_list=tf.train.BytesList(value=[encoded])
                ),
                "image/class/label": tf.train.Feature(
                    int64_list=tf.train.Int64List(value=[1 + number])
                ),
            }
            example = tf.train.Example(
                features=tf.train.Features(feature=feature)
            )
            writer.write(example.SerializeToString())


def our_batches(folder):
    images = data.load(
        "imagenet2012_subset",
        num_labeled=None,
        seed=0,
        label_subset="first",
        data_dir=str(folder),
    )
    return data.training_dataset(
        images, batch_size=BATCH_SIZE, unlabeled_ratio=0, magnitude=9, seed=0
    )


def bare_batches(folder):
    whole = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])

    def crop(record):
        encoded = tf.io.parse_single_example(
            record, {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
        )["image/encoded"]
        start, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(encoded),
            whole,
            area_range=(0.08, 1.0),
            aspect_ratio_range=(3 / 4, 4 / 3),
        )
        window = tf.concat([start[:2], size[:2]], axis=0)
        image = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
        return tf.image.resize(image, [SIZE, SIZE], method="bicubic")

    records = tf.data.TFRecordDataset([str(folder / "train-00000-of-00001")])
    return (
        records.repeat()
        .map(crop, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(BATCH_SIZE)
        .prefetch(tf.data.AUTOTUNE)
    )
