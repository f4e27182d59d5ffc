"""Every setting of a run: its name, its unit, its default, its range.

A setting that the release has keeps the release's name and default: its flags
are the only record of the paper's runs. `flags.py` makes a command-line flag
of each field. Batch sizes are global, durations are in steps.
"""

import dataclasses
import json
import os

from meta_pseudo_labels.data import DATASETS, LABEL_SUBSETS, check_name
from meta_pseudo_labels.learners.feedback import resolve
from meta_pseudo_labels.models import (
    REDUCED_TEACHER,
    check_model_type,
    has_blocks,
    mlp_hidden_sizes,
)
from meta_pseudo_labels.run.config.evaluation import Evaluation
from meta_pseudo_labels.run.config.inference import Inference
from meta_pseudo_labels.run.config.inputs import Inputs
from meta_pseudo_labels.run.config.machine import Machine
from meta_pseudo_labels.run.config.training import Training
from meta_pseudo_labels.utils.settings import (
    ConfigError,
    check,
    setting,
    user_error,
)

TASK_MODES = (
    "train",
    "finetune",
    "eval",
    "evals",
    "eval_forever",
    "export",
    "inspect",
    "cache_labels",
    "diagnose",
    "inference",
)
METHODS = ("supervised", "pseudo_labels", "uda", "mpl")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What is done, and where to."""

    task_mode: str = setting(
        "train",
        "What to do with output_dir; by default train. eval looks at one "
        "checkpoint, evals at all that were not looked at yet, and "
        "eval_forever goes on until the training beside it is done. "
        "inference predicts many images, see docs/inference.md.",
        choices=TASK_MODES,
        flag_default=None,
    )
    method: str = setting(
        "mpl",
        "The learner; the others are controls. pseudo_labels learns from a "
        "fixed teacher, that of --teacher_labels.",
        choices=METHODS,
    )
    seed: int = setting(
        0,
        "Seeds weights, the choice of labels and all draws.",
        low=0,
        high=2**32 - 1,
    )

    # The folder of the run.
    output_dir: str | None = setting(
        None, "Folder of the run: checkpoints, logs, results."
    )
    reset_output_dir: bool = setting(
        False,
        "Before training, delete the run that output_dir holds, its "
        "checkpoints too. Files that no run wrote stay.",
    )
    allow_hparam_change: bool = setting(
        False,
        "Go on with the run in output_dir though settings differ from its own.",
    )
    save_every: int = setting(
        1_000, "Steps between checkpoints, each with an evaluation.", low=1
    )
    max_to_keep: int = setting(
        3, "Checkpoints to keep, beside the best one.", low=1
    )
    best_on: str = setting(
        "validation",
        "Images on which the best checkpoint is chosen: those of "
        "--num_validation, where there are any; or test, which then no longer "
        "tells how good the network is on images it has not seen.",
        choices=("validation", "test"),
    )
    from_checkpoint: str = setting(
        "latest",
        "What the stages after training begin with: the latest checkpoint of "
        "the run, the best one, or the path of one.",
    )
    stop_after_bad_steps: int = setting(
        100,
        "Updates in a row that are skipped, since they are not finite, before "
        "training stops.",
        low=1,
    )
    log_every: int = setting(10, "Steps between two logged steps.", low=1)
    progress: bool = setting(True, "Show a progress bar on a terminal.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Inference, Evaluation, Machine, Training, Inputs, Run):
    """The settings of one run. Raises `ConfigError` for one out of range.

    Those of data and models are in `config_inputs.Inputs`, those of training
    in `config_training.Training`, those of devices in
    `config_machine.Machine`, those of other images to evaluate on in
    `config_evaluation.Evaluation`, those of predictions in
    `config_inference.Inference`.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
        user_error(self._check_together)

    def _check_together(self):
        """Raises ValueError where settings do not fit each other."""
        if self.method != "pseudo_labels":  # For which all kinds will do.
            resolve(self.mpl_feedback, self.mpl_pseudo_labels)
        for name in (self.model_type, self.teacher_model_type):
            if name is not None:
                check_model_type(name)
        self._check_memory()
        self._check_data()
        self._check_teacher()
        if self.task_mode == "diagnose" and self.method != "mpl":
            raise ConfigError(
                "--task_mode=diagnose looks at the feedback, which only mpl "
                f"has; --method={self.method} has none."
            )
        self.check_machine()
        self.check_finetuning()
        self.check_evaluation()
        if self.task_mode == "inference":
            self.check_inference()
        for name in ("log_every", "save_every", "num_train_steps"):
            if getattr(self, name) % self.steps_per_execution:
                raise ConfigError(
                    f"--steps_per_execution={self.steps_per_execution} does "
                    f"not divide --{name}={getattr(self, name)}."
                )
        if (
            self.load_checkpoint_and_restart_global_step
            and not self.load_checkpoint
        ):
            raise ConfigError(
                "--load_checkpoint_and_restart_global_step needs the path of "
                "a checkpoint in --load_checkpoint."
            )

    def _check_memory(self):
        """Refuses what trades memory for time where it cannot."""
        if self.train_batch_size % self.batch_slices:
            raise ConfigError(
                f"--batch_slices={self.batch_slices} does not divide "
                f"--train_batch_size={self.train_batch_size}."
            )
        networks = {"model_type": self.model_type}
        if self.method == "mpl" and not self.reduces_teacher:
            networks["teacher_model_type"] = self.teacher_model_type
        for flag, name in networks.items():
            if self.remat and name is not None and not has_blocks(name):
                raise ConfigError(
                    f"--remat: --{flag}={name} has no blocks to compute again; "
                    "wide ResNets, ResNets and EfficientNets do. "
                    "--batch_slices takes any network."
                )

    def _check_data(self):
        try:
            check_name(self.dataset)
        except ValueError as error:
            raise ConfigError(f"--dataset={self.dataset}: {error}") from error
        if self.dataset in DATASETS:
            self.check_classes(DATASETS[self.dataset].num_classes)
        subset = self.label_subset
        if subset not in LABEL_SUBSETS and not os.path.isfile(subset):
            raise ConfigError(
                f"--label_subset={subset} is no file; use one of "
                f"{', '.join(LABEL_SUBSETS)}, or the path of a run's "
                "labeled.json."
            )

    def _check_teacher(self):
        """Refuses a fixed teacher that is missing or of no use."""
        if not self.teacher_labels:
            if self.method == "pseudo_labels":
                raise ConfigError(
                    "--method=pseudo_labels needs --teacher_labels=<folder of "
                    "the run that trained the teacher>; python main.py "
                    "--task_mode=cache_labels --output_dir=<that folder> "
                    "writes them there."
                )
            return
        if self.method not in ("pseudo_labels", "mpl"):
            raise ConfigError(
                f"--teacher_labels: --method={self.method} has no teacher; "
                "leave it away, or use pseudo_labels or mpl."
            )
        if self.reduces_teacher and not mlp_hidden_sizes(
            self.teacher_model_type or REDUCED_TEACHER
        ):
            raise ConfigError(
                f"--teacher_model_type={self.teacher_model_type}: with "
                "--teacher_labels the teacher is a small perceptron on top of "
                f"these; give one such as {REDUCED_TEACHER}, or none."
            )

    @property
    def reduces_teacher(self):
        """Whether this is Reduced MPL, on top of a fixed teacher's labels."""
        return self.method == "mpl" and bool(self.teacher_labels)

    def check_classes(self, known):
        """Refuses a num_classes that is not the data set's.

        Raises:
          ConfigError: where it was given and differs from `known`.
        """
        if self.num_classes not in (None, known):
            raise ConfigError(
                f"--num_classes={self.num_classes}, but --dataset="
                f"{self.dataset} has {known} classes; leave --num_classes "
                "away or name another data set."
            )

    @property
    def steps_to_peak(self):
        """Steps before all learning rates have waited and warmed up."""
        if self.method != "mpl":  # Which ignores num_warmup_steps (quirk 21).
            return self.num_warmup_steps
        return max(
            self.mpl_student_lr_wait_steps + self.mpl_student_lr_warmup_steps,
            self.mpl_teacher_lr_warmup_steps,
        )

    def to_json(self):
        """All settings as indented JSON, the content of hparams.json."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"
