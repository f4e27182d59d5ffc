"""The task modes of a run, each in the file that registers it.

    @STAGES.register("count")
    class Count(Stage):
        help = "Count the images that keep their labels."
        files = (RunFile("count.json", "how many there are"),)

        @staticmethod
        def run(experiment):
            print(len(experiment.data.labeled_labels))

That is all: the command line, the settings, the reset and the closing summary
look in `STAGES`. The modules are imported when the first name is looked up.
"""

import dataclasses

from meta_pseudo_labels.utils.registry import Registry

STAGES = Registry("task mode", package="meta_pseudo_labels.run.stages")


@dataclasses.dataclass(frozen=True)
class RunFile:
    """A file or folder that a stage leaves in the folder of the run.

    Attributes:
      path: relative to that folder.
      what: a description, for the reader.
      shown: whether the closing summary of the stage names it.
      early: whether it may exist before hparams.json does.
    """

    path: str
    what: str
    shown: bool = False
    early: bool = False

    def __post_init__(self):
        # A reset deletes this path.
        first = self.path.split("/")[0]
        if first in ("", ".", ".."):
            raise ValueError(f"{self.path!r} is not within a run's folder.")
        if set(first) & set("*?["):
            raise ValueError(
                f"{self.path!r} is a pattern, but a reset needs a name: put "
                "such files in a folder of their own."
            )


class Stage:
    """What a task mode does, and what other modules need to know about it.

    A subclass is registered, but never instantiated.

    Attributes:
      help: one line, an imperative sentence.
      trains: whether it trains the learner, on all devices. Such a stage reads
        no settings from hparams.json, but writes it; no other stage resets.
      needs_run: whether output_dir must hold a run.
      looks_only: whether it may look at labeled images other than the run's,
        as it neither learns from them nor evaluates a network on them.
      files: the `RunFile`s that it leaves in the run's folder.
      next: the task mode that usually follows, or None.
      settings: dataclasses of its own settings; their flags come first in the
        help of its command. Listing them here turns a plug-in's settings into
        flags; those of this package are in run.config. Of the latter,
        `InferenceSettings` are refused by a stage that does not list them.
    """

    help: str
    trains = False
    needs_run = True
    looks_only = False
    files: tuple[RunFile, ...] = ()
    next: str | None = None
    settings = ()

    @staticmethod
    def run(experiment):
        """Runs the stage, and prints what it left.

        Args:
          experiment: the `Experiment` of the run.
        """
        raise NotImplementedError

    @staticmethod
    def check(config):
        """Raises ConfigError if settings that only it reads do not fit."""

    @staticmethod
    def wait(output_dir):
        """Waits for what it starts from, before any setting is read."""

    @staticmethod
    def results_folder(config):
        """The folder of its `files`, for the closing summary."""
        return config.output_dir
