"""The results of several runs; those that differ only in the seed are one."""

import dataclasses
import os
import re
import statistics
from collections.abc import Sequence

from meta_pseudo_labels.evaluation.statistics import (
    FEW,
    Estimate,
    discoveries,
    estimate,
    paired_difference,
)
from meta_pseudo_labels.run.pages.plots import Line
from meta_pseudo_labels.run.pages.run_files import (
    LEARNED_FROM,
    NOT_OF_THE_RUN,
    RunFiles,
    settings_after_training,
    settings_of_finetuning,
    settings_of_the_machine,
)

LOGGED = "last in training"
NETWORKS = ("finetuned", "student", "student_raw", "teacher")
# The network that each group would use, if not all were finetuned.
IN_USE = "finetuned, else student"


@dataclasses.dataclass(frozen=True)
class Condition:
    """Runs that differ only in their seed.

    Attributes:
      name: for the reader.
      settings: those that differ between conditions, a dict.
      runs: `RunFiles`.
    """

    name: str
    settings: dict
    runs: tuple[RunFiles, ...]

    @property
    def is_finetuned(self):
        """Whether all its runs were evaluated after finetuning."""
        return all(map(_was_finetuned, self.runs))

    def by_seed(self, measure):
        """Accuracies of its runs, by seed; the mean of runs of equal seed.

        Args:
          measure: one of `NETWORKS`, `IN_USE` or `LOGGED`.
        """
        if measure == IN_USE:  # The same network for all its runs.
            measure = NETWORKS[0 if self.is_finetuned else 1]
        found = {}
        for run in self.runs:
            value = _measured(run, measure)
            if value is not None:
                found.setdefault(run.settings.get("seed"), []).append(value)
        return {seed: statistics.fmean(each) for seed, each in found.items()}

    def curve(self, scalar, style):
        """Mean and standard deviation over runs, at steps that all logged."""
        each = []
        for run in self.runs:
            steps, values = run.scalars().get(scalar, ([], []))
            each.append(dict(zip(steps, values, strict=True)))
        logged = [one for one in each if one]
        steps = sorted(set.intersection(*map(set, logged))) if logged else []
        found = [estimate([one[step] for one in logged]) for step in steps]
        means = [one.mean for one in found]
        low = high = None
        if len(logged) > 1:
            low = [one.mean - one.deviation for one in found]
            high = [one.mean + one.deviation for one in found]
        return Line(self.name, steps, means, low=low, high=high, style=style)


