"""Data sets, views and input pipelines."""

import functools as _functools

from meta_pseudo_labels.data import digits as _digits
from meta_pseudo_labels.data import tfds_source as _tfds_source
from meta_pseudo_labels.data.image_data import ImageData, from_arrays
from meta_pseudo_labels.data.pipeline import (
    evaluation_dataset,
    finetuning_dataset,
    training_dataset,
)
from meta_pseudo_labels.data.specs import DATASETS, DatasetSpec
from meta_pseudo_labels.data.subsets import LABEL_SUBSETS
from meta_pseudo_labels.data.views import normalize, strong_view, weak_view

_LOADERS = {"digits": _digits.load} | {
    name: _functools.partial(_tfds_source.load, name)
    for name in _tfds_source.NAMES
}


def load(
    name,
    *,
    num_labeled,
    seed,
    label_subset="balanced",
    image_size=None,
    data_dir=None,
):
    """Loads a data set by its name in `DATASETS` into memory.

    Args:
      name: "digits", which come with scikit-learn, or a set prepared by
        TensorFlow Datasets: "cifar10", "cifar100", "svhn_cropped".
      num_labeled: how many images keep their label, over all classes; None
        for all.
      seed: int, draws which ones where the subset is balanced.
      label_subset: "balanced", the same number of each class; or "first", the
        first ones in the order of the source, as in the release.
      image_size: pixels to resize to, bicubic; None for the set's own size.
      data_dir: folder of prepared sets; None for TensorFlow Datasets' own.

    Returns:
      `ImageData`. Its test split does not depend on the seed.

    Raises:
      ValueError: if the name is unknown, the set cannot be had, or so many
        labels cannot.
    """
    if name not in _LOADERS:
        raise ValueError(_no_loader(name))
    return _LOADERS[name](
        num_labeled=num_labeled,
        seed=seed,
        label_subset=label_subset,
        image_size=image_size,
        data_dir=data_dir,
    )


def _no_loader(name):
    choice = f"choose one of {', '.join(sorted(_LOADERS))}."
    if name not in DATASETS:
        return f"unknown data set {name!r}; {choice}"
    return (
        f"{name} does not fit in memory, and reading it from shards is not "
        f"built yet; {choice}"
    )


__all__ = [
    "DATASETS",
    "DatasetSpec",
    "ImageData",
    "LABEL_SUBSETS",
    "evaluation_dataset",
    "finetuning_dataset",
    "from_arrays",
    "load",
    "normalize",
    "strong_view",
    "training_dataset",
    "weak_view",
]
