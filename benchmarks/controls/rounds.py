"""The rounds of students: which networks learn, and from what settings."""

import dataclasses

from benchmarks.controls.weights import PRETRAINED

_STUDENT = "flags/cifar10_fast_student.flags"
_WIDE = {"model_type": "speednet-64", "num_warmup_steps": 200}
# A batch of half the recipes' size, at the same rate per image.
_HALVED = {"train_batch_size": 16, "lr": 0.016}
_LEARNS = {"method": "pseudo_labels", "mpl_pseudo_labels": "soft"}


@dataclasses.dataclass(frozen=True)
class Round:
    """Networks that learn the average labels of those of the round before.

    Attributes:
      flagfile: their settings.
      changes: {setting: value} of what differs.
      networks: how many there are.
    """

    flagfile: str
    changes: dict = dataclasses.field(default_factory=dict)
    networks: int = 1


# Keyed by how the first networks learn, as ROUNDS.
BEGUN_WITH = {
    "augmented": "labels, on strong views",
    "uda": "UDA",
    "pretrained": "ImageNet's weights",
    "pretrained-uda": "ImageNet's weights, UDA",
}
ROUNDS = {
    "augmented": (
        Round("flags/cifar10_fast_augmented.flags", networks=3),
        Round(_STUDENT),
        Round(_STUDENT, _WIDE | {"num_train_steps": 1_000}),
    ),
    "uda": (
        Round("flags/cifar10_fast_uda.flags", {"num_train_steps": 1_500}),
        Round(_STUDENT),
        Round(_STUDENT),
        Round(_STUDENT, _WIDE | {"num_train_steps": 1_000}),
    ),
    "pretrained": (
        Round(
            "flags/folders_finetune.flags",
            PRETRAINED | {"num_train_steps": 1_700},
        ),
        Round(
            "flags/folders_finetune.flags",
            PRETRAINED
            | _LEARNS
            | _HALVED
            | {"num_train_steps": 1_500, "uda_data": 4},
        ),
    ),
    "pretrained-uda": (
        Round(
            "flags/folders_uda.flags",
            PRETRAINED | _HALVED | {"num_train_steps": 370},
        ),
        Round(
            "flags/folders_uda.flags",
            PRETRAINED | _LEARNS | _HALVED | {"num_train_steps": 450},
        ),
    ),
}
