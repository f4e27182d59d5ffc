"""The settings of the stages after training, except inference.

A run stays the same run whatever they are.
"""

import dataclasses
from typing import ClassVar

from meta_pseudo_labels.utils.settings import (
    ConfigError,
    Unread,
    command_name,
    setting,
)

# Those of the paper's section 3: ImageNet's are for a tenth of the labels.
FINETUNING_STEPS = {"imagenet2012": 2_000, "imagenet2012_subset": 2_000}
OTHER_FINETUNING_STEPS = 1_000  # CIFAR-10 and SVHN.
FOLDERS = "folders"  # An --eval_dataset; its folder is --eval_dir.
_ONLY_FOR_EVAL = ("eval_dataset", "eval_data_dir", "saved_model")


# When a run is checked: reading settings loads as little as can be.
def _batch_norm_modes():
    from meta_pseudo_labels.learners.finetuning import BATCH_NORM_MODES

    return BATCH_NORM_MODES


def _optimizers():
    from meta_pseudo_labels.learners.finetuning import FINETUNING_OPTIMIZERS

    return FINETUNING_OPTIMIZERS


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningSettings:
    """How `mpl finetune` trains the student on the labels."""

    unread: ClassVar = (
        Unread(
            ("finetune_eval_every",),
            "without --finetune_patience finetuning does not evaluate.",
            when=lambda settings: not settings["finetune_patience"],
        ),
        Unread(
            ("finetune_weight_decay",),
            "--finetune_optimizer={finetune_optimizer} has no decay in it.",
            when=lambda settings: settings["finetune_optimizer"] != "adamw",
        ),
        Unread(
            ("finetune_backbone_lr_factor", "finetune_layer_lr_decay"),
            "with --finetune_freeze_backbone_steps=-1 the backbone never "
            "moves.",
            when=lambda settings: (
                settings["finetune_freeze_backbone_steps"] < 0
            ),
        ),
    )

    finetune_lr: float = setting(
        1e-5, "Learning rate of finetuning, not scaled.", low=0, free=True
    )
    finetune_optimizer: str = setting(
        "sgd",
        "The optimizer of finetuning, without weight decay but adamw's; adam "
        "and adamw with Keras's betas and epsilon.",
        choices=_optimizers,
        free=True,
    )
    finetune_weight_decay: float = setting(
        0.004,
        "What every step of --finetune_optimizer=adamw takes from a weight, "
        "times the weight and the learning rate; not in batch norm.",
        low=0,
        free=True,
    )
    finetune_steps: int | None = setting(
        None,
        "Steps of finetuning; by default the paper's, 2,000 on ImageNet and "
        "1,000 on other data sets.",
        low=1,
        free=True,
    )
    finetune_batch_size: int = setting(
        512,
        "Labeled images a step; all where there are fewer.",
        low=1,
        high=1_000_000,
        free=True,
    )
    finetune_freeze_backbone_steps: int = setting(
        0,
        "First steps of finetuning in which the head alone moves; -1 for all. "
        "See --freeze_backbone_steps.",
        low=-1,
        free=True,
    )
    finetune_backbone_lr_factor: float = setting(
        1.0,
        "Rate of all but the head in finetuning, times --finetune_lr.",
        low=0,
        free=True,
    )
    finetune_layer_lr_decay: float = setting(
        1.0,
        "Rate of a layer in finetuning, times the rate of the one above it; "
        "see --layer_lr_decay.",
        low=0.01,
        high=1,
        free=True,
    )
    finetune_batch_norm: str = setting(
        "update",
        "Batch norm in finetuning: update normalizes by the batch and moves "
        "the moving averages; frozen normalizes by these, and neither they "
        "nor scale and shift change.",
        choices=_batch_norm_modes,
        free=True,
    )
    finetune_patience: int = setting(
        0,
        "Evaluations in a row without a gain on the images of "
        "--num_validation after which finetuning ends, with the weights of "
        "the best one; 0 takes all steps and keeps the last weights, as in "
        "the paper.",
        low=0,
        free=True,
    )
    finetune_eval_every: int = setting(
        100,
        "Steps of finetuning between two evaluations, each with a checkpoint, "
        "for --finetune_patience.",
        low=1,
        free=True,
    )

    @property
    def finetuning_steps(self):
        """Steps of finetuning: those given, else the data set's."""
        return self.finetune_steps or FINETUNING_STEPS.get(
            self.dataset, OTHER_FINETUNING_STEPS
        )

    def check_finetuning(self):
        """Raises ConfigError where an early end has nothing to go by."""
        if self.finetune_patience and not self.num_validation:
            raise ConfigError(
                f"--finetune_patience={self.finetune_patience} judges by "
                "images that are held out, and there are none: train with "
                "--num_validation, or leave it out."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What `mpl eval` looks at, beside the run's own."""

    eval_dataset: str | None = setting(
        None,
        "For `mpl eval`: other images than the run's own test images. A "
        "name as for --dataset, whose test images are taken; or folders, for "
        "those in --eval_dir. Their classes must be the run's.",
        free=True,
    )
    eval_data_dir: str | None = setting(
        None,
        "Folder of --eval_dataset, as --data_dir; by default that one.",
        free=True,
    )
    saved_model: str | None = setting(
        None,
        "For `mpl eval`: a SavedModel to evaluate beside the run's "
        "networks, or a folder of versions, of which the newest is taken.",
        free=True,
    )

    def check_evaluation(self):
        """Raises ConfigError where these settings do not fit each other."""
        for name in _ONLY_FOR_EVAL:
            value = getattr(self, name)
            if value is not None and self.task_mode != "eval":
                raise ConfigError(
                    f"--{name}={value} is for `mpl eval`; this is "
                    f"{command_name(self.task_mode)}."
                )
        if self.eval_data_dir is not None and self.eval_dataset is None:
            raise ConfigError(
                f"--eval_data_dir={self.eval_data_dir} needs an --eval_dataset "
                "that is found there."
            )
        if self.eval_dataset == FOLDERS and self.eval_dir is None:
            raise ConfigError(
                "--eval_dataset=folders needs --eval_dir, a folder of images "
                "with a folder per class."
            )
        if (
            self.task_mode == "eval"
            and self.eval_dir is not None
            and FOLDERS not in (self.dataset, self.eval_dataset)
        ):
            raise ConfigError(
                f"--eval_dir={self.eval_dir}: the test images are those of "
                f"{self.eval_dataset or self.dataset}; say "
                "--eval_dataset=folders to evaluate on that folder."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiagnosisSettings:
    """What `mpl diagnose` measures."""

    diagnose_batches: int = setting(
        20,
        "Batches of `mpl diagnose`, those that follow the checkpoint.",
        low=2,
        free=True,
    )
    diagnose_draws: int = setting(
        16,
        "Draws of pseudo labels for each of these batches.",
        low=2,
        free=True,
    )
    diagnose_lr: float | None = setting(
        None,
        "Learning rate, not scaled, of the student's steps that a diagnosis "
        "looks at; by default the peak of the run, whatever it is at the "
        "checkpoint.",
        low=1e-12,
        free=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReviewSettings:
    """What `mpl review` leaves."""

    review_images: int = setting(
        100,
        "Unlabeled images that `mpl review` chooses to be labeled next.",
        low=1,
        free=True,
    )
    review_links: bool = setting(
        False,
        "Put links to the first 100 files of `mpl review`, of doubted "
        "labels and of those to label, into review/links, to go through by "
        "hand.",
        free=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What `mpl export` writes beside the SavedModel."""

    export_keras: bool = setting(
        False,
        "Put the student into the exported version as a .keras file too.",
        free=True,
    )
    export_litert: bool = setting(
        False,
        "Put the student into the exported version for LiteRT too, and say "
        "how far that agrees with it on test images.",
        free=True,
    )
    export_onnx: bool = setting(
        False,
        "Put the student into the exported version as an ONNX file too, and "
        "say how far that agrees with it on test images.",
        free=True,
    )
