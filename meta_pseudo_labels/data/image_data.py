"""A data set in memory, as the pipelines need it: uint8 RGB arrays."""

import dataclasses
import itertools

import numpy as np

from meta_pseudo_labels.data.labels import LabelChoice, labeled_positions
from meta_pseudo_labels.data.pixel_statistics import warn_of_dark
from meta_pseudo_labels.data.spec import FILL, DatasetSpec

ARRAYS = "arrays"  # The name of your own.
HELD_OUT = ("feedback", "validation")  # Parts that not every problem has.


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
      labeled_indices: [N] int64, the places of the labeled images in the
        original order of their source: enough to make the same choice again.
        Digits are numbered as in scikit-learn, TFDS sets by the number in the
        `id` of their split `train`, arrays of your own from 0.
      skipped: names of files that could not be read, within their folders.
      passed_over: likewise, files or folders, hidden or left by systems.
      names: names of the images, see `duplicates.names_by_digest`; None if
        they have no names.
      files: names, within their folder, of the files that `labeled_indices`
        number; () for images that are not files.
      label_subset, seed: how `data.load` chose the labeled images; None if
        they came already chosen.
      feedback_images, feedback_labels: [F, H, W, 3] uint8 and [F] int32, on
        which the student is judged instead of on the labeled images, and on
        which no network is trained; None if none were held out.
      validation_images, validation_labels: likewise, for choosing networks.
      chosen: the labels before `variants` changed them; None if unchanged.

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
    feedback_images: np.ndarray | None = None
    feedback_labels: np.ndarray | None = None
    validation_images: np.ndarray | None = None
    validation_labels: np.ndarray | None = None
    chosen: LabelChoice | None = None
    passed_over: tuple[str, ...] = ()
    names: dict[bytes, list[str]] | None = None
    files: tuple[str, ...] = ()

    def __post_init__(self):
        check_images(self.unlabeled_images, self.spec, name="unlabeled_images")
        for part in ("labeled", "test", "feedback", "validation"):
            images = getattr(self, f"{part}_images")
            labels = getattr(self, f"{part}_labels")
            if images is None and labels is None and part in HELD_OUT:
                continue
            if images is None or labels is None:
                raise ValueError(
                    f"{part}_images or {part}_labels is None; give both."
                )
            check_images(images, self.spec, name=f"{part}_images")
            check_labels(
                labels,
                self.spec,
                count=len(images),
                name=f"{part}_labels",
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
      flip, background, mean, std, class_names: see `DatasetSpec`. Use
        flip=False if mirroring changes the class of an image, as with text.
      num_classes: largest label + 1 unless given.

    Returns:
      `ImageData`. Test images that are also trained on, and images with two
      classes, are logged.

    Raises:
      ValueError: if an array has another type, shape or range.
    """
    from meta_pseudo_labels.data.duplicates import warn_of_copies  # A cycle.

    labeled_images, labels = np.asarray(labeled_images), np.asarray(labels)
    _check_given(unlabeled_images, test_images, test_labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels have type {labels.dtype} and shape {list(labels.shape)}; "
            f"pass one class number per image, integers{_hint(labels)}."
        )
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
        name=ARRAYS,
        num_classes=num_classes,
        image_size=labeled_images.shape[1],
        mean=tuple(mean),
        std=tuple(std),
        flip=flip,
        class_names=tuple(class_names),
        background=background,
    )
    data = ImageData(
        spec=spec,
        labeled_images=labeled_images,
        labeled_labels=labels,
        unlabeled_images=np.asarray(unlabeled_images),
        test_images=np.asarray(test_images),
        test_labels=np.asarray(test_labels),
        labeled_indices=np.arange(len(labels)),
    )
    warn_of_dark(labeled_images, data.unlabeled_images, where="The arrays")
    warn_of_copies(data)
    return data


def _hint(labels):
    """How to make class numbers of labels in another form; "" if unknown."""
    if labels.ndim != 2:
        return ""
    if labels.shape[-1] == 1:
        return " (labels[:, 0])"
    return " (for one-hot rows, labels.argmax(axis=-1))"


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
    """Makes a semi-supervised problem out of a fully labeled data set.

    Args:
      spec: its facts; image_size is taken from `images`.
      images: [N, S, S, 3] uint8, the training images; if there are more of
        them than labels, the last ones have none.
      labels: [L] int32, L <= N.
      test_images, test_labels: [T, S, S, 3] uint8 and [T] int32.
      num_labeled, seed, label_subset: see `labeled_positions`.
      skipped: see `ImageData`.

    Returns:
      `ImageData`. All training images are unlabeled images too, including the
      labeled ones, as in the release (quirk 31).

    Raises:
      ValueError: if num_labeled is not possible, or a label is out of range.
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
        # No second copy if all images are labeled.
        labeled_images=images if everything else images[chosen],
        labeled_labels=labels[chosen],
        unlabeled_images=images,
        test_images=test_images,
        test_labels=test_labels,
        labeled_indices=chosen,
        skipped=skipped,
    )


def _check_given(unlabeled_images, test_images, test_labels):
    """Refuses None, and lists without the shape of an image."""
    if (test_images is None) != (test_labels is None):
        raise ValueError("test_images or test_labels is None; give both.")
    for name, images in (
        ("unlabeled_images", unlabeled_images),
        ("test_images", test_images),
    ):
        none = images is None and name == "unlabeled_images"
        if none or (images is not None and np.ndim(images) != 4):
            got = "None" if none else f"of shape {list(np.shape(images))}"
            raise ValueError(
                f"{name} is {got}; pass [N, size, size, 3], or "
                "labeled_images[:0] if there are none."
            )


def _count_classes(labels):
    """Largest label + 1; raises ValueError if a class has no label."""
    present = set(np.unique(labels).tolist())
    num_classes = max(present, default=0) + 1
    # Not a list of all absent ones: a label may be any number.
    absent = (label for label in range(num_classes) if label not in present)
    missing = list(itertools.islice(absent, 3))
    if missing:
        raise ValueError(
            f"No image is labeled {', '.join(map(str, missing))}"
            f"{' and more' if len(missing) == 3 else ''}, but one is labeled "
            f"{num_classes - 1}; labels count from 0. Pass num_classes if "
            "classes without a label are intended."
        )
    return num_classes


def check_images(images, spec, *, name):
    """Raises ValueError unless `images` is uint8 [N, size, size, 3]."""
    if images.dtype != np.uint8:
        raise ValueError(
            f"{name} has type {images.dtype}; pass uint8 values 0 to 255, "
            "they are normalized after the augmentations."
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
