"""What the files of a run say, as far as they exist.

Nothing here fails if a file is missing, torn or lacks a part: a killed run has
a page too, which says what is missing.
"""

import dataclasses
import functools
import os

from scipy import stats

from meta_pseudo_labels.learners.settings import StepSettings
from meta_pseudo_labels.run.config.after_training import (
    DiagnosisSettings,
    EvaluationSettings,
    ExportSettings,
    FinetuningSettings,
    ReviewSettings,
)
from meta_pseudo_labels.run.config.core import config_class, free_settings
from meta_pseudo_labels.run.config.inference import InferenceSettings
from meta_pseudo_labels.run.config.machine import MachineSettings
from meta_pseudo_labels.run.folder import (
    DATA,
    EVAL_MISTAKES,
    EVAL_REPORT,
    FINETUNE,
    HPARAMS,
    LABELED,
    MACHINE,
    PLUGINS,
    REVIEW_SUMMARY,
    RunFolder,
)
from meta_pseudo_labels.run.metrics_log import TIMES, read_rows
from meta_pseudo_labels.run.provenance import NOT_KNOWN
from meta_pseudo_labels.utils.checkpoint_files import (
    FOLDER,
    checkpoint_paths,
    step_of,
)
from meta_pseudo_labels.utils.files import read_json
from meta_pseudo_labels.utils.settings import module_names
from meta_pseudo_labels.utils.versions import version_names

# About the folder, the machine and the command, not the run.
NOT_OF_THE_RUN = (
    "allow_hparam_change",
    "data_dir",
    "data_service",
    "eval_batch_size",
    "log_every",
    "log_format",
    "max_to_keep",
    "output_dir",
    "progress",
    "progress_seconds",
    "reset_output_dir",
    "save_every",
    "task_mode",
    "worker_index",
)
# Folders whose images a run learns from; see `RunFiles.learned_from`.
LEARNED_FROM = ("labeled_dir", "unlabeled_dir")
_EACH = "*"  # Stands for every key of an object.
_COUNTS = dict.fromkeys(("images", "confidence", "accuracy"))
_CLASS = dict.fromkeys(("label", "name", "labeled"))
# What pages cannot do without, by file: keys, and what their values have in
# turn; in a list, what each of its elements has.
_NEEDED = {
    EVAL_REPORT: {
        "networks": {
            _EACH: {
                **dict.fromkeys(("top_1", "top_5", "images", "ece", "nll")),
                "macro": {"f1": None},
                "confusion": [],
                "classes": [{"class": None}],
                "calibration": [_COUNTS],
            }
        },
        **dict.fromkeys(("step", "images")),
    },
    EVAL_MISTAKES: {
        _EACH: [dict.fromkeys(("label", "predicted", "confidence"))]
    },
    DATA: {
        "classes": [_CLASS],
        "counts": {},
        **dict.fromkeys(("name", "image_shape")),
    },
    REVIEW_SUMMARY: {"step": None, "rows": {}},
    "diagnosis.json": {
        "settings": {"start_step": None},
        "estimators": {_EACH: {}},
    },
}
# The network to use of a run: the first one that exists.
FINAL = ("finetuned", "student")


