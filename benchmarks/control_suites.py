"""Which runs there are to compare: flagfiles, and what differs from them."""

import dataclasses

from meta_pseudo_labels.flags import config_from_flagfile
from meta_pseudo_labels.learners import feedback

# The baseline of every question about the feedback: a teacher that hears none,
# whose labels are of the same kind. Estimators that draw theirs would else get
# the credit, or the blame, for what one-hot labels do to a student.
OFF = "mpl off"
SAMPLED_OFF = f"{OFF}, sampled labels"
PAPER = ("release", "exact", "reinforce")
# In place of a folder: the supervised student of the same seed, which the run
# trains first.
OWN_TEACHER = "supervised"
VARIANTS = (
    "reinforce_dot_product",
    "reinforce_cosine",
    "reinforce_per_example",
)


@dataclasses.dataclass(frozen=True)
class Run:
    """A flagfile, and the settings that differ from it."""

    flagfile: str
    changes: dict = dataclasses.field(default_factory=dict)

    def settings(self, *, num_labeled, seed, **others):
        """The `Config` of one seed. Flagfiles name one another from ROOT."""
        settings = {"num_labeled": num_labeled, "seed": seed, **others}
        return config_from_flagfile(self.flagfile, **(settings | self.changes))


@dataclasses.dataclass(frozen=True)
class Suite:
    """Runs on one data set.

    Attributes:
      runs: name -> `Run`.
      num_labeled: the numbers of labels it is asked for by default.
      rows: name of the file of rows in benchmarks/results.
      extra: names of runs that are left out unless asked for.
    """

    runs: dict[str, Run]
    num_labeled: tuple[int, ...]
    rows: str
    extra: tuple[str, ...] = ()

    @property
    def usual_runs(self):
        return [name for name in self.runs if name not in self.extra]


def methods(recipe, feedbacks):
    """Every method with a recipe, flags/<recipe>_<method>.flags."""
    supervised = f"flags/{recipe}_supervised.flags"
    return {
        "supervised": Run(supervised),
        "supervised + RandAugment": Run(supervised, {"use_augment": True}),
        "pseudo labels": Run(
            supervised,
            {"method": "pseudo_labels", "teacher_labels": OWN_TEACHER},
        ),
        "uda": Run(f"flags/{recipe}_uda.flags"),
        OFF: _mpl(recipe, "off"),
        SAMPLED_OFF: _mpl(recipe, "off", {"mpl_pseudo_labels": "sampled"}),
    } | {f"mpl {name}": _mpl(recipe, name) for name in feedbacks}


def where_feedback_helps(recipe, conditions):
    """MPL with feedback under each condition.

    Where a condition changes more than the feedback, there is a control of its
    own, "mpl off, <condition>"; see `control_of`.
    """
    runs = {f"mpl {name}": _mpl(recipe, name) for name in _BOTH}
    for condition, (feedbacks, changes) in conditions.items():
        for name in feedbacks:
            runs[f"mpl {name}, {condition}"] = _mpl(recipe, name, changes)
    return runs


def control_of(run, runs):
    """The run without feedback that a run of MPL is to be compared with.

    Returns:
      "mpl off" under the same condition, or where `runs` has no such run under
      the beginning of it: that of "mpl exact, weak teacher, weight 20" is
      "mpl off, weak teacher", since off has no weight. For estimators that
      draw their labels the same with `SAMPLED_OFF`, which is itself compared
      with "mpl off". None for other controls, and for what is not MPL.
    """
    if not run.startswith("mpl "):
        return None
    if run == SAMPLED_OFF:
        return OFF
    name, *conditions = run.removeprefix("mpl ").split(", ")
    _, kind = feedback.resolve(name)
    off = SAMPLED_OFF if kind == "sampled" else OFF
    while conditions and ", ".join([off, *conditions]) not in runs:
        conditions.pop()
    control = ", ".join([off, *conditions])
    return None if control == run else control


def _mpl(recipe, estimator, changes=None):
    return Run(
        f"flags/{recipe}_mpl.flags",
        {"mpl_feedback": estimator} | (changes or {}),
    )


# Feedback at its loudest and without noise of draws, beside none.
_ALONE = ("exact",)
_BOTH = ("off", "exact")

CONDITIONS = {
    "weight 5": (_ALONE, {"mpl_feedback_weight": 5.0}),
    "weight 20": (_ALONE, {"mpl_feedback_weight": 20.0}),
    "weight 100": (_ALONE, {"mpl_feedback_weight": 100.0}),
    "label temperature 0.5": (_BOTH, {"mpl_label_temp": 0.5}),
    "teacher without UDA": (_BOTH, {"mpl_teacher_loss": "supervised"}),
    "teacher without UDA, weight 20": (
        _ALONE,
        {"mpl_teacher_loss": "supervised", "mpl_feedback_weight": 20.0},
    ),
    "teacher on RandAugment": (_BOTH, {"mpl_teacher_loss": "rand_augment"}),
    "weak teacher": (_BOTH, {"teacher_model_type": "mlp"}),
    "10 labels": (_BOTH, {"num_labeled": 10}),
    "20 % wrong labels": (_BOTH, {"label_noise": 0.2}),
    "foreign classes": (_BOTH, {"known_classes": 5}),
    "feedback on 10 held-out labels": (_BOTH, {"num_feedback": 10}),
}

SUITES = {
    "digits": Suite(
        methods("digits", (*PAPER, *VARIANTS)),
        num_labeled=(20, 40, 100),
        rows="digits.jsonl",
        extra=tuple(f"mpl {name}" for name in VARIANTS),
    ),
    "cifar10": Suite(
        methods("cifar10_small", (*PAPER, *VARIANTS)),
        num_labeled=(250, 4000),
        rows="cifar10.jsonl",
        extra=tuple(f"mpl {name}" for name in VARIANTS),
    ),
    # Its runs without a condition are those of `digits` with 20 labels.
    "where": Suite(
        where_feedback_helps("digits", CONDITIONS),
        num_labeled=(20,),
        rows="digits.jsonl",
    ),
}
