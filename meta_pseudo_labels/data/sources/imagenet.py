"""ImageNet, and its 10 % subset with labels, from prepared files.

Two layouts are read, distinguished by the files in the folder:

* the release's: TFRecord files train-*-of-*, validation-*-of-* and
  ten_percent-*-of-* of tf.train.Example, with `image/encoded` (JPEG) and
  `image/class/label`, counted from 1;
* TensorFlow Datasets' imagenet2012 and imagenet2012_subset/10pct.

Nothing is downloaded, and nothing is written beside the files.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data import sharded_data
from meta_pseudo_labels.data.images import photo_views
from meta_pseudo_labels.data.images.resizing import resized_as_released
from meta_pseudo_labels.data.labels import LABEL_SUBSETS, labeled_positions
from meta_pseudo_labels.data.sources import SOURCES, Source
from meta_pseudo_labels.data.sources import tfds as tfds_source
from meta_pseudo_labels.data.spec import DATASETS
from meta_pseudo_labels.data.streams.record_checks import check_records
from meta_pseudo_labels.data.streams.records import (
    check_present,
    find_shards,
    index_records,
    no_records,
)

# By our name: the data set in TFDS, and the split's prefix in the release.
LABELED_SOURCES = {
    "imagenet2012": ("imagenet2012", "train"),
    "imagenet2012_subset": ("imagenet2012_subset/10pct", "ten_percent"),
}


def load(
    name,
    *,
    num_labeled=None,
    seed=None,
    label_subset="first",
    image_size=None,
    data_dir=None,
    strict=False,
):
    """Finds the records of ImageNet; images stay in their files.

    Args:
      name: "imagenet2012", in which all images have labels; or
        "imagenet2012_subset", whose labeled images are the tenth that both the
        release and TFDS label. The unlabeled images of both are all training
        images, including the labeled ones, as in the release; there are none if
        only the subset is available.
      num_labeled: how many images keep their label: the first ones of the
        files. None for all, or for those that a file names.
      seed: not used; no choice here is random.
      label_subset: "first", unless all keep their label; or the path of a
        file from `save_labeled_indices`, to choose the same number again.
      image_size: pixels to which crops are resized; None for 224.
      data_dir: the folder; None for TFDS's default.
      strict: whether a run stops at a damaged record, see `Records`.

    Returns:
      `ShardedData`. The test images are those of the validation split.

    Raises:
      ValueError: if files are missing, cut off or of another kind, the first
        record of one cannot be used, or num_labeled is not possible.
    """
    spec = DATASETS[name]
    if image_size is not None:
        if image_size < 1:
            raise ValueError(f"image_size is {image_size}; give 1 or more.")
        spec = dataclasses.replace(spec, image_size=image_size)
    if data_dir and _is_release_folder(data_dir):
        labeled, unlabeled, test = _release_records(name, data_dir)
    else:
        with tfds_source.hushed():
            labeled, unlabeled, test = _tfds_records(name, data_dir)
    labeled, unlabeled, test = (
        dataclasses.replace(records, strict=strict)
        for records in (labeled, unlabeled, test)
    )
    for records in (labeled, test):
        _check_first(records, spec)
    if len(unlabeled):
        _check_first(unlabeled, spec, labeled=False)
    with tf.device("CPU:0"):
        skip_counter = tf.Variable(0, dtype=tf.int64, trainable=False)
    return sharded_data.ShardedData(
        spec=spec,
        labeled_images=_subset(labeled, num_labeled, label_subset, source=name),
        unlabeled_images=unlabeled,
        test_images=test,
        skip_counter=skip_counter,
    )


def _is_release_folder(folder):
    return any(
        find_shards(folder, split)
        for split in ("validation", "train", "ten_percent")
    )


def _release_records(name, folder):
    """Labeled, unlabeled and test records of the release's layout."""
    _, labeled = LABELED_SOURCES[name]
    found = {
        split: find_shards(folder, split)
        for split in {labeled, "train", "validation"}
    }
    for split in (labeled, "validation"):
        if not found[split]:
            raise ValueError(
                f"{folder} has no files {split}-*-of-*, which {name} needs."
            )
    records = {
        split: index_records(paths, parse_release) if paths else no_records()
        for split, paths in found.items()
    }
    return records[labeled], records["train"], records["validation"]


def parse_release(record):
    """Parses a record of the release; its labels count from 1."""
    features = tf.io.parse_single_example(
        record,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            # A missing label becomes -1, an error for labeled images only.
            "image/class/label": tf.io.FixedLenFeature([], tf.int64, 0),
        },
    )
    return {
        "image": features["image/encoded"],
        "label": tf.cast(features["image/class/label"] - 1, tf.int32),
    }