class RunFiles:
    """What is known about a run.

    Args:
      folder: of the run.
      name: for the reader; by default the folder's.
    """

    def __init__(self, folder, name=None):
        self.folder = RunFolder(str(folder))
        self.name = name or os.path.basename(os.path.realpath(folder))
        self.unreadable = []

    def read(self, *names):
        """The dict in a JSON file; empty if that is missing or of no use."""
        path = self.folder.path(*names)
        if not os.path.exists(path):
            return {}
        try:
            found = read_json(path)
        except (OSError, ValueError):
            found = None
        if _has(found, _NEEDED.get(names[-1], {})):
            return found
        self.unreadable.append(os.path.join(*names))
        return {}

    @functools.cached_property
    def settings(self):
        return self.read(HPARAMS)

    @functools.cached_property
    def evaluation(self):
        """The contents of eval_report.json: "networks", "step", "images" ..."""
        return self.read(EVAL_REPORT)

    @functools.cached_property
    def mistakes(self):
        return self.read(EVAL_MISTAKES)

    @functools.cached_property
    def data(self):
        return self.read(DATA)

    @functools.cached_property
    def choice(self):
        """The choice of labels: "class_names", "labels" and more."""
        return self.read(LABELED)

    @property
    def learned_from(self):
        """What tells its images apart, wherever they are; None if not known.

        Only for images in folders: their mean and deviation are those of all
        that it learns from.
        """
        facts = [self.choice.get(key) for key in ("class_names", "mean", "std")]
        labels = self.choice.get("labels")
        if self.setting("dataset") != "folders" or None in facts:
            return None
        if not isinstance(labels, list):
            return None
        return (*facts, len(labels))

    @functools.cached_property
    def machine(self):
        return self.read(MACHINE)

    @functools.cached_property
    def plugins(self):
        """Hashes of its plug-ins by name; see `provenance.plugin_sources`."""
        return self.read(PLUGINS)

    @functools.cached_property
    def card(self):
        """The model card of the newest export."""
        versions = [
            os.path.join("saved_model", name)
            for name in version_names(self.folder.path("saved_model"))
            if self.exists("saved_model", name, "assets.extra")
        ]
        if not versions:
            return {}
        card = self.read(versions[-1], "assets.extra", "model_card.json")
        return card | {"version": versions[-1]} if card else {}

    @functools.cached_property
    def rows(self):
        """The rows that training logged, a list of dicts."""
        return read_rows(self.folder.path("metrics.jsonl"))

    @functools.cached_property
    def finetuning_rows(self):
        return read_rows(self.folder.path(FINETUNE, "metrics.jsonl"))

    @functools.cached_property
    def step(self):
        """That of the latest checkpoint, else of the latest row, else 0."""
        saved = checkpoint_paths(self.folder.path(FOLDER))
        if saved:
            return step_of(saved[-1])
        return max((row["step"] for row in self.rows), default=0)

    @property
    def is_done(self):
        return self.folder.is_done()

    def exists(self, *names):
        return os.path.exists(self.folder.path(*names))

    def final_network(self):
        """Its name and its part of eval_report.json; None, {} if unknown."""
        networks = self.evaluation.get("networks", {})
        names = [name for name in FINAL if name in networks]
        return (names[0], networks[names[0]]) if names else (None, {})

    def scalars(self, *, finetuning=False):
        """What was logged: (steps, values) by name, in alphabetical order."""
        found = {}
        for row in self.finetuning_rows if finetuning else self.rows:
            for name, value in row.items():
                if name not in ("step", *TIMES):
                    steps, values = found.setdefault(name, ([], []))
                    steps.append(row["step"])
                    values.append(value)
        return dict(sorted(found.items()))

    def accuracy(self):
        """The accuracy to report, as a dict; None if there is none.

        "value" in [0, 1], "network", "step", "images" (a description); their
        "count", "interval" (of 95 %) and "chance" (`Evaluation.chance`), each
        None if not known.
        """
        name, found = self.final_network()
        if name:
            count = found["images"]
            return {
                "value": found["top_1"],
                "network": name,
                "step": self.evaluation["step"],
                "images": self.evaluation["images"],
                "count": count,
                "interval": interval(found["top_1"], count),
                "chance": found.get("chance"),
            }
        logged = [row for row in self.rows if "eval/accuracy" in row]
        if not logged:
            return None
        return {
            "value": logged[-1]["eval/accuracy"],
            "network": "student",
            "step": logged[-1]["step"],
            "images": "the images that training evaluates on",
            "count": None,
            "interval": None,
            "chance": None,
        }

    def setting(self, name):
        """The value of a setting; its default for runs that lack the setting.

        Plug-ins are named with the beginnings of the hashes of their source,
        if these are known.
        """
        value = self.settings.get(name, default_settings().get(name))
        if name == "plugins" and value:
            names = module_names(value).split(",")
            return ", ".join(self._with_source(plugin) for plugin in names)
        return value

    def _with_source(self, plugin):
        """The name of a plug-in, and the beginnings of its hashes."""
        versions = self.plugins.get(plugin)
        if not versions or not isinstance(versions, dict):
            return plugin
        first, *later = (
            (step, one if one == NOT_KNOWN else str(one)[:8])
            for step, one in versions.items()
        )
        then = [f", then {one} from step {step}" for step, one in later]
        return f"{plugin} ({first[1]}{''.join(then)})"

    def changed_settings(self):
        """Those that differ from the default: name, value, default."""
        defaults = default_settings()
        return [
            (name, value, defaults.get(name, "–"))
            for name, value in self.settings.items()
            if name not in NOT_OF_THE_RUN
            and (name not in defaults or value != defaults[name])
        ]

    def seconds(self, rows):
        """How long training took according to `rows`; None if not known."""
        known = [row["seconds"] for row in rows if "seconds" in row]
        return max(known, default=None)


def runs_in(folders):
    """The `RunFiles` of different folders, each with a name of its own.

    That is as much of the end of its path as no other path has.
    """
    paths = [os.path.realpath(folder).split(os.sep) for folder in folders]
    found = []
    for folder, parts in zip(folders, paths, strict=True):
        tails = (parts[start:] for start in reversed(range(len(parts))))
        own = next(
            tail
            for tail in tails
            if sum(path[-len(tail) :] == tail for path in paths) == 1
        )
        found.append(RunFiles(folder, name=os.sep.join(own)))
    return found


def _has(found, needed):
    """Whether what a file contains has all parts of `_NEEDED`."""
    if needed is None:
        return True
    if isinstance(needed, list):
        return isinstance(found, list) and all(
            _has(one, part) for one in found for part in needed
        )
    if not isinstance(found, dict):
        return False
    if _EACH in needed:
        return all(_has(one, needed[_EACH]) for one in found.values())
    return all(
        key in found and _has(found[key], part) for key, part in needed.items()
    )


@functools.cache
def default_settings():
    """The defaults of this package, a dict by name."""
    return {
        field.name: field.default
        for field in dataclasses.fields(config_class())
    }


def settings_of_finetuning():
    """Names of the settings that say how the student is finetuned."""
    return free_settings(FinetuningSettings) | {"from_checkpoint"}


def settings_of_the_machine():
    """Names of the settings on which no result depends, but where and how.

    Which images a network is evaluated on is told with its evaluation.
    """
    others = {"eval_dir", "stop_after_bad_steps", "strict_data"}
    return free_settings(MachineSettings, StepSettings) | others


def settings_after_training():
    """Names of the settings of later stages that change no network."""
    return free_settings(
        EvaluationSettings,
        ExportSettings,
        InferenceSettings,
        DiagnosisSettings,
        ReviewSettings,
    )


def interval(share, count):
    """Wilson's interval (95 %) of a share measured on `count` images."""
    found = stats.binomtest(round(share * count), count)
    limits = found.proportion_ci(method="wilson")
    return float(limits.low), float(limits.high)
