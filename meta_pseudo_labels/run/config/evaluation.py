"""The settings of evaluation on other images, and of other networks."""

import dataclasses

from meta_pseudo_labels.utils.settings import (
    ConfigError,
    command_name,
    setting,
)

FOLDERS = "folders"
_ONLY_FOR_EVAL = ("eval_dataset", "eval_data_dir", "saved_model")


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
