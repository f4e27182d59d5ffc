"""The images that a run's networks are evaluated on: its own, or others."""

import base64
import dataclasses
import os
import re

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data import (
    DatasetSpec,
    ImageData,
    Records,
    ShardedData,
    evaluation_dataset,
    load,
)
from meta_pseudo_labels.data.duplicates import names_of_image, warn_of_learned
from meta_pseudo_labels.data.sources import folders
from meta_pseudo_labels.data.spec import composed
from meta_pseudo_labels.run.config.after_training import FOLDERS
from meta_pseudo_labels.run.data import require_test_images
from meta_pseudo_labels.run.folder import EVAL_SOURCES
from meta_pseudo_labels.utils.files import path_hash
from meta_pseudo_labels.utils.settings import ConfigError, user_error

_AT_ONCE = 64
_SHOWN_PIXELS = 96


@dataclasses.dataclass(frozen=True)
class Source:
    """Images with labels, to evaluate a run's networks on.

    Attributes:
      name: what they are, for people.
      images: [N, H, W, 3] uint8, or `Records`.
      labels: [N] integers; None for `Records`, which hold their own.
      spec: `DatasetSpec` of the run, whose mean and std normalize them.
      numbers: the run's number of each class, if the labels have others.
      data: `ImageData` or `ShardedData` that they are of; None for folders.
      skipped: names of files that could not be read.
    """

    name: str
    images: np.ndarray | Records
    labels: np.ndarray | None
    spec: DatasetSpec
    numbers: tuple[int, ...] | None = None
    data: ImageData | ShardedData | None = None
    skipped: tuple[str, ...] = ()

    @property
    def skip_counter(self):
        """Counts damaged records, see `ShardedData`; None without one."""
        return getattr(self.data, "skip_counter", None)

    def batches(self, batch_size):
        """All of them once, in order: normalized images, the run's labels.

        Returns:
          tf.data.Dataset of ([b, H, W, 3] float32, [b] int32).
        """
        return self._batches(batch_size, self.spec)

    def pixel_batches(self, batch_size):
        """The same, with images before they are normalized, uint8."""
        as_they_are = dataclasses.replace(
            self.spec, mean=(0.0,) * 3, std=(1 / 255,) * 3
        )
        return self._batches(batch_size, as_they_are).map(
            lambda images, labels: (
                tf.cast(tf.round(images), tf.uint8),
                labels,
            )
        )

    def pictures(self, places):
        """Images to be shown, as data URLs; small ones keep their pixels.

        Args:
          places: of the images, a list.
        """
        labels = None if self.labels is None else self.labels[places]
        some = dataclasses.replace(
            self, images=self.images[places], labels=labels
        )
        batches = some.pixel_batches(_AT_ONCE) if places else ()
        return [_data_url(image) for images, _ in batches for image in images]

    def image_name(self, place):
        """The file of an image, if it is known, or its place."""
        if isinstance(self.data, ImageData) and self.data.names:
            return names_of_image(self.data, "test", place)
        return f"image {place:,}"

    def _batches(self, batch_size, spec):
        dataset = evaluation_dataset(
            self.images,
            self.labels,
            spec=spec,
            batch_size=batch_size,
            skip_counter=self.skip_counter,
        )
        if self.numbers is None:
            return dataset
        numbers = tf.constant(self.numbers, tf.int32)
        return dataset.map(
            lambda images, labels: (images, tf.gather(numbers, labels))
        )


def evaluation_source(config, images):
    """The run's own test images, or those of --eval_dataset.

    Args:
      config: `Config` of the run.
      images: the run's `ImageData` or `ShardedData`.

    Raises:
      ConfigError: if there are none, or their classes are not the run's.
    """
    if config.eval_dataset is not None:
        is_folder = config.eval_dataset == FOLDERS
        source = (_folder if is_folder else _other)(config, images.spec)
        if isinstance(images, ImageData) and source.labels is not None:
            warn_of_learned(source.images, images, where=source.name)
        return source
    held_out = "or evaluate on those of --num_validation, with `mpl evals`"
    require_test_images(
        images, instead=held_out if config.num_validation else ""
    )
    return Source(
        name=f"the test images of {images.spec.name}",
        images=images.test_images,
        labels=images.test_labels,
        spec=images.spec,
        data=images,
        skipped=images.skipped,
    )


