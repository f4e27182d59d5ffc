"""Small sets of JPEG images in TFRecord files, for tests.

Image i is one gray, SHADE * i, and its class is i; so both tell which it is.
"""

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.sources import imagenet
from meta_pseudo_labels.data.streams import records

SHADE = 10


def jpeg(number, shape=(9, 12, 3)):
    """The bytes of image `number`."""
    pixels = tf.fill(shape, tf.cast(number * SHADE, tf.uint8))
    return tf.io.encode_jpeg(pixels, quality=100).numpy()


def example(image=None, label=None):
    """A serialized record of the release; the label counts from 1."""
    feature = {}
    if image is not None:
        values = tf.train.BytesList(value=[image])
        feature["image/encoded"] = tf.train.Feature(bytes_list=values)
    if label is not None:
        values = tf.train.Int64List(value=[label])
        feature["image/class/label"] = tf.train.Feature(int64_list=values)
    features = tf.train.Features(feature=feature)
    return tf.train.Example(features=features).SerializeToString()


def write(path, examples):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in examples:
            writer.write(record)


def write_split(folder, split, counts, *, first=0):
    """Writes shards of counts[0], counts[1], ... images; returns them all."""
    written = []
    for shard, count in enumerate(counts):
        name = f"{split}-{shard:05d}-of-{len(counts):05d}"
        start = first + sum(counts[:shard])
        part = [example(jpeg(i), i + 1) for i in range(start, start + count)]
        write(folder / name, part)
        written += part
    return written


def index(folder, split):
    """`Records` of what `write_split` wrote."""
    paths = records.find_shards(str(folder), split)
    return records.index_records(paths, imagenet.parse_release)


def damage(path, number, byte=-20):
    """Changes a byte of a record: its checksum is wrong from then on."""
    content = bytearray(path.read_bytes())
    start = 0
    for _ in range(number + 1):
        begin = start
        length = int.from_bytes(content[begin : begin + 8], "little")
        start = begin + 16 + length
    content[start + byte] ^= 255
    path.write_bytes(content)


def shades(images, spec):
    """Which images these are, read off their first pixels."""
    pixels = (images[:, 0, 0] * spec.std + spec.mean) * 255
    return np.rint(pixels.mean(axis=-1) / SHADE).astype(int).tolist()
