"""A data set in memory, as the pipelines want it: uint8 RGB arrays."""

import dataclasses

import numpy as np

from meta_pseudo_labels.augment import FILL
from meta_pseudo_labels.data.specs import DatasetSpec
from meta_pseudo_labels.data.subsets import labeled_positions


@dataclasses.dataclass(frozen=True)
class ImageData:
    """Images and labels of one semi-supervised problem.

    Attributes:
      spec: the facts; image_size and num_classes hold for all arrays.
      labeled_images: [N, H, W, 3] uint8, N >= 1.
      labeled_labels: [N] int32.
      unlabeled_images: [M, H, W, 3] uint8, M >= 0.
      test_images: [T, H, W, 3] uint8, T >= 0.
      test_labels: [T] int32.
      labeled_indices: [N] int64, where the labeled images stand in the
        original order of their source: enough to make the same choice again.
        Digits count as scikit-learn does, TFDS sets by the number in the `id`
        of their split `train`, arrays of your own from 0.
      skipped: names of files that could not be read, within their folders.
      label_subset, seed: what `data.load` chose the labeled images by; None
        where they came chosen.

    Raises:
      ValueError: if an array has another type, shape or range.
    """

    spec: DatasetSpec
    labeled_images: np.ndarray
    labeled_labels: np.ndarray
    unlabeled_images: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    labeled_indices: np.ndarray
    skipped: tuple[str, ...] = ()
    label_subset: str | None = None
    seed: int | None = None

    def __post_init__(self):
        for part in ("labeled", "unlabeled", "test"):
            images = getattr(self, f"{part}_images")
            check_images(images, self.spec, name=f"{part}_images")
        check_labels(
            self.labeled_labels,
            self.spec,
            count=len(self.labeled_images),
            name="labeled_labels",
        )
        check_labels(
            self.test_labels,
            self.spec,
            count=len(self.test_images),
            name="test_labels",
        )
        if len(self.labeled_images) == 0:
            raise ValueError(
                "labeled_images is empty; give at least one labeled image."
            )
        if len(self.labeled_indices) != len(self.labeled_images):
            raise ValueError(
                f"labeled_indices has {len(self.labeled_indices)} entries for "
                f"{len(self.labeled_images)} labeled images; give one each."
            )


def from_arrays(
    labeled_images,
    labels,
    unlabeled_images,
    *,
    test_images=None,
    test_labels=None,
    flip=True,
    background=FILL,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    num_classes=None,
    class_names=(),
):
    """Images of your own, for the pipelines.

    Args:
      labeled_images: [N, S, S, 3] uint8.
      labels: [N] integers, 0 to num_classes - 1.
      unlabeled_images: [M, S, S, 3] uint8.
      test_images, test_labels: [T, S, S, 3] uint8 and [T] integers, or none.
      flip, background, mean, std, class_names: see `DatasetSpec`. False for
        flip where a mirrored image is another class, as with text.
      num_classes: largest label + 1 unless given.

    Returns:
      `ImageData`.

    Raises:
      ValueError: if an array has another type, shape or range.
    """
    labeled_images, labels = np.asarray(labeled_images), np.asarray(labels)
    if labeled_images.ndim != 4 or len(labeled_images) != len(labels):
        raise ValueError(
            f"labeled_images has shape {list(labeled_images.shape)} for "
            f"{len(labels)} labels; pass [N, size, size, 3], one label each."
        )
    if num_classes is None:
        num_classes = _count_classes(labels)
    if test_images is None:
        test_images, test_labels = labeled_images[:0], labels[:0]
    spec = DatasetSpec(
        name="arrays",
        num_classes=num_classes,
        image_size=labeled_images.shape[1],
        mean=tuple(mean),
        std=tuple(std),
        flip=flip,
        class_names=tuple(class_names),
        background=background,
    )
    return ImageData(
        spec=spec,
        labeled_images=labeled_images,
        labeled_labels=labels,
        unlabeled_images=np.asarray(unlabeled_images),
        test_images=np.asarray(test_images),
        test_labels=np.asarray(test_labels),
        labeled_indices=np.arange(len(labels)),
    )


def keep_labels(
    spec,
    *,
    images,
    labels,
    test_images,
    test_labels,
    num_labeled,
    seed,
    label_subset,
    skipped=(),
):
    """A semi-supervised problem out of a data set that is all labeled.

    Args:
      spec: its facts; image_size is taken from `images`.
      images: [N, S, S, 3] uint8, the training images; where there are more of
        them than labels, the later ones have none.
      labels: [L] int32, L <= N.
      test_images, test_labels: [T, S, S, 3] uint8 and [T] int32.
      num_labeled, seed, label_subset: see `labeled_positions`.
      skipped: see `ImageData`.

    Returns:
      `ImageData`. All training images are unlabeled images too, the labeled
      ones among them, as in the release (quirk 31).

    Raises:
      ValueError: if so many labels cannot be had, or one is out of range.
    """
    spec = dataclasses.replace(spec, image_size=images.shape[1])
    check_labels(labels, spec, count=len(labels), name="labels")
    chosen = labeled_positions(
        labels,
        num_labeled=num_labeled,
        num_classes=spec.num_classes,
        seed=seed,
        label_subset=label_subset,
        source=spec.name,
    )
    everything = len(chosen) == len(images)
    return ImageData(
        spec=spec,
        # Not a second copy where all images are labeled.
        labeled_images=images if everything else images[chosen],
        labeled_labels=labels[chosen],
        unlabeled_images=images,
        test_images=test_images,
        test_labels=test_labels,
        labeled_indices=chosen,
        skipped=skipped,
    )


def _count_classes(labels):
    """Largest label + 1; raises ValueError where a class has no label."""
    num_classes = int(labels.max(initial=0)) + 1
    missing = sorted(set(range(num_classes)) - set(labels.tolist()))
    if missing:
        raise ValueError(
            f"No image is labeled {missing}; labels count from 0. Pass "
            "num_classes where classes without a label are meant."
        )
    return num_classes


def check_images(images, spec, *, name):
    """Raises ValueError unless `images` is uint8 [N, size, size, 3]."""
    if images.dtype != np.uint8:
        raise ValueError(
            f"{name} has type {images.dtype}; pass uint8 values 0 to 255, "
            "they are normalised after the augmentations."
        )
    want = (spec.image_size, spec.image_size, 3)
    if images.shape[1:] != want:
        raise ValueError(
            f"{name} has shape {list(images.shape)}; pass RGB images "
            f"[N, {want[0]}, {want[1]}, 3]."
        )


def check_labels(labels, spec, *, count, name):
    """Raises ValueError unless `labels` is [count] integers in range."""
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise ValueError(
            f"{name} has type {labels.dtype} and shape {list(labels.shape)}; "
            f"pass class numbers, integers of shape [{count}], one per image."
        )
    if count and not 0 <= labels.min() <= labels.max() < spec.num_classes:
        raise ValueError(
            f"{name} has values from {labels.min()} to {labels.max()}; with "
            f"{spec.num_classes} classes they must lie in 0 to "
            f"{spec.num_classes - 1}."
        )
