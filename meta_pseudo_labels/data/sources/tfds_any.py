"""Any other image classification set of TensorFlow Datasets, by its name.

    data.load("tfds:mnist", num_labeled=100, seed=0, flip=False)
    data.load("tfds:imagenette/320px-v2", num_labeled=100, image_size=64, ...)

With the prefix, nothing is known about the set but what its files tell: which
feature is the image, which the label, which splits there are. Sets with a row
in the table have plain names without the prefix.
"""

import dataclasses

import numpy as np

from meta_pseudo_labels.data.image_data import check_labels, keep_labels
from meta_pseudo_labels.data.images.decoding import MAX_PIXELS
from meta_pseudo_labels.data.images.files import decode_images
from meta_pseudo_labels.data.pixel_statistics import channel_statistics
from meta_pseudo_labels.data.sources import SOURCES, Source
from meta_pseudo_labels.data.sources.tfds import (
    hushed,
    in_order,
    prepared_builder,
)
from meta_pseudo_labels.data.spec import DatasetSpec

PREFIX = "tfds:"


def load(
    name,
    *,
    num_labeled,
    seed,
    label_subset="balanced",
    image_size=None,
    image_fit="crop",
    data_dir=None,
    flip=True,
    strict=False,
    max_pixels=MAX_PIXELS,
):
    """Loads a prepared TFDS data set that is not in the table.

    Images are made square like those in folders (`square_image`), gray ones
    become RGB. Images are in the order of the set's files, which TFDS shuffled
    once when it wrote them, the same way everywhere.

    Args:
      name: "tfds:" and the name that TFDS knows, with a configuration if it
        has several.
      num_labeled, seed, label_subset: see `labeled_positions`.
      image_size: pixels; None for the set's own, if all images are square and
        of one size.
      image_fit: "crop", "pad" or "squash", see `square_image`.
      data_dir: folder of prepared sets, see `tfds_source.load`.
      flip: whether a mirrored image keeps its class; False for text.
      strict, max_pixels: see `decode_images`.

    Returns:
      `ImageData`. All images of split `train` are unlabeled images too, and
      mean and standard deviation are theirs; the test images are those of
      split `test`, or else `validation`.

    Raises:
      ValueError: if the set is not prepared or has other features or splits, or
        num_labeled is not possible.
    """
    with hushed():
        builder = prepared_builder(name.removeprefix(PREFIX), data_dir)
        columns = _columns(builder, name)
        splits = _splits(builder, name)
        reading = dict(
            image_size=image_size or _own_size(builder, columns, name),
            image_fit=image_fit,
            strict=strict,
            max_pixels=max_pixels,
        )
        train, test = (
            _read_split(builder, split, columns, **reading) for split in splits
        )
    mean, std = channel_statistics(train.images)
    spec = DatasetSpec(
        name=name,
        num_classes=columns.label.num_classes,
        image_size=reading["image_size"],
        mean=mean,
        std=std,
        flip=flip,
        class_names=tuple(columns.label.names),
        image_fit=image_fit,
    )
    for split, part in zip(splits, (train, test), strict=True):
        check_labels(
            part.labels,
            spec,
            count=len(part.images),
            name=f"Split {split!r} of {name}",
        )
    return keep_labels(
        spec,
        images=train.images,
        labels=train.labels,
        test_images=test.images,
        test_labels=test.labels,
        num_labeled=num_labeled,
        seed=seed,
        label_subset=label_subset,
        skipped=(*train.skipped, *test.skipped),
    )


@dataclasses.dataclass(frozen=True)
class _Columns:
    """The two features that matter: their names, and TFDS's descriptions."""

    image_name: str
    label_name: str
    image: object
    label: object


@dataclasses.dataclass(frozen=True)
class _Part:
    images: np.ndarray
    labels: np.ndarray
    skipped: tuple[str, ...]


def image_feature(builder, name):
    """The name of a set's image feature; if there are several, see `_only`."""
    import tensorflow_datasets as tfds

    keys = builder.info.supervised_keys or ()
    return _only(tfds.features.Image, builder.info.features, keys, name)


def _columns(builder, name):
    """Finds the image and its label; if there are several, see `_only`."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    keys = builder.info.supervised_keys or ()
    image = image_feature(builder, name)
    label = _only(tfds.features.ClassLabel, features, keys, name)
    if features[image].np_dtype != np.uint8:
        raise ValueError(
            f"The feature {image!r} of {name} is {features[image].np_dtype}; "
            "only images of 8 bits (uint8) can be read."
        )
    return _Columns(
        image_name=image,
        label_name=label,
        image=features[image],
        label=features[label],
    )


def _only(kind, features, keys, name):
    """The name of the feature of a type.

    If there are several, the one that the set itself names in its
    supervised_keys, (input, target).
    """
    found = [key for key, value in features.items() if type(value) is kind]
    named = [key for key in found if key in keys]
    if len(found) != 1 and len(named) != 1:
        has = ", ".join(
            f"{key} ({type(features[key]).__name__})"
            for key in sorted(features)
        )
        raise ValueError(
            f"{name} is not an image classification set: it needs one Image "
            f"and one ClassLabel, but has {len(found)} {kind.__name__} "
            f"features. All it has: {has}."
        )
    return found[0] if len(found) == 1 else named[0]


def _splits(builder, name):
    """The split to train on and the one to test on."""
    splits = builder.info.splits
    test = [split for split in ("test", "validation") if split in splits]
    if "train" not in splits or not test:
        raise ValueError(
            f"{name} has the splits {', '.join(splits) or '(none)'}; it needs "
            "train, and test or validation."
        )
    return "train", test[0]


def _own_size(builder, columns, name):
    height, width, _ = columns.image.shape
    if height is None or height != width:
        raise ValueError(
            f"Images of {name} have the shape {columns.image.shape}, not one "
            "square size; give image_size, the pixels to bring them to."
        )
    return height


def _read_split(builder, split, columns, **reading):
    """Reads a whole split, in the order of its files."""
    import tensorflow_datasets as tfds

    decoders = tfds.decode.PartialDecoding(
        {columns.image_name: True, columns.label_name: True},
        decoders={columns.image_name: tfds.decode.SkipDecoding()},
    )
    labels = []

    def files():
        examples = in_order(builder, split, decoders=decoders)
        for place, example in enumerate(examples.as_numpy_iterator()):
            labels.append(int(example[columns.label_name]))
            data = example[columns.image_name]
            yield f"{split}/{place}", lambda data=data: data

    images, kept, skipped = decode_images(
        files(),
        count=builder.info.splits[split].num_examples,
        where=builder.info.full_name,
        **reading,
    )
    return _Part(images, np.array(labels, np.int32)[kept], skipped)


@SOURCES.register(f"{PREFIX}<name>")
class AnyTfds(Source):
    """See `load`."""

    hint = "for another set that TensorFlow Datasets prepared"
    exact = True
    load = staticmethod(load)

    def matches(self, name):
        return name.startswith(PREFIX)