def _tfds_records(name, data_dir):
    """Labeled, unlabeled and test records of prepared TFDS sets."""
    source, _ = LABELED_SOURCES[name]
    builder = tfds_source.prepared_builder(source, data_dir)
    labeled = _split_records(builder, "train")
    test = _split_records(builder, "validation")
    if name == "imagenet2012":
        return labeled, labeled, test
    try:
        everything = tfds_source.prepared_builder("imagenet2012", data_dir)
    except ValueError:  # The subset is enough without unlabeled images.
        return labeled, no_records(), test
    return labeled, _split_records(everything, "train"), test


def _split_records(builder, split):
    """The records of a split of a prepared TFDS set."""
    import tensorflow_datasets as tfds  # Slow, and needed only here.

    folder = str(builder.data_dir)
    if split not in builder.info.splits:
        raise ValueError(
            f"{folder} has no split {split!r} but "
            f"{', '.join(builder.info.splits) or 'none'}; prepare it again, or "
            "point data_dir to where it is whole."
        )
    info = builder.info.splits[split]
    check_present(folder, info.filenames, present=tf.io.gfile.listdir(folder))
    # Keeps the encoded bytes: only the crop will be decoded.
    decoders = {"image": tfds.decode.SkipDecoding()}
    features = builder.info.features

    def parse(record):
        example = features.deserialize_example(record, decoders=decoders)
        return {
            "image": example["image"],
            "label": tf.cast(example["label"], tf.int32),
        }

    return index_records(
        [str(path) for path in info.filepaths],
        parse,
        lengths=info.shard_lengths,
    )


def _check_first(records, spec, *, labeled=True):
    """Raises ValueError unless the first record of each file is usable."""
    firsts = np.unique(records.shards, return_index=True)[1]
    damaged = check_records(records, spec, firsts, labeled=labeled)
    if damaged:
        raise ValueError(
            f"{len(damaged)} of {len(records.paths)} files begin with a "
            f"record that cannot be used. {damaged[0]}"
        )


def _subset(records, num_labeled, label_subset, *, source):
    """The first `num_labeled` records, or those of a file; all for None."""
    if label_subset not in LABEL_SUBSETS:
        return _subset_of_file(records, num_labeled, label_subset, source)
    if num_labeled is None or num_labeled == len(records):
        return records
    if not 1 <= num_labeled < len(records):
        raise ValueError(
            f"num_labeled is {num_labeled}; give a number from 1 to "
            f"{len(records)}, or None for all."
        )
    if label_subset != "first":
        raise ValueError(
            f"num_labeled is {num_labeled}; sets in files keep all labels "
            "(None, on the command line --num_labeled=0), or those of the "
            f"first records (--label_subset=first); {label_subset!r} needs to "
            "know all labels. imagenet2012_subset has a tenth of them."
        )
    return records.first(num_labeled)


def _subset_of_file(records, num_labeled, path, source):
    """The records that a file names, which must be the first ones."""
    positions = labeled_positions(
        # Dummy labels: a file for such a set holds none to compare with.
        np.zeros([len(records)], np.int32),
        num_labeled=num_labeled,
        num_classes=1,
        seed=0,
        label_subset=path,
        source=source,
    )
    count = len(positions)
    if positions[-1] != count - 1:
        raise ValueError(
            f"{path} names record {positions[-1]}, but not all before it; "
            "sets in files can only label their first records."
        )
    return records.first(count)


@SOURCES.register("imagenet2012")
@SOURCES.register("imagenet2012_subset")
class ImageNet(Source):
    """Photographs; evaluation shows their center crop.

    It is 224/256 of the short side, see `photo_views.decode_center_crop`.
    """

    load = staticmethod(load)

    def prepare_file(self, encoded, spec, *, is_jpeg, max_pixels):
        # Evaluation decodes only the crop, which changes pixels at its edge.
        return tf.cond(
            is_jpeg,
            lambda: photo_views.decode_center_crop(
                encoded, image_size=spec.image_size, max_pixels=max_pixels
            ),
            lambda: self.resize(self.decode(encoded, spec), spec)[0],
        )

    def resize(self, images, spec):
        top, left, height, width = tf.unstack(
            photo_views.center_window(tf.shape(images)[1:])
        )
        images = images[:, top : top + height, left : left + width]
        return resized_as_released(images, spec.image_size)

    def describe(self, spec):
        return (
            "center crop of 224/256 of the short side, resized to "
            f"{spec.image_size} x {spec.image_size} pixels, bicubic"
        )
