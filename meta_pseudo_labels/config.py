"""Every setting of a run: its name, its unit, its default, its range.

A setting that the release has keeps the release's name and default: its flags
are the only record of the paper's runs. `flags.py` makes a command-line flag
of each field. Batch sizes are global, durations are in steps.
"""

import dataclasses
import json
import math
import types
import typing

from meta_pseudo_labels.data import DATASETS
from meta_pseudo_labels.learners.feedback import (
    ESTIMATORS,
    PSEUDO_LABELS,
    resolve,
)
from meta_pseudo_labels.models import check_model_type
from meta_pseudo_labels.schedules import DECAYS

TASK_MODES = ("train", "finetune", "eval", "export")
METHODS = ("supervised", "uda", "mpl")


class ConfigError(ValueError):
    """A setting that cannot be meant; the message says what to change."""


def _setting(default, help, *, low=None, high=None, choices=None):
    metadata = dict(help=help, low=low, high=high, choices=choices)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one run. Raises `ConfigError` for one out of range."""

    task_mode: str = _setting(
        "train", "What to do with output_dir.", choices=TASK_MODES
    )
    output_dir: str | None = _setting(
        None, "Folder of the run: checkpoints, logs, results."
    )
    method: str = _setting(
        "mpl", "The learner; supervised and uda are controls.", choices=METHODS
    )
    seed: int = _setting(
        0,
        "Seeds weights, the choice of labels and all draws.",
        low=0,
        high=2**32 - 1,
    )

    # Data.
    dataset: str = _setting(
        "digits", "Where the images come from.", choices=tuple(DATASETS)
    )
    num_labeled: int = _setting(
        40, "Labeled images in all, the same number of each class.", low=1
    )
    train_batch_size: int = _setting(128, "Labeled images a step.", low=1)
    eval_batch_size: int = _setting(128, "Images a step of evaluation.", low=1)
    uda_data: int = _setting(
        4, "Unlabeled images per labeled image in a step (mu).", low=1
    )
    augment_magnitude: int = _setting(
        5, "Strength of RandAugment in strong views.", low=0, high=30
    )
    augment_cutout: float = _setting(
        0.5,
        "Side of the cutout in strong views, as a share of the image's.",
        low=0,
        high=1,
    )

    # Models.
    model_type: str = _setting("wrn-28-2", "The student, such as wrn-28-2.")
    teacher_model_type: str | None = _setting(
        None, "The teacher; by default as the student."
    )
    dense_dropout_rate: float = _setting(
        0.1, "Dropout before the last layer.", low=0, high=0.99
    )
    batch_norm_decay: float = _setting(
        0.99, "Decay of batch norm's moving averages.", low=0, high=1
    )
    batch_norm_epsilon: float = _setting(
        1e-3, "Added to the variance in batch norm.", low=0
    )
    ema_decay: float = _setting(
        0.0,
        "Decay of the student's moving average; 0 is off.",
        low=0,
        high=0.999999,
    )
    ema_start: int = _setting(0, "First step that is averaged.", low=0)

    # Optimisation.
    num_train_steps: int = _setting(10_000, "Length of the run.", low=1)
    weight_decay: float = _setting(
        1e-4, "Added to gradients, times the weight.", low=0
    )
    grad_bound: float = _setting(
        1e9, "Bound on a model's gradient norm.", low=1e-12
    )
    label_smoothing: float = _setting(
        0.0, "Weight of the uniform distribution in labels.", low=0, high=1
    )
    lr: float = _setting(
        0.016,
        "Peak learning rate of supervised and uda, per 256 labeled images.",
        low=0,
    )
    num_warmup_steps: int = _setting(0, "Warm-up of supervised and uda.", low=0)
    lr_decay_type: str = _setting(
        "exponential", "How learning rates fall.", choices=DECAYS
    )
    lr_decay_rate: float = _setting(
        0.97, "Factor of a drop of the exponential decay.", low=1e-12, high=1
    )
    num_decay_steps: int = _setting(
        750, "Steps between drops of the exponential decay.", low=1
    )

    # The consistency term, of uda and of the teacher in mpl.
    uda_weight: float = _setting(1.0, "Weight of the UDA loss.", low=0)
    uda_steps: int = _setting(10_000, "Ramp of the UDA weight.", low=1)
    uda_temp: float = _setting(
        0.75, "Temperature that sharpens weak views.", low=1e-6
    )
    uda_threshold: float = _setting(
        0.6, "Confidence from which a weak view counts.", low=0, high=1
    )

    # Meta Pseudo Labels.
    mpl_feedback: str = _setting(
        "exact",
        "Estimator of the student's feedback. The release's default would be "
        "release, whose gradient is zero.",
        choices=tuple(ESTIMATORS),
    )
    mpl_pseudo_labels: str | None = _setting(
        None,
        "Kind of pseudo labels; by default what the estimator works with.",
        choices=(None, *PSEUDO_LABELS),
    )
    mpl_baseline_decay: float = _setting(
        0.99, "Decay of the feedback's moving average.", low=0, high=1
    )
    mpl_update_teacher_moments: bool = _setting(
        True,
        "Keep moving averages of the teacher's batch norm. The release does "
        "not, so its teacher is of no use in inference mode.",
    )
    mpl_student_lr: float = _setting(
        0.1, "Peak learning rate of the student, per 256 labeled.", low=0
    )
    mpl_student_lr_wait_steps: int = _setting(
        500, "Steps before the student starts to learn.", low=0
    )
    mpl_student_lr_warmup_steps: int = _setting(
        5_000, "Warm-up of the student after its wait.", low=0
    )
    mpl_teacher_lr: float = _setting(
        0.1, "Peak learning rate of the teacher, per 256 labeled.", low=0
    )
    mpl_teacher_lr_warmup_steps: int = _setting(
        5_000, "Warm-up of the teacher.", low=0
    )

    # Finetuning.
    finetune_lr: float = _setting(
        1e-5, "Learning rate of finetuning, not scaled.", low=0
    )
    finetune_steps: int = _setting(1_000, "Steps of finetuning.", low=1)
    finetune_batch_size: int = _setting(
        512, "Labeled images a step; all where there are fewer.", low=1
    )

    # Habits.
    save_every: int = _setting(
        1_000, "Steps between checkpoints, each with an evaluation.", low=1
    )
    log_every: int = _setting(10, "Steps between two logged steps.", low=1)
    progress: bool = _setting(True, "Show a progress bar on a terminal.")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        user_error(self._check_together)

    def _check_together(self):
        """Raises ValueError where settings do not fit each other."""
        resolve(self.mpl_feedback, self.mpl_pseudo_labels)
        for name in (self.model_type, self.teacher_model_type):
            if name is not None:
                check_model_type(name)
        if self.lr_decay_type == "cosine":
            waiting = self.num_warmup_steps
            if self.method == "mpl":
                waiting = max(
                    self.mpl_student_lr_wait_steps
                    + self.mpl_student_lr_warmup_steps,
                    self.mpl_teacher_lr_warmup_steps,
                )
            if self.num_train_steps <= waiting:
                raise ConfigError(
                    f"--num_train_steps={self.num_train_steps} ends before "
                    f"waiting and warming up do, at step {waiting}. Lengthen "
                    "the run or shorten these."
                )

    def to_json(self):
        """All settings as indented JSON, the content of hparams.json."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def value_type(field):
    """The type of a setting's value, None apart."""
    if isinstance(field.type, types.UnionType):
        return next(
            t for t in typing.get_args(field.type) if t is not types.NoneType
        )
    return field.type


def _check(field, value):
    """Raises ConfigError where one setting's value is out of its range."""
    name, meta = f"--{field.name}={value}", field.metadata
    choices = meta["choices"]
    if choices is not None:
        if value not in choices:
            known = ", ".join(str(c) for c in choices if c is not None)
            raise ConfigError(f"{name} is unknown; use one of: {known}.")
        return
    if value is None and isinstance(field.type, types.UnionType):
        return
    expected = value_type(field)
    fits = (int, float) if expected is float else expected
    if not isinstance(value, fits) or (
        isinstance(value, bool) and expected is not bool
    ):
        raise ConfigError(
            f"{name} must be of type {expected.__name__}; got "
            f"{type(value).__name__}."
        )
    if expected is float and not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number.")
    if meta["low"] is not None and not value >= meta["low"]:
        raise ConfigError(f"{name} is too small; at least {meta['low']}.")
    if meta["high"] is not None and not value <= meta["high"]:
        raise ConfigError(f"{name} is too large; at most {meta['high']}.")


def user_error(function, *args, **kwargs):
    """Calls the library; what it refuses, the user can mend.

    Raises:
      ConfigError: for the library's ValueError, with its message.
    """
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        raise ConfigError(str(error)) from error