@dataclasses.dataclass(frozen=True)
class Difference:
    """How much a condition differs from the first one.

    Attributes:
      name: of the condition.
      found: an `Estimate`; None if they have no seed in common.
      holds: whether it is not zero, allowing for multiple comparisons.
    """

    name: str
    found: Estimate | None
    holds: bool

    @property
    def is_of_few(self):
        """Whether it comes from too few seeds to tell."""
        return self.found.count < FEW

    @property
    def is_of_equal(self):
        """Whether it is the same with every seed, so that none can tell."""
        return not self.is_of_few and self.found.margin is None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What the page and the terminal report about runs.

    Attributes:
      runs: `RunFiles`.
      conditions: `Condition`s; the others are compared with the first.
      measures: those of `NETWORKS` and `LOGGED` that any run has.
      measure: the one that is compared, `IN_USE` or one of `measures`; None
        if no network was evaluated in all conditions.
      differences: a `Difference` for each condition but the first; empty
        without a measure.
      images: the images of the evaluations, each once.
      doubts: sentences about what was not evaluated alike.
    """

    runs: Sequence[RunFiles]
    conditions: Sequence[Condition]
    measures: Sequence[str]
    measure: str | None
    differences: Sequence[Difference]
    images: Sequence[str]
    doubts: Sequence[str]


def comparison_of(runs):
    """What the page and the terminal report about runs, a `Comparison`.

    Args:
      runs: a list of `RunFiles`.
    """
    conditions = conditions_of(runs)
    measures = _measures(conditions)
    measure = _compared(conditions, measures)
    return Comparison(
        runs=runs,
        conditions=conditions,
        measures=measures,
        measure=measure,
        differences=_differences(conditions, measure),
        images=_evaluated_images(runs),
        doubts=_doubts(runs, measure),
    )


def _evaluated_images(runs):
    """Descriptions, each once."""
    return sorted({run.evaluation["images"] for run in runs if run.evaluation})


def _doubts(runs, measure):
    """Sentences about what was not evaluated alike."""
    found, images, by_part = [], _evaluated_images(runs), {}
    for run in runs:
        by_part.setdefault(_judged_on(run), []).append(run.name)
    if measure == LOGGED and len(by_part) > 1:
        parts = (f"{part} {', '.join(by_part[part])}" for part in by_part)
        found.append(
            f"Training was judged by different images: {'; '.join(parts)}."
        )
    # Evaluations of earlier versions of this package have no digest.
    digests = {run.evaluation.get("images_digest") for run in runs} - {None}
    if len(images) > 1:
        found.append(
            f"The evaluations are of different images: {'; '.join(images)}."
        )
    elif len(digests) > 1:
        found.append(
            f"The evaluations are of different images, all called {images[0]}."
        )
    behind = [
        f"{run.name} (step {run.evaluation['step']} of {run.step})"
        for run in runs
        if run.evaluation.get("step", run.step) < run.step
    ]
    if behind:
        found.append(
            "Evaluated at an earlier step than that of the latest checkpoint: "
            f"{', '.join(behind)}."
        )
    return found


def _judged_on(run):
    """The images that training evaluates on, in words; see `stages.train`."""
    if run.setting("num_validation") and run.setting("best_on") != "test":
        return "validation"
    folder = run.setting("eval_dir")
    return f"test ({folder})" if folder else "test"


def conditions_of(runs):
    """Groups runs that differ only in the seed, a list.

    Args:
      runs: `RunFiles`; their order is kept.
    """
    names = dict.fromkeys(name for run in runs for name in run.settings)
    ignored = {
        "seed",
        *NOT_OF_THE_RUN,
        *settings_of_the_machine(),
        *settings_after_training(),
    }
    kept = [name for name in names if name not in ignored]
    groups = _groups(runs, kept)
    # What finetuned a group is said by those of its runs that it finetuned.
    examples = [max(group, key=_was_finetuned) for group in groups]
    differ = [
        name for name in kept if len({_form(run, name) for run in examples}) > 1
    ]
    return [
        Condition(
            title, {name: run.setting(name) for name in differ}, tuple(group)
        )
        for title, group, run in zip(
            _titles(groups), groups, examples, strict=True
        )
    ]


def _groups(runs, names):
    """Lists of runs with the same values of these settings.

    Those of finetuning tell runs apart once they were finetuned. Until then a
    run belongs to the finetuned ones that are like it, if these are one group.
    """
    of_finetuning = settings_of_finetuning()
    trained = {}
    for run in runs:
        key = (_form(run, name) for name in names if name not in of_finetuning)
        trained.setdefault(tuple(key), []).append(run)
    groups = []
    for alike in trained.values():
        by_finetuning = {}
        for run in alike:
            key = _was_finetuned(run) and tuple(
                _form(run, name) for name in names if name in of_finetuning
            )
            by_finetuning.setdefault(key, []).append(run)
        in_part = len(by_finetuning) == 2 and False in by_finetuning
        groups += [alike] if in_part else by_finetuning.values()
    return sorted(groups, key=lambda group: runs.index(group[0]))


def _form(run, name):
    """Text that tells different values of a setting apart."""
    value = run.setting(name)
    if name in LEARNED_FROM and run.learned_from is not None:
        value = run.learned_from
    elif isinstance(value, float) and value.is_integer():
        value = int(value)  # In Python a learning rate may be 1.
    return repr(value)


def _titles(groups):
    """Titles, all different: what the folder names of each group share."""
    titles = []
    for group in groups:
        names = [run.name for run in group]
        title = names[0]
        if len(names) > 1:
            # Whole words only, without the seed and a "seed" before it.
            common = os.path.commonprefix([f"{name}-" for name in names])
            words = re.match(r"(.*[-_. ])?", common)[0]
            title = re.sub(r"(^|[-_. ])(seed|s)?[-_. =]*$", "", words)
            if len(last := {*map(os.path.basename, names)}) == 1:
                (title,) = last
            title = title or os.path.basename(
                os.path.dirname(os.path.realpath(str(group[0].folder)))
            )
        while not title or title in titles:
            title = f"{title or 'group'} ({names[0]})"
        titles.append(title)
    return titles


def _was_finetuned(run):
    return NETWORKS[0] in run.evaluation.get("networks", {})


def _measured(run, measure):
    if measure == LOGGED:
        _, values = run.scalars().get("eval/accuracy", ([], []))
        return values[-1] if values else None
    network = run.evaluation.get("networks", {}).get(measure, {})
    return network.get("top_1")


def _measures(conditions):
    """The measures that a run of any condition has."""
    return [
        measure
        for measure in (*NETWORKS, LOGGED)
        if any(condition.by_seed(measure) for condition in conditions)
    ]


def _compared(conditions, measures):
    """The measure to compare: the first that all conditions have, or None."""
    if all(condition.is_finetuned for condition in conditions):
        return NETWORKS[0]
    everywhere = (
        measure
        for measure in (IN_USE, *measures)
        if all(condition.by_seed(measure) for condition in conditions)
    )
    return next(everywhere, None)


def _differences(conditions, measure):
    """Those of each condition from the first, a list; empty without measure."""
    if measure is None:
        return []
    first = conditions[0].by_seed(measure)
    found = [
        paired_difference(condition.by_seed(measure), first)
        for condition in conditions[1:]
    ]
    holds = iter(discoveries([one for one in found if one is not None]))
    return [
        Difference(condition.name, one, one is not None and next(holds))
        for condition, one in zip(conditions[1:], found, strict=True)
    ]
