"""compare.html: several runs on one page, grouped if only their seeds differ.

write_comparison(["runs/mpl-0", "runs/mpl-1", "runs/uda-0"], "compare.html")
"""

import os

from meta_pseudo_labels.evaluation.statistics import CONFIDENCE, FEW, estimate
from meta_pseudo_labels.run.folder import HPARAMS
from meta_pseudo_labels.run.pages import render
from meta_pseudo_labels.run.pages.comparison import LOGGED, comparison_of
from meta_pseudo_labels.run.pages.plots import lines_plot, rows_plot
from meta_pseudo_labels.run.pages.run_files import runs_in
from meta_pseudo_labels.utils.files import write_whole
from meta_pseudo_labels.utils.settings import ConfigError

_CURVES = (
    ("Accuracy on validation or test images", "eval/accuracy", True),
    ("Cross-entropy on the same images, nats", "eval/loss", False),
    ("Training loss, nats", "loss/total", False),
)


def write_comparison(folders, path):
    """Writes a page that compares runs.

    Args:
      folders: of the runs; the others are compared with the condition of the
        first.
      path: of the page.

    Returns:
      A summary, as lines for a terminal.

    Raises:
      ConfigError: for fewer than two runs, or a folder that holds none.
    """
    folders = list({os.path.realpath(f): f for f in folders}.values())
    if len(folders) < 2:
        raise ConfigError(
            f"{len(folders)} run is not enough to compare; name two or more "
            "folders of runs, such as runs/*."
        )
    runs = runs_in(folders)
    for folder, run in zip(folders, runs, strict=True):
        if not run.settings:
            raise ConfigError(
                f"{folder} holds no run: it has no readable {HPARAMS}. Leave "
                "the folder out."
            )
    comparison = comparison_of(runs)
    write_whole(path, comparison_page(comparison))
    return comparison_lines(comparison)


def comparison_lines(comparison):
    """Accuracies and differences, one line per group, for a terminal.

    Args:
      comparison: a `Comparison`.
    """
    return [*_table(comparison), *_warnings(comparison)]


def _table(comparison):
    conditions, measure = comparison.conditions, comparison.measure
    if measure is None:
        return ["No network was evaluated in all groups; see mpl eval."]
    first = conditions[0].name
    lines = [f"Accuracy, {measure}; differences from {first}:"]
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
        return f"{words}, all equal: cannot tell"
    return f"{words}, {'holds' if difference.holds else 'does not hold'}"


def _warnings(comparison):
    """Lines about what makes the numbers doubtful."""
    lines = list(comparison.doubts)
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
        doubts=comparison.doubts,
        accuracies=_accuracies_plot(conditions, measure),
        differences=comparison.differences,
        differences_plot=_differences_plot(comparison),
        curves=_curves(conditions),
        confidence=CONFIDENCE,
        few=FEW,
        is_logged=measure == LOGGED,
    )


def _estimates(condition, measures):
    """An `Estimate` for each measure; None if no run has it."""
    values = [condition.by_seed(measure).values() for measure in measures]
    return [estimate(each) if each else None for each in values]


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


def _differences_plot(comparison):
    """None if no other group has a seed in common with the first."""
    shown = [one for one in comparison.differences if one.found is not None]
    if not shown:
        return None
    return rows_plot(
        f"Paired difference from {comparison.conditions[0].name}",
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
