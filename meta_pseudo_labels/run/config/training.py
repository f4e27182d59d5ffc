"""The settings of training: optimisation, UDA, MPL, finetuning."""

import dataclasses

from meta_pseudo_labels.learners.feedback import ESTIMATORS, PSEUDO_LABELS
from meta_pseudo_labels.learners.finetuning import BATCH_NORM_MODES
from meta_pseudo_labels.optimizers import OPTIMIZERS
from meta_pseudo_labels.optimizers.schedules import DECAYS
from meta_pseudo_labels.utils.settings import ConfigError, setting

TEACHER_LOSSES = ("uda", "supervised", "rand_augment")
# Those of the paper's section 3: ImageNet's are for a tenth of the labels.
FINETUNING_STEPS = {"imagenet2012": 2_000, "imagenet2012_subset": 2_000}
OTHER_FINETUNING_STEPS = 1_000  # CIFAR-10 and SVHN.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How it is learned."""

    # Optimisation.
    num_train_steps: int = setting(10_000, "Length of the run in steps.", low=1)
    optim_type: str = setting(
        "momentum",
        "The optimizer: sgd; momentum of 0.9, Nesterov's; rmsprop; or lars.",
        choices=OPTIMIZERS,
    )
    rmsprop_rho: float = setting(
        0.9, "Decay of rmsprop's mean of squared gradients.", low=0, high=1
    )
    rmsprop_momentum: float = setting(
        0.9, "Momentum of rmsprop.", low=0, high=1
    )
    rmsprop_epsilon: float = setting(
        1e-3, "Added to rmsprop's mean of squares, inside the root.", low=0
    )
    weight_decay: float = setting(
        1e-4, "Added to gradients, times the weight; not in batch norm.", low=0
    )
    grad_bound: float = setting(
        1e9, "Bound on the norm of a model's whole gradient.", low=1e-12
    )
    label_smoothing: float = setting(
        0.0, "Weight of the uniform distribution in labels.", low=0, high=1
    )
    lr: float = setting(
        0.016,
        "Peak learning rate of the methods other than mpl, per 256 labeled "
        "images.",
        low=0,
    )
    num_warmup_steps: int = setting(
        0, "Warm-up of the methods other than mpl, in steps.", low=0
    )
    lr_decay_type: str = setting(
        "exponential", "How learning rates fall.", choices=DECAYS
    )
    lr_decay_rate: float = setting(
        0.97, "Factor of a drop of the exponential decay.", low=1e-12, high=1
    )
    num_decay_steps: int = setting(
        750, "Steps between drops of the exponential decay.", low=1
    )

    # Memory traded for time.
    remat: bool = setting(
        False,
        "Keep only the inputs of a network's blocks for the gradient, and "
        "compute the blocks once more for it: wide ResNets, ResNets, "
        "EfficientNets.",
    )
    batch_slices: int = setting(
        1,
        "Cut every batch into so many slices, labeled and unlabeled images "
        "alike, and compute them one after the other. Each is normalized by "
        "itself in batch norm. Divides --train_batch_size.",
        low=1,
    )

    # The consistency term, of uda and of the teacher in mpl.
    uda_weight: float = setting(1.0, "Weight of the UDA loss.", low=0)
    uda_steps: int = setting(
        10_000, "Ramp of the UDA weight from 0, in steps.", low=1
    )
    uda_temp: float = setting(
        0.75, "Temperature that sharpens weak views.", low=1e-6
    )
    uda_threshold: float = setting(
        0.6, "Confidence from which a weak view counts.", low=0, high=1
    )

    # Meta Pseudo Labels.
    mpl_feedback: str = setting(
        "exact",
        "Estimator of the student's feedback. The release's default would be "
        "release, whose gradient is zero.",
        choices=tuple(ESTIMATORS),
    )
    mpl_feedback_weight: float = setting(
        1.0, "Weight of the feedback in the teacher's loss.", low=0
    )
    mpl_pseudo_labels: str | None = setting(
        None,
        "Kind of pseudo labels; by default what the estimator works with.",
        choices=(None, *PSEUDO_LABELS),
    )
    mpl_label_temp: float = setting(
        1.0,
        "Temperature of the teacher's logits where they become pseudo labels; "
        "below 1 sharpens.",
        low=1e-6,
    )
    mpl_teacher_loss: str = setting(
        "uda",
        "What the teacher learns from beside the feedback: uda, labels and "
        "consistency; supervised, labels alone; rand_augment, strong views of "
        "the labeled images (on which the student is judged then too).",
        choices=TEACHER_LOSSES,
    )
    mpl_baseline_decay: float = setting(
        0.99,
        "Decay of the feedback's moving average; 1 keeps its first value.",
        low=1e-6,
        high=1,
    )
    mpl_baseline_start: float = setting(
        0.0,
        "First value of the feedback's moving average: a change (new - old) "
        "in what the estimator measures.",
    )
    mpl_update_teacher_moments: bool = setting(
        True,
        "Keep moving averages of the teacher's batch norm. The release does "
        "not, so its teacher is of no use in inference mode.",
    )
    mpl_student_lr: float = setting(
        0.1, "Peak learning rate of the student, per 256 labeled images.", low=0
    )
    mpl_student_lr_wait_steps: int = setting(
        500, "Steps before the student starts to learn.", low=0
    )
    mpl_student_lr_warmup_steps: int = setting(
        5_000, "Warm-up of the student after its wait, in steps.", low=0
    )
    mpl_teacher_lr: float = setting(
        0.1, "Peak learning rate of the teacher, per 256 labeled images.", low=0
    )
    mpl_teacher_lr_warmup_steps: int = setting(
        5_000, "Warm-up of the teacher, in steps.", low=0
    )

    # Diagnosis.
    diagnose_batches: int = setting(
        20,
        "Batches of --task_mode=diagnose, those that follow the checkpoint.",
        low=2,
    )
    diagnose_draws: int = setting(
        16, "Draws of pseudo labels for each of these batches.", low=2
    )
    diagnose_lr: float | None = setting(
        None,
        "Learning rate, not scaled, of the student's steps that a diagnosis "
        "looks at; by default the peak of the run, whatever it is at the "
        "checkpoint.",
        low=1e-12,
    )

    # Finetuning.
    finetune_lr: float = setting(
        1e-5, "Learning rate of finetuning, not scaled.", low=0
    )
    finetune_steps: int | None = setting(
        None,
        "Steps of finetuning; by default the paper's, 2,000 on ImageNet and "
        "1,000 on other data sets.",
        low=1,
    )
    finetune_batch_size: int = setting(
        512, "Labeled images a step; all where there are fewer.", low=1
    )
    finetune_batch_norm: str = setting(
        "update",
        "Batch norm in finetuning: update normalizes by the batch and moves "
        "the moving averages; frozen normalizes by these, and neither they "
        "nor scale and shift change.",
        choices=BATCH_NORM_MODES,
    )
    finetune_patience: int = setting(
        0,
        "Evaluations in a row without a gain on the images of "
        "--num_validation after which finetuning ends, with the weights of "
        "the best one; 0 takes all steps and keeps the last weights, as in "
        "the paper.",
        low=0,
    )
    finetune_eval_every: int = setting(
        100,
        "Steps of finetuning between two evaluations, each with a checkpoint, "
        "for --finetune_patience.",
        low=1,
    )

    # Export.
    export_keras: bool = setting(
        False,
        "Put the student into the exported version as a .keras file too.",
    )
    export_litert: bool = setting(
        False,
        "Put the student into the exported version for LiteRT too, and say "
        "how far that agrees with it on test images.",
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
                "--num_validation, or leave it away."
            )
