"""Data sets, views and input pipelines."""

from meta_pseudo_labels.utils.lazy import attach

# The public names, and the modules that they are imported from at first use.
_NAMES = {
    "DATASETS": "spec",
    "LABEL_SUBSETS": "labels",
    "MAX_PIXELS": "images.decoding",
    "POLICIES": "images.view_settings",
    "ClassDistributions": "class_distributions",
    "DatasetSpec": "spec",
    "ImageData": "image_data",
    "Records": "streams.records",
    "ShardedData": "sharded_data",
    "Share": ".distribute.shares",
    "check_name": "sources.loading",
    "distribute": ".distribute.shares",
    "evaluation_dataset": "streams.pipeline",
    "explain_input_error": "streams.record_checks",
    "fingerprint": "class_distributions",
    "finetuning_dataset": "streams.pipeline",
    "from_arrays": "image_data",
    "hold_out": "variants",
    "keep_classes": "variants",
    "labeled_choice": "labels",
    "load": "sources.loading",
    "load_class_distributions": "class_distributions",
    "mean_distributions": "class_distributions",
    "normalize": "images.views",
    "save_class_distributions": "class_distributions",
    "save_labeled_indices": "labels",
    "share_of": ".distribute.shares",
    "spoil_labels": "variants",
    "strong_view": "images.views",
    "training_dataset": "streams.pipeline",
    "two_view_dataset": "streams.two_views",
    "validation_dataset": "streams.pipeline",
    "vary": "variants",
    "weak_view": "images.views",
}

__all__ = list(_NAMES)
__getattr__, __dir__ = attach(__name__, _NAMES)
