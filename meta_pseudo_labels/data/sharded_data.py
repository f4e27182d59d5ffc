"""A data set in files that are too large for memory, as the pipelines need it.

What `ImageData` is for arrays; the pipelines accept either.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.spec import DatasetSpec
from meta_pseudo_labels.data.streams.records import Records


@dataclasses.dataclass(frozen=True, eq=False)
class ShardedData:
    """Images and labels of one semi-supervised problem, in files.

    Attributes:
      spec: the facts; image_size is what images are cropped and resized to.
      labeled_images, unlabeled_images, test_images: `Records`; the last two
        may be empty. The records hold the labels.
      skip_counter: [] int64 variable that counts damaged records each time
        training meets one; None for no count.
      skipped, label_subset, seed: see `ImageData`; none is skipped beforehand.

    Raises:
      ValueError: if there is no labeled record.
    """

    spec: DatasetSpec
    labeled_images: Records
    unlabeled_images: Records
    test_images: Records
    skip_counter: tf.Variable | None = None
    skipped: tuple[str, ...] = ()
    label_subset: str | None = None
    seed: int | None = None

    def __post_init__(self):
        if len(self.labeled_images) == 0:
            raise ValueError(
                "labeled_images is empty; give at least one labeled record."
            )

    @property
    def labeled_indices(self):
        """[N] int64: the first records of their source, see `ImageData`."""
        return np.arange(len(self.labeled_images))

    @property
    def test_labels(self):
        """None: the records hold them."""
