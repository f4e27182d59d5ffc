"""What several runs come to, those that differ in the seed as one."""

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
# The network that each group would use, where not all were finetuned.
IN_USE = "finetuned, else student"


@dataclasses.dataclass(frozen=True)
class Condition:
    """Runs that differ in nothing but their seed.

    Attributes:
      name: for the reader.
      settings: those that differ between conditions, a dict.
      runs: `RunFiles`.
    """

    name: str
    settings: dict
    runs: tuple[RunFiles, ...]

    def by_seed(self, measure):
        """What its runs reached, by seed; of equal seeds the mean.

        Args:
          measure: one of `NETWORKS`, `IN_USE` or `LOGGED`.
        """
        if measure == IN_USE:  # Of all its runs the same network.
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
        """Mean and standard deviation over runs, where all of them logged."""
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
    """What a condition has over the first one.

    Attributes:
      name: of the condition.
      found: an `Estimate`; None where they have no seed in common.
      holds: whether it is not zero though several are looked at.
    """

    name: str
    found: Estimate | None
    holds: bool

    @property
    def is_of_few(self):
        """Whether it is of too few seeds to tell."""
        return self.found.count < FEW

    @property
    def is_of_equal(self):
        """Whether it is the same with every seed, of which none can tell."""
        return not self.is_of_few and self.found.margin is None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What the page and the terminal tell of runs.

    Attributes:
      runs: `RunFiles`.
      conditions: `Condition`s; others are compared with the first.
      measures: what any run has of `NETWORKS` and `LOGGED`.
      measure: that differences are of, `IN_USE` or one of `measures`; None
        where no network was evaluated in all conditions.
      differences: a `Difference` for each condition but the first; none
        without a measure.
      images: what the evaluations are of, each once.
    """

    runs: Sequence[RunFiles]
    conditions: Sequence[Condition]
    measures: Sequence[str]
    measure: str | None
    differences: Sequence[Difference]
    images: Sequence[str]


def comparison_of(runs):
    """What the page and the terminal are to tell of runs, a `Comparison`.

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
    """Puts runs together that differ in the seed alone, a list.

    Args:
      runs: `RunFiles`, whose order stays.
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
    """What the names of each group's folders have in common, all different."""
    titles = []
    for group in groups:
        names = [run.name for run in group]
        title = names[0]
        if len(names) > 1:
            # Whole words alone: the seed, and what stands before it.
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
    """Those that a run of any condition has."""
    return [
        measure
        for measure in (*NETWORKS, LOGGED)
        if any(condition.by_seed(measure) for condition in conditions)
    ]


def _compared(conditions, measures):
    """The measure that differences are of: the first that all have, or None."""
    everywhere = (
        measure
        for measure in (*measures[:1], IN_USE, *measures[1:])
        if all(condition.by_seed(measure) for condition in conditions)
    )
    return next(everywhere, None)


def _differences(conditions, measure):
    """Of each condition with the first, a list; empty without a measure."""
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
