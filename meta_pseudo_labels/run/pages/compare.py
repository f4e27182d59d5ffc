"""compare.html: several runs on one page, those that differ in the seed as one.

write_comparison(["runs/mpl-0", "runs/mpl-1", "runs/uda-0"], "compare.html")
"""

import dataclasses
import os
import re
import statistics
from collections.abc import Sequence

from meta_pseudo_labels.evaluation.statistics import (
    CONFIDENCE,
    FEW,
    Estimate,
    discoveries,
    estimate,
    paired_difference,
)
from meta_pseudo_labels.run.folder import HPARAMS
from meta_pseudo_labels.run.pages import render
from meta_pseudo_labels.run.pages.plots import Line, lines_plot, rows_plot
from meta_pseudo_labels.run.pages.run_files import NOT_OF_THE_RUN, RunFiles
from meta_pseudo_labels.utils.files import write_whole
from meta_pseudo_labels.utils.settings import ConfigError

LOGGED = "last in training"
NETWORKS = ("finetuned", "student", "student_raw", "teacher")
# The network that each group would use, where not all were finetuned.
IN_USE = "finetuned, else student"
_CURVES = (
    ("Accuracy on images kept apart", "eval/accuracy", True),
    ("Cross-entropy on the same images, nats", "eval/loss", False),
    ("Training loss, nats", "loss/total", False),
)


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


def write_comparison(folders, path):
    """Writes a page that compares runs.

    Args:
      folders: of the runs; the condition of the first is what others are
        compared with.
      path: of the page.

    Returns:
      What it comes to, lines for a terminal.

    Raises:
      ConfigError: for fewer than two runs, or a folder that holds none.
    """
    folders = list({os.path.realpath(f): f for f in folders}.values())
    if len(folders) < 2:
        raise ConfigError(
            f"{len(folders)} run is nothing to compare; name two folders of "
            "runs or more, such as runs/*."
        )
    runs = [RunFiles(folder) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        if not run.settings:
            raise ConfigError(
                f"{folder} holds no run: there is no {HPARAMS} that can be "
                "read. Leave it out."
            )
    comparison = comparison_of(runs)
    write_whole(path, comparison_page(comparison))
    return comparison_lines(comparison)


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


def comparison_lines(comparison):
    """Accuracies and differences, a line a group, for a terminal.

    Args:
      comparison: a `Comparison`.
    """
    return [*_table(comparison), *_warnings(comparison)]


def _table(comparison):
    conditions, measure = comparison.conditions, comparison.measure
    if measure is None:
        return ["No network was evaluated in all groups; see mpl eval."]
    first = conditions[0].name
    lines = [f"Accuracy, {measure}; differences to {first}:"]
    if measure == LOGGED:
        lines.append("Run mpl eval on every run to compare test accuracy.")
    width = max(len(condition.name) for condition in conditions)
    told = {one.name: _in_words(one, first) for one in comparison.differences}
    for condition in conditions:
        found = estimate(condition.by_seed(measure).values())
        line = (
            f"  {condition.name:{width}} {found.count:3} "
            f"seed{'s' if found.count > 1 else ' '}{100 * found.mean:7.2f} %"
        )
        if condition.name in told:
            line += f"  {told[condition.name]}"
        lines.append(line)
    return lines


def _in_words(difference, first):
    found = difference.found
    if found is None:
        return f"no seed in common with {first}"
    words = f"{100 * found.mean:+.2f}"
    if found.margin is not None:
        low, high = found.mean - found.margin, found.mean + found.margin
        words += f" ({100 * low:+.2f} to {100 * high:+.2f})"
    if difference.is_of_few:
        return f"{words}, too few seeds to tell"
    if difference.is_of_equal:
        return f"{words}, all equal: cannot be told"
    return f"{words}, {'holds' if difference.holds else 'does not hold'}"


def _warnings(comparison):
    """What makes the numbers doubtful, in lines."""
    lines = []
    if len(comparison.images) > 1:
        lines.append(
            "The evaluations are of different images: "
            f"{'; '.join(comparison.images)}."
        )
    lines += [
        f"{run.folder}: {name} cannot be read, and is left out."
        for run in comparison.runs
        for name in run.unreadable
    ]
    going = [run.name for run in comparison.runs if not run.is_done]
    if going:
        lines.append(
            f"{len(going)} of {len(comparison.runs)} runs "
            f"{'has' if len(going) == 1 else 'have'} not ended: "
            f"{', '.join(going)}."
        )
    return lines


def comparison_page(comparison):
    """The page that compares runs, as text.

    Args:
      comparison: a `Comparison`.
    """
    conditions, measure = comparison.conditions, comparison.measure
    measures = comparison.measures
    return render(
        "compare.html",
        runs=comparison.runs,
        conditions=conditions,
        settings=list(conditions[0].settings),
        measures=measures,
        estimates=[_estimates(c, measures) for c in conditions],
        compared=measure,
        images=comparison.images,
        accuracies=_accuracies_plot(conditions, measure),
        differences=comparison.differences,
        differences_plot=_differences_plot(comparison),
        curves=_curves(conditions),
        confidence=CONFIDENCE,
        few=FEW,
        is_logged=measure == LOGGED,
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


def _estimates(condition, measures):
    """An `Estimate` for each measure; None where no run has it."""
    values = [condition.by_seed(measure).values() for measure in measures]
    return [estimate(each) if each else None for each in values]


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


def _accuracies_plot(conditions, measure):
    if measure is None:
        return None
    found = [condition.by_seed(measure) for condition in conditions]
    return rows_plot(
        f"Accuracy, {measure}",
        [c.name for c in conditions],
        [estimate(each.values()) for each in found],
        [list(each.values()) for each in found],
    )


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


def _differences_plot(comparison):
    """None where no other group has a seed in common with the first."""
    shown = [one for one in comparison.differences if one.found is not None]
    if not shown:
        return None
    return rows_plot(
        f"Paired difference to {comparison.conditions[0].name}",
        [one.name for one in shown],
        [one.found for one in shown],
        first_style=1,
    )


def _curves(conditions):
    plots = [
        lines_plot(
            title,
            [c.curve(scalar, style) for style, c in enumerate(conditions)],
            percent=percent,
        )
        for title, scalar, percent in _CURVES
    ]
    return [plot for plot in plots if plot]
