"""Every setting of a run: its name, its unit, its default, its range.

A setting of the release keeps the release's name and default: its flags are
the only record of the paper's runs. `flags.py` makes a command-line flag of
each field. Batch sizes are global, durations are in steps.
"""

import dataclasses
import functools
import json
import os
import typing
from typing import ClassVar

from meta_pseudo_labels import models
from meta_pseudo_labels.data.spec import DATASETS
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.learners.settings import COMMON, method_groups
from meta_pseudo_labels.run.config.after_training import (
    DiagnosisSettings,
    EvaluationSettings,
    ExportSettings,
    FinetuningSettings,
    ReviewSettings,
)
from meta_pseudo_labels.run.config.data import DataSettings
from meta_pseudo_labels.run.config.inference import InferenceSettings
from meta_pseudo_labels.run.config.machine import MachineSettings
from meta_pseudo_labels.run.config.run import RunSettings, stages
from meta_pseudo_labels.utils.settings import (
    ConfigError,
    check,
    module_names,
    user_error,
    value_type,
)

# Read by runs of every method.
RUN_GROUPS = (
    InferenceSettings,
    EvaluationSettings,
    ExportSettings,
    ReviewSettings,
    DiagnosisSettings,
    FinetuningSettings,
    MachineSettings,
    DataSettings,
    RunSettings,
)
_GROUPS = (*RUN_GROUPS, *COMMON, *method_groups())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(*_GROUPS):
    """The settings of one run. Raises `ConfigError` for one out of range.

    Each group of fields is a class defined next to the code that reads it:
    those of the run in this package, those of learning in `learners.settings`
    and in the files of the methods. `plugins` add the fields of what they
    register.
    """

    groups: ClassVar = _GROUPS

    def __new__(cls, **settings):
        if settings.get("plugins"):
            from meta_pseudo_labels.utils.plugins import load_plugins

            load_plugins(settings["plugins"])
        known = config_class()
        return super().__new__(known if issubclass(known, cls) else cls)

    def __reduce__(self):
        """Copies and pickles hold the settings; plug-ins may make the class."""
        fields = dataclasses.fields(self)
        return _again, ({f.name: getattr(self, f.name) for f in fields},)

    def __post_init__(self):
        for name in ("plugins", "callbacks"):
            names = module_names(getattr(self, name))
            object.__setattr__(self, name, names)
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
        self._complete_names()
        if self.precision == "float32" and self.use_bfloat16:
            raise ConfigError(
                "--precision=float32 and --use_bfloat16 contradict each other; "
                "leave one out, or say --nouse_bfloat16."
            )
        if self.precision == "bfloat16":
            object.__setattr__(self, "use_bfloat16", True)
        user_error(self._check_together)

    def _complete_names(self):
        """Completes the names of networks that are named by their weights."""
        for network, weights in (
            ("model_type", self.student_weights),
            ("teacher_model_type", self.teacher_weights),
        ):
            name = models.named_by_weights(getattr(self, network), weights)
            object.__setattr__(self, network, name)

    def _check_together(self):
        """Raises ValueError if settings do not go together."""
        for name in (self.model_type, self.teacher_model_type):
            if name is not None:
                models.check_model_type(name)
        self._check_weights()
        self._check_memory()
        self._check_data()
        self.check_balance()
        LEARNERS[self.method].check_settings(self)
        self.check_machine()
        self.check_finetuning()
        self.check_evaluation()
        self.check_only_for_inference()
        stages()[self.task_mode].check(self)
        for name in ("log_every", "save_every", "num_train_steps"):
            if getattr(self, name) % self.steps_per_execution:
                raise ConfigError(
                    f"--steps_per_execution={self.steps_per_execution} does "
                    f"not divide --{name}={getattr(self, name)}."
                )
        growth = self.uda_data_growth_steps
        if LEARNERS[self.method].reads_unlabeled() and growth % self.save_every:
            raise ConfigError(
                f"--uda_data_growth_steps={growth} is not a multiple of "
                f"--save_every={self.save_every}, and batches can change only "
                "at checkpoints."
            )
        if (
            self.load_checkpoint_and_restart_global_step
            and not self.load_checkpoint
        ):
            raise ConfigError(
                "--load_checkpoint_and_restart_global_step needs the path of "
                "a checkpoint in --load_checkpoint."
            )

    def _check_weights(self):
        """Refuses weights from two sources, and preprocessing without use."""
        if self.load_checkpoint and (
            self.student_weights or self.teacher_weights
        ):
            raise ConfigError(
                f"--load_checkpoint={self.load_checkpoint} has all weights of "
                "a run, but --student_weights or --teacher_weights is given "
                "too; leave one of them out."
            )
        names = {self.model_type, self.teacher_model_type} - {None}
        if self.preprocessing == "network" and not any(
            map(models.has_preprocessing, names)
        ):
            raise ConfigError(
                "--preprocessing=network is not for "
                f"{', '.join(sorted(names))}: only networks of "
                "keras.applications and KerasHub and lite EfficientNets have "
                "their own preprocessing; others see images normalized by the "
                "data set."
            )

    def _check_memory(self):
        """Refuses ways to save memory that cannot be applied."""
        if self.train_batch_size % self.batch_slices:
            raise ConfigError(
                f"--batch_slices={self.batch_slices} does not divide "
                f"--train_batch_size={self.train_batch_size}."
            )
        networks = {
            "model_type": self.model_type,
            "teacher_model_type": LEARNERS[self.method].teacher_type(self),
        }
        for flag, name in networks.items():
            if self.remat and name is not None and not models.has_blocks(name):
                raise ConfigError(
                    f"--remat: --{flag}={name} has no blocks to recompute; "
                    "wide ResNets, ResNets and EfficientNets have them. "
                    "--batch_slices works with any network."
                )

    def _check_data(self):
        # Imported late: it loads every kind of source.
        from meta_pseudo_labels.data.labels import LABEL_SUBSETS
        from meta_pseudo_labels.data.sources.loading import check_name

        try:
            check_name(self.dataset)
        except ValueError as error:
            raise ConfigError(f"--dataset={self.dataset}: {error}") from error
        if self.dataset in DATASETS:
            self.check_classes(DATASETS[self.dataset].num_classes)
        subset = self.label_subset
        if subset not in LABEL_SUBSETS and not (
            os.path.isfile(subset) or self._has_own_choice()
        ):
            raise ConfigError(
                f"--label_subset={subset} is not a file; use one of "
                f"{', '.join(LABEL_SUBSETS)}, or the path of a run's "
                "labeled.json."
            )

    def _has_own_choice(self):
        """Whether the run keeps the labels that a file once chose."""
        from meta_pseudo_labels.run.folder import LABELED, resets

        path = os.path.join(self.output_dir or "", LABELED)
        return os.path.isfile(path) and not resets(self)

    def check_classes(self, known):
        """Refuses a num_classes that is not the data set's.

        Raises:
          ConfigError: if it was given and differs from `known`.
        """
        if self.num_classes not in (None, known):
            raise ConfigError(
                f"--num_classes={self.num_classes}, but --dataset="
                f"{self.dataset} has {known} classes; leave --num_classes "
                "out or name another data set."
            )

    @property
    def steps_to_peak(self):
        """Steps until all learning rates have waited and warmed up."""
        return max(
            rate.wait_steps + rate.warmup_steps
            for rate in LEARNERS[self.method].rates(self)
        )

    def to_json(self):
        """All settings as indented JSON, the content of hparams.json."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def _again(settings):
    return Config(**settings)


def config_class():
    """`Config`, with the settings of everything that plug-ins registered.

    Raises:
      ConfigError: for a plug-in's setting that cannot be one.
    """
    added = [g for g in method_groups() if g not in Config.groups]
    for stage in stages().registered.values():
        added += [g for g in stage.settings if g not in Config.groups]
    return _extended(tuple(dict.fromkeys(added)))


_made = [Config]


@functools.cache
def _extended(groups):
    """`Config` with more groups of settings.

    It inherits from the existing class with the most of them, so that a config
    made earlier can be replaced by one of the new class.
    """
    known = {*Config.groups, *groups}
    base = max(
        (made for made in _made if known.issuperset(made.groups)),
        key=lambda made: len(made.groups),
    )
    groups = tuple(group for group in groups if group not in base.groups)
    if not groups:
        return base
    taken = {field.name for field in dataclasses.fields(base)}
    for group in groups:
        _check_group(group, taken)
        taken |= {field.name for field in dataclasses.fields(group)}
    namespace = {"groups": base.groups + groups, "__doc__": Config.__doc__}
    extended = type("Config", (*groups, base), namespace)
    _made.append(dataclasses.dataclass(frozen=True, kw_only=True)(extended))
    return _made[-1]


def _check_group(group, taken):
    """Refuses settings of a plug-in that cannot be flags.

    Raises:
      ConfigError: for a name that is taken, or a type that flags lack.
    """
    types = typing.get_type_hints(group)
    for field in dataclasses.fields(group):
        where = f"{group.__module__}.{group.__qualname__}.{field.name}"
        if field.name in taken:
            raise ConfigError(
                f"The setting {where} has the name of an existing one; give "
                "it another name."
            )
        field.type = types[field.name]  # It may have been a string.
        if value_type(field) not in (bool, int, float, str):
            raise ConfigError(
                f"The setting {where} is of type {field.type}; use bool, int, "
                "float or str, with or without None."
            )


def free_settings(*groups):
    """Names of the settings that may change between the stages of a run.

    They include those of task modes that train nothing, but not
    load_checkpoint: a run that began elsewhere would be another run.

    Args:
      *groups: of settings; by default all.
    """
    names = {
        field.name
        for group in groups or config_class().groups
        for field in dataclasses.fields(group)
        if field.metadata["free"]
    }
    for stage in () if groups else stages().registered.values():
        if not stage.trains:
            for group in stage.settings:
                if group not in Config.groups:  # These declare it themselves.
                    names |= {field.name for field in dataclasses.fields(group)}
    return frozenset(names)
