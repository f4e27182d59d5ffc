"""Data sets, views and input pipelines."""

from meta_pseudo_labels.data.decoding import MAX_PIXELS
from meta_pseudo_labels.data.image_data import ImageData, from_arrays
from meta_pseudo_labels.data.loading import check_name, load
from meta_pseudo_labels.data.pipeline import (
    evaluation_dataset,
    finetuning_dataset,
    training_dataset,
)
from meta_pseudo_labels.data.records import Records
from meta_pseudo_labels.data.specs import DATASETS, DatasetSpec
from meta_pseudo_labels.data.streaming import ShardedData
from meta_pseudo_labels.data.subsets import (
    LABEL_SUBSETS,
    labeled_choice,
    save_labeled_indices,
)
from meta_pseudo_labels.data.views import (
    POLICIES,
    normalize,
    strong_view,
    weak_view,
)

__all__ = [
    "DATASETS",
    "DatasetSpec",
    "ImageData",
    "LABEL_SUBSETS",
    "MAX_PIXELS",
    "POLICIES",
    "Records",
    "ShardedData",
    "check_name",
    "evaluation_dataset",
    "finetuning_dataset",
    "from_arrays",
    "labeled_choice",
    "load",
    "normalize",
    "save_labeled_indices",
    "strong_view",
    "training_dataset",
    "weak_view",
]
