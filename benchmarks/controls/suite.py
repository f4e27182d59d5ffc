"""What a comparison consists of: runs, and suites of them."""

import dataclasses

from meta_pseudo_labels.run.config.flags import config_from_flagfile

OFF = "mpl off"
# Stands for the folder of the teacher that the run trains first.
OWN_TEACHER = "own"


@dataclasses.dataclass(frozen=True)
class Run:
    """A flagfile, and the settings that differ from it.

    Attributes:
      flagfile: its path from ROOT.
      changes: {setting: value} of what differs.
      feedback: the estimator; None for what is not MPL.
      control: the run to compare it with, by name: MPL under the same
        condition whose teacher hears no feedback. Its labels are of the same
        kind: estimators that draw theirs would otherwise get the credit, or
        the blame, for what one-hot labels do to a student. None for what is
        not MPL, and for most runs that are controls themselves.
      condition: of `CONDITIONS` or `PARTS`; None for runs without one.
      teacher: for pseudo labels, the `Run` whose student is the fixed teacher,
        with the same seed; it is trained first. None for other runs.
    """

    flagfile: str
    changes: dict = dataclasses.field(default_factory=dict)
    feedback: str | None = None
    control: str | None = None
    condition: str | None = None
    teacher: "Run | None" = None

    def settings(self, *, num_labeled, seed, **others):
        """The `Config` for a seed; flagfile paths are relative to ROOT."""
        settings = {"num_labeled": num_labeled, "seed": seed, **others}
        return config_from_flagfile(self.flagfile, **(settings | self.changes))


@dataclasses.dataclass(frozen=True)
class Suite:
    """Runs on one data set.

    Attributes:
      runs: name -> `Run`.
      num_labeled: the numbers of labels it runs with by default.
      dataset: its name.
      extra: names of runs that are left out unless asked for.
      pretrained: whether its networks start from the weights of a file, in
        place of ANY_WEIGHTS.
      equal_time: whether its runs all take equal time, and so have their own
        numbers of steps.
      kind: keeps its rows, in benchmarks/results/<dataset>_<kind>.jsonl, apart
        from others of the data set; "" for most suites.
    """

    runs: dict[str, Run]
    num_labeled: tuple[int, ...]
    dataset: str
    extra: tuple[str, ...] = ()
    pretrained: bool = False
    equal_time: bool = False
    kind: str = ""

    @property
    def rows(self):
        return f"{'_'.join(filter(None, (self.dataset, self.kind)))}.jsonl"

    @property
    def has_conditions(self):
        return any(run.condition for run in self.runs.values())

    @property
    def usual_runs(self):
        return [name for name in self.runs if name not in self.extra]


def mpl(recipe, estimator, changes=None, **facts):
    """The `Run` of a recipe, flags/<recipe>_mpl.flags.

    Args:
      recipe: its name.
      estimator: the feedback.
      changes: {setting: value} of what differs else.
      **facts: attributes of the `Run`.
    """
    return Run(
        f"flags/{recipe}_mpl.flags",
        {"mpl_feedback": estimator} | (changes or {}),
        feedback=estimator,
        **facts,
    )
