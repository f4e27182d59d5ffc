"""The settings of inference: which images, networks and files."""

import dataclasses
import glob
import os
import re
from typing import ClassVar

from meta_pseudo_labels.run.config.run import stages
from meta_pseudo_labels.utils.settings import (
    ConfigError,
    Unread,
    check_picture_folder,
    command_name,
    setting,
    several_paths,
)

# Images of the run itself, and those in --inference_dir.
OWN_PARTS = ("test", "validation", "labeled", "unlabeled")
FOLDER, RECORDS, TFDS_PREFIX = "folder", "records", "tfds:"
NETWORKS = ("student", "teacher", "finetuned")
# Read by task modes whose own settings these are not.
_ALSO_READ = {"cache_labels": {"inference_network"}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """What `mpl predict` predicts; training reads none of it."""

    unread: ClassVar = (
        Unread(
            ("inference_",),
            "only `mpl predict` reads it.",
            when=lambda settings: settings["task_mode"] == "train",
        ),
    )

    inference_data: str | None = setting(
        None,
        "Images to predict. The run's own are test, validation, labeled or "
        "unlabeled; the others are in --inference_dir: folder, for image "
        "files at any depth; records, for TFRecord files with image/encoded; "
        "or tfds:<name>, for a data set that TensorFlow Datasets prepared. By "
        "default folder if --inference_dir is given, otherwise test.",
        free=True,
    )
    inference_dir: str | None = setting(
        None,
        "Where the images to predict are: a folder; for records also a file, "
        "or a pattern such as 'sets/train-*'; for tfds:<name> the folder of "
        "prepared data sets, by default --data_dir.",
        free=True,
    )
    inference_split: str = setting(
        "test", "Split of --inference_data=tfds:<name> to predict.", free=True
    )
    inference_network: str | None = setting(
        None,
        "Network that predicts, also for cache_labels. student is its moving "
        "average, if there is one. By default finetuned if there is one, "
        "otherwise student.",
        choices=(None, *NETWORKS),
        free=True,
    )
    inference_ckpt: str | None = setting(
        None,
        "Checkpoint to predict with: latest, best or a path; by default "
        "--from_checkpoint.",
        free=True,
    )
    inference_ckpt_ensemble: str | None = setting(
        None,
        "Checkpoints to predict with together, separated by commas; their "
        "probabilities are averaged. Each is given as for --inference_ckpt, "
        "and they may be from several runs.",
        free=True,
    )
    inference_class_id: int | None = setting(
        None,
        "Write only the probability of this class, by its number from 0, "
        "instead of those of all classes. Every image keeps its row. Has an "
        "effect only if given.",
        low=0,
        flag_default=0,
        free=True,
    )
    inference_num_threads: int | None = setting(
        None,
        "Number of processes that share the images, each with its own files; "
        "by default 1.",
        low=1,
        free=True,
    )
    inference_thread_index: int = setting(
        0,
        "Which of the --inference_num_threads processes this is, from 0: it "
        "takes every image whose number, divided by --inference_num_threads, "
        "leaves this remainder.",
        low=0,
        free=True,
    )
    inference_name: str = setting(
        "predictions",
        "Prefix of the files in inference/ of output_dir.",
        free=True,
    )
    inference_block: int = setting(
        1_024,
        "Images that are read and saved at a time: the most that is lost if "
        "the process is killed.",
        low=1,
        high=1_000_000,
        free=True,
    )

    @property
    def inference_source(self):
        """inference_data, or its default."""
        return self.inference_data or (FOLDER if self.inference_dir else "test")

    @property
    def inference_shards(self):
        return self.inference_num_threads or 1

    @property
    def inference_checkpoints(self):
        """The checkpoints that predict, a list; see `inference_ckpt`."""
        if self.inference_ckpt_ensemble is not None:
            return several_paths(
                "inference_ckpt_ensemble", self.inference_ckpt_ensemble
            )
        return [self.inference_ckpt or self.from_checkpoint]

    def check_only_for_inference(self):
        """Refuses settings of inference that the task mode does not read."""
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        for name in sorted(unread_by(self.task_mode)):
            value = getattr(self, name)
            if value != defaults[name]:
                mend = "Leave it out"
                if name == "inference_ckpt":
                    mend = "Use --from_checkpoint"
                raise ConfigError(
                    f"--{name}={value} is for `mpl predict`; this is "
                    f"{command_name(self.task_mode)}. {mend}."
                )

    def check_inference(self):
        """Refuses settings of inference that do not go together."""
        if self.inference_thread_index >= self.inference_shards:
            raise ConfigError(
                f"--inference_thread_index={self.inference_thread_index}: it "
                "counts from 0 and must be below --inference_num_threads="
                f"{self.inference_shards}."
            )
        if not re.fullmatch(r"\w[\w.-]*", self.inference_name):
            raise ConfigError(
                f"--inference_name={self.inference_name} is the prefix of file "
                "names: use letters, digits, '_', '-' and '.', no folders."
            )
        self._check_checkpoints()
        self._check_source()

    def _check_checkpoints(self):
        if None not in (self.inference_ckpt, self.inference_ckpt_ensemble):
            raise ConfigError(
                "--inference_ckpt and --inference_ckpt_ensemble are both "
                "given; keep one of them."
            )
        _ = self.inference_checkpoints  # Refuses an empty list.

    def _check_source(self):
        source, folder = self.inference_source, self.inference_dir
        if source in OWN_PARTS:
            if folder is not None:
                raise ConfigError(
                    f"--inference_dir={folder} would not be read: "
                    f"--inference_data={source} is the run's own. Leave one "
                    "of them out."
                )
            return
        if source not in (FOLDER, RECORDS) and not (
            source.startswith(TFDS_PREFIX) and source != TFDS_PREFIX
        ):
            known = ", ".join((*OWN_PARTS, FOLDER, RECORDS))
            raise ConfigError(
                f"--inference_data={source} is unknown; use one of {known}, "
                f"or {TFDS_PREFIX}<name>."
            )
        if source in (FOLDER, RECORDS) and folder is None:
            raise ConfigError(
                f"--inference_data={source} needs --inference_dir, where the "
                "images are."
            )
        if folder is not None:
            self._check_there(source, os.path.expanduser(folder))

    def _check_there(self, source, folder):
        check_picture_folder(folder, source)
        if "://" in folder:  # A bucket; checked when it is read.
            return
        there = os.path.isdir(folder)
        if source == RECORDS:
            there = os.path.exists(folder) or bool(glob.glob(folder))
        if not there:
            raise ConfigError(
                f"--inference_dir={self.inference_dir} does not exist; name "
                "what holds the images to predict."
            )


def unread_by(task_mode):
    """Names of the settings of inference that a task mode does not read.

    Training reads none of them, but saves them for later stages.
    """
    stage = stages()[task_mode]
    if stage.trains or InferenceSettings in stage.settings:
        return frozenset()
    names = {field.name for field in dataclasses.fields(InferenceSettings)}
    return frozenset(names - _ALSO_READ.get(task_mode, set()))
