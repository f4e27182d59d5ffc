"""Data sets, views and input pipelines."""

from meta_pseudo_labels.data.class_distributions import (
    ClassDistributions,
    fingerprint,
    load_class_distributions,
    save_class_distributions,
)
from meta_pseudo_labels.data.image_data import ImageData, from_arrays
from meta_pseudo_labels.data.images.decoding import MAX_PIXELS
from meta_pseudo_labels.data.images.views import (
    POLICIES,
    normalize,
    strong_view,
    weak_view,
)
from meta_pseudo_labels.data.labels import (
    LABEL_SUBSETS,
    labeled_choice,
    save_labeled_indices,
)
from meta_pseudo_labels.data.sources.loading import check_name, load
from meta_pseudo_labels.data.spec import DATASETS, DatasetSpec
from meta_pseudo_labels.data.streams.pipeline import (
    evaluation_dataset,
    finetuning_dataset,
    training_dataset,
    validation_dataset,
)
from meta_pseudo_labels.data.streams.record_checks import explain_input_error
from meta_pseudo_labels.data.streams.records import Records
from meta_pseudo_labels.data.streams.streaming import ShardedData
from meta_pseudo_labels.data.streams.two_views import two_view_dataset
from meta_pseudo_labels.data.variants import (
    hold_out,
    keep_classes,
    spoil_labels,
    vary,
)
from meta_pseudo_labels.distribute.shares import Share, distribute, share_of

__all__ = [
    "DATASETS",
    "ClassDistributions",
    "DatasetSpec",
    "ImageData",
    "LABEL_SUBSETS",
    "MAX_PIXELS",
    "POLICIES",
    "Records",
    "ShardedData",
    "Share",
    "check_name",
    "distribute",
    "evaluation_dataset",
    "explain_input_error",
    "fingerprint",
    "finetuning_dataset",
    "from_arrays",
    "hold_out",
    "keep_classes",
    "labeled_choice",
    "load",
    "load_class_distributions",
    "normalize",
    "save_class_distributions",
    "save_labeled_indices",
    "share_of",
    "spoil_labels",
    "strong_view",
    "training_dataset",
    "two_view_dataset",
    "validation_dataset",
    "vary",
    "weak_view",
]
