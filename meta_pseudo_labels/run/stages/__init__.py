"""The task modes of a run, each in the file that registers it.

    @STAGES.register("count")
    class Count(Stage):
        help = "Count the images that keep their labels."
        files = (RunFile("count.json", "how many there are"),)

        @staticmethod
        def run(experiment):
            print(len(experiment.data.labeled_labels))

That is all: the command line, the settings, the reset and the closing summary
ask `STAGES`. The modules are imported when the first name is asked for.
"""

import dataclasses

from meta_pseudo_labels.utils.registry import Registry

STAGES = Registry("task mode", package="meta_pseudo_labels.run.stages")


@dataclasses.dataclass(frozen=True)
class RunFile:
    """A file, or a folder, that a stage leaves in the folder of the run.

    Attributes:
      path: within that folder.
      what: it is, for the reader.
      shown: whether the closing summary of the stage names it.
      early: whether it may be there before hparams.json is.
    """

    path: str
    what: str
    shown: bool = False
    early: bool = False

    def __post_init__(self):
        # A reset deletes it.
        first = self.path.split("/")[0]
        if first in ("", ".", ".."):
            raise ValueError(f"{self.path!r} is not within a run's folder.")
        if set(first) & set("*?["):
            raise ValueError(
                f"{self.path!r} is a pattern where a reset needs a name: give "
                "such files a folder of their own."
            )


class Stage:
    """What a task mode does, and what others have to know of it.

    A subclass is registered, never made an object of.

    Attributes:
      help: one line, an imperative sentence.
      trains: whether it trains the learner, on all devices. It takes no
        settings from hparams.json, but writes that; it alone resets.
      needs_run: whether output_dir must hold a run.
      looks_only: whether it may look at other labeled images than the run's:
        it learns from none, and judges no network by them.
      files: what it leaves in the run's folder, a `RunFile` each.
      next: the task mode that usually follows, or None.
      settings: dataclasses of its own settings, with whose flags the help of
        its command begins. A plug-in's become flags by that; those of this
        package are in run.config.
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
        """Does it, and prints what it left.

        Args:
          experiment: the `Experiment` of the run.
        """
        raise NotImplementedError

    @staticmethod
    def check(config):
        """Raises ConfigError where settings that it alone reads do not fit."""

    @staticmethod
    def wait(output_dir):
        """Waits for what it begins with, before any setting is read."""

    @staticmethod
    def results_folder(config):
        """Where its `files` are, for the closing summary."""
        return config.output_dir
