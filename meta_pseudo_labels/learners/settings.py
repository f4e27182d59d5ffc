"""The settings of a learner, whatever its method.

Each group is a frozen dataclass, whose fields become those of `Config`, and
flags. What only one method reads is in its own file.
"""

import dataclasses
from typing import ClassVar

from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.optimizers import OPTIMIZERS
from meta_pseudo_labels.optimizers.schedules import DECAYS
from meta_pseudo_labels.utils.settings import Unread, setting

ADAMS = ("adam", "adamw")
CORES = (1, 2, 4, 8, 16)
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """What is learned, and from which random draws."""

    method: str = setting(
        "mpl",
        "The learner; all but mpl are controls. pseudo_labels learns from a "
        "fixed teacher, that of --teacher_labels.",
        choices=LEARNERS,
    )
    seed: int = setting(
        0,
        "Seeds weights, the choice of labels and all draws.",
        low=0,
        high=2**32 - 1,
    )
    train_batch_size: int = setting(
        128, "Labeled images per step.", low=1, high=1_000_000
    )
    uda_data: int = setting(
        4,
        "Unlabeled images per labeled image in a step (mu).",
        low=1,
        high=1_000,
    )
    uda_data_growth_steps: int = setting(
        0,
        "Steps between doublings of the unlabeled images per labeled one, from "
        "1 up to --uda_data; 0 uses all from the first step on. A multiple of "
        "--save_every.",
        low=0,
    )
    log_every: int = setting(10, "Steps between two logged steps.", low=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The networks that learn."""

    model_type: str = setting(
        "wrn-28-2",
        "The student, such as wrn-28-2 or resnet-50. keras_hub is the network "
        "of the preset in --student_weights, keras_hub:<folder> that of "
        "another preset.",
    )
    student_weights: str | None = setting(
        None,
        "Weights that the student starts from: a .weights.h5 or .keras file, "
        "imagenet (or its .h5 file) for a network of keras.applications, the "
        "folder of a KerasHub preset for --model_type=keras_hub, or another "
        "run, for its finetuned student, otherwise that of its best or latest "
        "checkpoint. The last layer may be for other classes. A run that has "
        "checkpoints continues from these.",
    )
    preprocessing: str | None = setting(
        None,
        "What networks of keras.applications, of KerasHub and lite "
        "EfficientNets see: "
        "network, pixels as in their own training; or dataset, normalized by "
        "the data set as for all others. By default network for one that "
        "starts from weights, otherwise dataset.",
        choices=("dataset", "network"),
    )
    dense_dropout_rate: float = setting(
        0.1, "Dropout before the last layer.", low=0, high=0.99
    )
    stochastic_depth_drop_rate: float = setting(
        0.0,
        "Chance that an EfficientNet's block is skipped in training, times "
        "the share of blocks before it.",
        low=0,
        high=0.99,
    )
    batch_norm_decay: float = setting(
        0.99,
        "Decay of batch norm's moving averages. Networks of keras.applications "
        "and KerasHub keep batch norm as it is there.",
        low=0,
        high=1,
    )
    batch_norm_epsilon: float = setting(
        1e-3, "Added to the variance in batch norm.", low=0
    )
    batch_norm_batch_size: int | None = setting(
        None,
        "Images in a group of devices that share batch norm's statistics. "
        "Applies to more than 8 devices; otherwise all share them.",
        low=1,
    )
    use_bfloat16: bool = setting(
        False,
        "Compute in bfloat16; weights, batch norm and logits stay float32.",
    )
    precision: str | None = setting(
        None,
        "What to compute in: float32; bfloat16, the same as --use_bfloat16; or "
        "auto. auto uses bfloat16 on TPUs, and on a processor with "
        "instructions for it if a short measurement shows that it pays; a run "
        "keeps what it began with. By default --use_bfloat16 decides.",
        choices=(None, *PRECISIONS),
        free=True,  # use_bfloat16 is what must not change.
    )
    remat: bool = setting(
        False,
        "Keep only the inputs of a network's blocks for the gradient, and "
        "compute the blocks again for it: wide ResNets, ResNets, "
        "EfficientNets.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """The teacher, in methods that have one."""

    absent: ClassVar = "trains no teacher."

    teacher_model_type: str | None = setting(
        None,
        "The teacher; by default the same as the student. With "
        "--teacher_labels a perceptron, by default mlp-5-128: five layers of "
        "128 units.",
    )
    teacher_weights: str | None = setting(
        None, "As --student_weights, for the teacher."
    )
    teacher_labels: str | None = setting(
        None,
        "Class distributions of a fixed teacher, from `mpl cache_labels`: "
        "the file, or the folder of the run that trained it; several, "
        "separated by commas, are averaged. For "
        "--method=pseudo_labels, and for mpl, whose teacher is then a small "
        "one on top of them (Reduced MPL), without a consistency term.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizationSettings:
    """How the networks are updated."""

    unread: ClassVar = (
        Unread(
            ("rmsprop_",),
            "the optimizer is --optim_type={optim_type}.",
            when=lambda settings: settings["optim_type"] != "rmsprop",
        ),
        Unread(
            ("adam_",),
            "the optimizer is --optim_type={optim_type}.",
            when=lambda settings: settings["optim_type"] not in ADAMS,
        ),
        Unread(
            ("backbone_lr_factor", "layer_lr_decay"),
            "with --freeze_backbone_steps=-1 the backbone never moves.",
            when=lambda settings: settings["freeze_backbone_steps"] < 0,
        ),
        Unread(
            ("lr_decay_rate", "num_decay_steps"),
            "with --lr_decay_type={lr_decay_type} rates do not fall in drops.",
            when=lambda settings: settings["lr_decay_type"] != "exponential",
        ),
        Unread(
            ("ema_start",),
            "--ema_decay=0 keeps no moving average.",
            when=lambda settings: not settings["ema_decay"],
        ),
    )

    num_train_steps: int = setting(10_000, "Length of the run in steps.", low=1)
    optim_type: str = setting(
        "momentum",
        "The optimizer: sgd; momentum of 0.9, Nesterov's; rmsprop; lars; "
        "adam; or adamw, with another kind of --weight_decay.",
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
    adam_beta_1: float = setting(
        0.9, "Decay of adam's and adamw's mean gradient.", low=0, high=0.999999
    )
    adam_beta_2: float = setting(
        0.999,
        "Decay of adam's and adamw's mean of squared gradients.",
        low=0,
        high=0.999999,
    )
    adam_epsilon: float = setting(
        1e-7,
        "Added to the root of adam's and adamw's mean of squares.",
        low=1e-12,
    )
    weight_decay: float = setting(
        1e-4,
        "Added to gradients, times the weight. For adamw: subtracted from a "
        "weight in every step, times the weight and the learning rate, apart "
        "from the gradients. Neither applies to batch norm.",
        low=0,
    )
    freeze_backbone_steps: int = setting(
        0,
        "First steps in which only the head of student and teacher moves, the "
        "last layer with weights, which makes the logits; -1 for all steps. "
        "Batch norm's moving averages still move, see --freeze_batch_norm.",
        low=-1,
    )
    backbone_lr_factor: float = setting(
        1.0,
        "Learning rate of all but the head, in student and teacher, as a "
        "multiple of the head's.",
        low=0,
    )
    layer_lr_decay: float = setting(
        1.0,
        "Learning rate of a layer, in student and teacher, as a multiple of "
        "that of the layer above it, from the head down; a layer is a block "
        "that everything passes through, see docs/finetuning.md.",
        low=0.01,
        high=1,
    )
    freeze_batch_norm: bool = setting(
        False,
        "Make batch norm normalize by its moving averages in all of training, "
        "as they come with pretrained weights; neither these nor scale and "
        "shift change.",
    )
    grad_bound: float = setting(
        1e9, "Bound on the norm of a model's whole gradient.", low=1e-12
    )
    class_weight: str | None = setting(
        None,
        "Weights of labeled losses by class, also in finetuning: balanced "
        "makes all classes count equally, however many labels they have; by "
        "default all images count equally.",
        choices=(None, "balanced"),
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
        0.97, "Factor per drop of the exponential decay.", low=1e-12, high=1
    )
    num_decay_steps: int = setting(
        750, "Steps between drops of the exponential decay.", low=1
    )
    ema_decay: float = setting(
        0.0,
        "Decay of the student's moving average; 0 is off.",
        low=0,
        high=1,
    )
    ema_start: int = setting(0, "First step that is averaged.", low=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepSettings:
    """How a step is computed, which hardly changes its results."""

    batch_slices: int = setting(
        1,
        "Number of slices into which every batch, labeled and unlabeled images "
        "alike, is cut; they are computed one after the other. Batch norm "
        "normalizes each by itself. Must divide --train_batch_size.",
        low=1,
    )
    jit_compile: bool = setting(
        False,
        "Compile the step with XLA, on one device; TPUs always do. It is "
        "slower on a processor.",
        free=True,
    )
    steps_per_execution: int = setting(
        1,
        "Steps between two returns to Python, for networks so small, or "
        "devices so fast, that this matters. Must divide --log_every, "
        "--save_every and --num_train_steps. If updates that are not finite "
        "are skipped, a run may end up to so many steps late.",
        low=1,
        free=True,
    )
    num_cores_per_replica: int = setting(
        1, "TPU cores that share one replica.", choices=CORES, free=True
    )
    use_xla_sharding: bool = setting(
        False,
        "Split images by width over the TPU cores of a replica, for images too "
        "large for one.",
        free=True,
    )


# For every method, besides its own.
COMMON = (MethodSettings, NetworkSettings, OptimizationSettings, StepSettings)


def method_groups():
    """The groups that only some methods read, each once, a tuple."""
    own = (group for cls in LEARNERS.values() for group in cls.settings)
    return tuple(dict.fromkeys(own))


def learner_settings(**given):
    """All that a learner is built from, without a `Config`.

    Args:
      **given: settings that differ from their defaults; they are not checked.
    """
    groups = (*COMMON, *method_groups())
    return dataclasses.make_dataclass(
        "LearnerSettings", [], bases=groups, frozen=True, kw_only=True
    )(**given)


def unread_rules(method):
    """`Unread` rules for a method's runs; the first that applies counts."""
    learner = LEARNERS[method]
    absent = [
        Unread(
            tuple(field.name for field in dataclasses.fields(group)),
            f"--method={method} "
            + getattr(group, "absent", "does not read it."),
        )
        for group in method_groups()
        if group not in learner.settings
    ]
    return [*learner.unread, *absent, *rules_of(COMMON + learner.settings)]


def rules_of(groups):
    """The rules that groups of settings have of their own, a list."""
    return [rule for group in groups for rule in vars(group).get("unread", ())]
