"""The settings of the stages after training, except inference.

Changing them does not make a run another run.
"""

import dataclasses
from typing import ClassVar

from meta_pseudo_labels.utils.settings import (
    ConfigError,
    Unread,
    command_name,
    setting,
)

# From section 3 of the paper; ImageNet's are for a tenth of the labels.
FINETUNING_STEPS = {"imagenet2012": 2_000, "imagenet2012_subset": 2_000}
OTHER_FINETUNING_STEPS = 1_000  # CIFAR-10 and SVHN.
FOLDERS = "folders"  # A value of --eval_dataset; its folder is --eval_dir.
_ONLY_FOR_EVAL = ("eval_dataset", "eval_data_dir", "saved_model")


# Imported when a run is checked: reading settings must load little.
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
            "--finetune_optimizer={finetune_optimizer} has no weight decay.",
            when=lambda settings: settings["finetune_optimizer"] != "adamw",
        ),
        Unread(
            ("finetune_backbone_lr_factor", "finetune_layer_lr_decay"),
            "with --finetune_freeze_backbone_steps=-1 the backbone is never "
            "trained.",
            when=lambda settings: (
                settings["finetune_freeze_backbone_steps"] < 0
            ),
        ),
    )

    finetune_lr: float = setting(
        1e-5,
        "Learning rate of finetuning, not scaled by the batch size.",
        low=0,
        free=True,
    )
    finetune_optimizer: str = setting(
        "sgd",
        "Optimizer of finetuning. Only adamw applies weight decay; adam and "
        "adamw use Keras's betas and epsilon.",
        choices=_optimizers,
        free=True,
    )
    finetune_weight_decay: float = setting(
        0.004,
        "Weight decay of --finetune_optimizer=adamw: every step reduces a "
        "weight by this times the weight times the learning rate; batch norm "
        "is exempt.",
        low=0,
        free=True,
    )
    finetune_steps: int | None = setting(
        None,
        "Finetuning steps; by default the paper's, 2,000 on ImageNet and "
        "1,000 on other data sets.",
        low=1,
        free=True,
    )
    finetune_batch_size: int = setting(
        512,
        "Labeled images per step; all of them if there are fewer.",
        low=1,
        high=1_000_000,
        free=True,
    )
    finetune_freeze_backbone_steps: int = setting(
        0,
        "Number of first finetuning steps that train only the head; -1 for "
        "all. See --freeze_backbone_steps.",
        low=-1,
        free=True,
    )
    finetune_backbone_lr_factor: float = setting(
        1.0,
        "Learning rate of everything but the head in finetuning, as a "
        "multiple of --finetune_lr.",
        low=0,
        free=True,
    )
    finetune_layer_lr_decay: float = setting(
        1.0,
        "Learning rate of a layer in finetuning, as a multiple of that of the "
        "layer above it; see --layer_lr_decay.",
        low=0.01,
        high=1,
        free=True,
    )
    finetune_batch_norm: str = setting(
        "update",
        "Batch norm in finetuning: update normalizes with batch statistics "
        "and updates the moving averages; frozen normalizes with the moving "
        "averages, and neither they nor scale and shift change.",
        choices=_batch_norm_modes,
        free=True,
    )
    finetune_patience: int = setting(
        0,
        "Finetuning ends after this many evaluations in a row without a gain "
        "on the images of --num_validation, and keeps the weights of the best "
        "one; 0 runs all steps and keeps the last weights, as in the paper.",
        low=0,
        free=True,
    )
    finetune_eval_every: int = setting(
        100,
        "Finetuning steps between two evaluations for --finetune_patience, "
        "each with a checkpoint.",
        low=1,
        free=True,
    )

    @property
    def finetuning_steps(self):
        """Finetuning steps: those given, or else the data set's."""
        return self.finetune_steps or FINETUNING_STEPS.get(
            self.dataset, OTHER_FINETUNING_STEPS
        )

    def check_finetuning(self):
        """Raises ConfigError if early stopping has no images to use."""
        if self.finetune_patience and not self.num_validation:
            raise ConfigError(
                f"--finetune_patience={self.finetune_patience} needs "
                "held-out images, and there are none: train with "
                "--num_validation, or leave it out."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Images and models for `mpl eval` other than the run's own."""

    eval_dataset: str | None = setting(
        None,
        "For `mpl eval`: evaluate on images other than the run's own test "
        "images. Either a name as for --dataset, whose test images are used, "
        "or folders, for the images in --eval_dir. Their classes must be the "
        "run's.",
        free=True,
    )
    eval_data_dir: str | None = setting(
        None,
        "Folder of --eval_dataset, as for --data_dir; by default --data_dir "
        "itself.",
        free=True,
    )
    saved_model: str | None = setting(
        None,
        "For `mpl eval`: a SavedModel to evaluate along with the run's "
        "networks, or a folder of versions, whose newest one is used.",
        free=True,
    )

    def check_evaluation(self):
        """Raises ConfigError if these settings do not go together."""
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
        "Number of batches that `mpl diagnose` measures on: those that follow "
        "the checkpoint.",
        low=2,
        free=True,
    )
    diagnose_draws: int = setting(
        16,
        "Draws of pseudo labels for each of the --diagnose_batches.",
        low=2,
        free=True,
    )
    diagnose_lr: float | None = setting(
        None,
        "Learning rate, not scaled by the batch size, of the student steps "
        "that `mpl diagnose` measures; by default the run's peak rate, "
        "whatever it is at the checkpoint.",
        low=1e-12,
        free=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReviewSettings:
    """What `mpl review` writes."""

    review_images: int = setting(
        100,
        "Number of unlabeled images that `mpl review` selects to be labeled "
        "next.",
        low=1,
        free=True,
    )
    review_links: bool = setting(
        False,
        "Put links into review/links, to go through by hand: to the first 100 "
        "files whose labels `mpl review` doubts, and to the first 100 that it "
        "selects for labeling.",
        free=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What `mpl export` writes besides the SavedModel."""

    export_keras: bool = setting(
        False,
        "Also write the student as a .keras file to the exported version.",
        free=True,
    )
    export_litert: bool = setting(
        False,
        "Also write the student for LiteRT to the exported version, and "
        "report how closely it agrees with the student on test images.",
        free=True,
    )
    export_onnx: bool = setting(
        False,
        "Also write the student as an ONNX file to the exported version, and "
        "report how closely it agrees with the student on test images.",
        free=True,
    )
