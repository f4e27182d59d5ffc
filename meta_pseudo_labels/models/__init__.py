"""Networks: builders that take numbers, and families of names.

    student = models.build("wrn-28-2", input_shape=(32, 32, 3), num_classes=10)

Every model is a functional `keras.Model` that returns logits, not
probabilities. A family is one file in `families`; `FAMILIES` holds them all.
"""

# Not lazily: files name these layers, and Keras must find them defined.
from meta_pseudo_labels.models.batch_norm import BatchNorm, NormSettings
from meta_pseudo_labels.models.dropout import StochasticDepth
from meta_pseudo_labels.models.reduced_teacher import (
    REDUCED_TEACHER,
    reduced_teacher,
)
from meta_pseudo_labels.models.remat import Rematerialized, rematerialized
from meta_pseudo_labels.models.whitening import (
    Whitening,
    adapt,
    check_adapted,
    is_adapted,
)
from meta_pseudo_labels.utils.lazy import attach

_LAZY = {
    "WeightsReport": "pretrained",
    "EFFICIENTNETS": "families.efficientnet",
    "FAMILIES": "families",
    "Family": "families",
    "RESNETS": "families.resnet",
    "WIDE_RESNETS": "families.wide_resnet",
    "application": "families.applications",
    "application_names": "families.applications",
    "backbone_depths": "depths",
    "backbone_weights": "dense",
    "build": "names",
    "check_classifier": "logits",
    "check_logits": "logits",
    "check_model_type": "names",
    "check_pixels": "names",
    "check_pretrained": "names",
    "efficientnet": "families.efficientnet",
    "fewest_weights": "names",
    "has_blocks": "names",
    "has_preprocessing": "names",
    "is_preset": "families",
    "load_weights": "pretrained",
    "mlp": "families.mlp",
    "mlp_hidden_sizes": "families.mlp",
    "named_by_weights": "names",
    "preset_of": "names",
    "pretrained_network": "names",
    "release_scope": "names",
    "release_variable_name": "layers",
    "resnet": "families.resnet",
    "speednet": "families.speednet",
    "wide_resnet": "families.wide_resnet",
}

__all__ = [
    "REDUCED_TEACHER",
    "BatchNorm",
    "NormSettings",
    "Rematerialized",
    "StochasticDepth",
    "Whitening",
    "adapt",
    "check_adapted",
    "is_adapted",
    "reduced_teacher",
    "rematerialized",
    *_LAZY,
]
__getattr__, __dir__ = attach(__name__, _LAZY)
