"""Data sets, views and input pipelines."""

from meta_pseudo_labels.data import digits as _digits
from meta_pseudo_labels.data.image_data import ImageData, from_arrays
from meta_pseudo_labels.data.pipeline import (
    evaluation_dataset,
    finetuning_dataset,
    training_dataset,
)
from meta_pseudo_labels.data.specs import DATASETS, DatasetSpec
from meta_pseudo_labels.data.views import normalize, strong_view, weak_view

_LOADERS = {"digits": _digits.load}


def load(name, num_labeled, seed):
    """Loads a data set by its name in `DATASETS`.

    Args:
      name: "digits".
      num_labeled: how many images keep their label, over all classes.
      seed: int, draws which ones.

    Returns:
      `ImageData`. Its test split does not depend on the seed.

    Raises:
      ValueError: if the name is unknown or so many labels cannot be had.
    """
    if name not in _LOADERS:
        raise ValueError(
            f"unknown data set {name!r}; choose one of {sorted(_LOADERS)}."
        )
    return _LOADERS[name](num_labeled, seed)


__all__ = [
    "DATASETS",
    "DatasetSpec",
    "ImageData",
    "evaluation_dataset",
    "finetuning_dataset",
    "from_arrays",
    "load",
    "normalize",
    "strong_view",
    "training_dataset",
    "weak_view",
]
