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
from meta_pseudo_labels.run.pages.run_files import NOT_OF_THE_RUN, RunFiles

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

    def by_seed(self, measure):
        """Accuracies of its runs, by seed; the mean of runs of equal seed.

        Args:
          measure: one of `NETWORKS`, `IN_USE` or `LOGGED`.
        """
        if measure == IN_USE:  # The same network for all its runs.
            finetuned = self.by_seed(NETWORKS[0])
            seeds = {run.settings.get("seed") for run in self.runs}
            whole = finetuned and set(finetuned) == seeds
            return finetuned if whole else self.by_seed(NETWORKS[1])
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
    """

    runs: Sequence[RunFiles]
    conditions: Sequence[Condition]
    measures: Sequence[str]
    measure: str | None
    differences: Sequence[Difference]
    images: Sequence[str]


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
        images=sorted({r.evaluation["images"] for r in runs if r.evaluation}),
    )


def conditions_of(runs):
    """Groups runs that differ only in the seed, a list.

    Args:
      runs: `RunFiles`; their order is kept.
    """
    names = dict.fromkeys(name for run in runs for name in run.settings)
    kept = [name for name in names if name not in (*NOT_OF_THE_RUN, "seed")]
    groups = {}
    for run in runs:
        key = repr([run.setting(name) for name in kept])
        groups.setdefault(key, []).append(run)
    differ = [
        name
        for name in kept
        if len({repr(run.setting(name)) for run in runs}) > 1
    ]
    titles = _titles(groups.values())
    return [
        Condition(
            title,
            {name: group[0].setting(name) for name in differ},
            tuple(group),
        )
        for title, group in zip(titles, groups.values(), strict=True)
    ]


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
            title = title or os.path.basename(
                os.path.dirname(os.path.realpath(str(group[0].folder)))
            )
        while not title or title in titles:
            title = f"{title or 'group'} ({names[0]})"
        titles.append(title)
    return titles


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
    everywhere = (
        measure
        for measure in (*measures[:1], IN_USE, *measures[1:])
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
