"""Handwritten digits: 1,797 real scans that come with scikit-learn.

8x8 gray images (UCI "Optical Recognition of Handwritten Digits"), nothing to
download. 500 of them, 50 of each digit, are the test split, whatever the
seed of a run; the other 1,297 are the training pool.
"""

import dataclasses

import numpy as np
from sklearn.datasets import load_digits

from meta_pseudo_labels.data.image_data import ImageData
from meta_pseudo_labels.data.images.resizing import resize_images
from meta_pseudo_labels.data.labels import balanced_indices, labeled_positions
from meta_pseudo_labels.data.sources import SOURCES, Source
from meta_pseudo_labels.data.spec import DATASETS

TEST_EXAMPLES = 500
TEST_SEED = 0  # Part of the data set's definition, not a setting.


def load(
    *,
    num_labeled,
    seed,
    label_subset="balanced",
    image_size=None,
):
    """Loads the digits; images that are not labeled ones are unlabeled.

    Args:
      num_labeled, seed, label_subset: see `labeled_positions`. 40 is 4 per
        class; None or 1,297 is the whole pool, which leaves no unlabeled
        image; the "first" ones are those of the pool.
      image_size: pixels, see `resize_images`; None for 8.

    Returns:
      `ImageData`; `labeled_indices` follow scikit-learn's order.

    Raises:
      ValueError: if `num_labeled` is not possible.
    """
    spec = DATASETS["digits"]
    images, labels = read_scans()
    images = resize_images(images, image_size)
    test, pool = split()
    chosen = labeled_positions(
        labels[pool],
        num_labeled=num_labeled,
        num_classes=spec.num_classes,
        seed=seed,
        label_subset=label_subset,
        source=spec.name,
        numbers=pool,
    )
    labeled, unlabeled = pool[chosen], np.delete(pool, chosen)
    return ImageData(
        spec=dataclasses.replace(spec, image_size=images.shape[1]),
        labeled_images=images[labeled],
        labeled_labels=labels[labeled],
        unlabeled_images=images[unlabeled],
        test_images=images[test],
        test_labels=labels[test],
        labeled_indices=labeled,
    )


def read_scans():
    """All scans: [1797, 8, 8, 3] uint8 and [1797] int32 labels."""
    scans = load_digits()
    gray = np.round(scans.images * (255 / 16)).astype(np.uint8)  # 0..16 before
    images = np.repeat(gray[..., np.newaxis], 3, axis=-1)
    return images, scans.target.astype(np.int32)


def split():
    """Positions of the test split and of the training pool, int64 each."""
    labels = load_digits().target
    test = balanced_indices(
        labels, num_labeled=TEST_EXAMPLES, num_classes=10, seed=TEST_SEED
    )
    return test, np.delete(np.arange(len(labels), dtype=np.int64), test)


@SOURCES.register("digits")
class Digits(Source):
    """See `load`."""

    load = staticmethod(load)