def validation_source(config, images):
    """The run's validation images; None if num_validation is 0."""
    if not config.num_validation:
        return None
    return Source(
        name=f"the validation images of {images.spec.name}",
        images=images.validation_images,
        labels=images.validation_labels,
        spec=images.spec,
        data=images,
    )


def results_folder(config):
    """Where results go: output_dir, or a folder in it for other images."""
    if config.eval_dataset is None:
        return config.output_dir
    name = config.eval_dataset
    if name == FOLDERS:
        name += f"_{_label(config.eval_dir)}"
    elif config.eval_data_dir is not None:
        name += f"_{_label(config.eval_data_dir)}"
    name = re.sub(r"[^\w.-]", "_", name)
    return os.path.join(config.output_dir, EVAL_SOURCES, name)


def _data_url(image):
    """An image [H, W, 3] uint8 as a data URL, no larger than shown."""
    if image.shape[0] <= _SHOWN_PIXELS:
        kind, content = "png", tf.io.encode_png(image)
    else:
        small = tf.image.resize(image, [_SHOWN_PIXELS] * 2, antialias=True)
        small = tf.saturate_cast(tf.round(small), tf.uint8)
        kind, content = "jpeg", tf.io.encode_jpeg(small, quality=85)
    text = base64.b64encode(content.numpy()).decode()
    return f"data:image/{kind};base64,{text}"


def _label(folder):
    """A folder's name, with a hash of its path to tell it from others."""
    path = os.path.realpath(os.path.expanduser(folder))
    return f"{os.path.basename(path)}-{path_hash(path)}"


def _folder(config, spec):
    """The images of --eval_dir, prepared like those of folders."""
    images, labels, skipped = user_error(
        folders.load_test,
        os.path.expanduser(config.eval_dir),
        spec.names,
        image_size=spec.image_size,
        image_fit=spec.image_fit,
        background=spec.background,
        strict=config.strict_data,
        deep_levels=spec.deep_levels,
    )
    return Source(
        name=f"the images in {config.eval_dir}",
        images=images,
        labels=labels,
        spec=spec,
        skipped=skipped,
    )


def _other(config, spec):
    """The test images of another data set, prepared as its own are."""
    name = config.eval_dataset
    images = user_error(
        load,
        name,
        num_labeled=None,
        seed=config.seed,
        image_size=spec.image_size,
        image_fit=spec.image_fit,
        data_dir=config.eval_data_dir or config.data_dir,
        strict=config.strict_data,
    )
    require_test_images(images)
    return Source(
        name=f"the test images of {name}",
        images=images.test_images,
        labels=images.test_labels,
        spec=spec,
        numbers=_numbers_of(name, images.spec, spec),
        data=images,
        skipped=images.skipped,
    )


def _numbers_of(name, spec, run_spec):
    """The run's number of each class of another data set; None if the same.

    By their names, if both have some; otherwise there must be as many.
    """
    known = run_spec.class_names
    if not spec.class_names or not known:
        if spec.num_classes != run_spec.num_classes:
            raise ConfigError(
                f"--eval_dataset={name} has {spec.num_classes} classes and the "
                f"run {run_spec.num_classes}: they cannot be the same ones."
            )
        return None
    known = list(map(composed, known))
    names = list(map(composed, spec.class_names))
    unknown = [one for one in names if one not in known]
    if unknown:
        raise ConfigError(
            f"--eval_dataset={name} has the class {unknown[0]!r}, which the "
            f"run's networks do not know: they know {', '.join(known[:10])}"
            f"{' and more' if len(known) > 10 else ''}."
        )
    return tuple(known.index(one) for one in names)
