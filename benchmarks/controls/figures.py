"""The figures of docs/results.md: accuracies, and paired differences."""

import hashlib
import json

from benchmarks.controls.suite import OFF
from benchmarks.controls.tables import (
    CONTROL,
    JUDGED,
    UDA,
    differences,
    percent,
)
from meta_pseudo_labels.evaluation.statistics import estimate
from meta_pseudo_labels.utils import figures
from meta_pseudo_labels.utils.figures import COLORS, FADED, GRID, INK

DOT, MEAN, NAUGHT = 12, 34, 1.0  # Areas in square points; a line's width.


def draw_accuracies(tables, path, *, runs):
    """Accuracy after finetuning: a dot per seed, the mean and its interval.

    Args:
      tables: {(labels, split): {run: {seed: row}}}, one panel each.
      path: PNG file to write.
      runs: {name: `suite.Run`} of the suite.
    """
    figure, panels = _panels(tables)
    for axes, ((labels, split), groups) in zip(
        panels, tables.items(), strict=True
    ):
        values = [
            list(percent(group, JUDGED).values()) for group in groups.values()
        ]
        _draw(axes, list(groups), [estimate(v) for v in values], dots=values)
        axes.set_title(_title(labels, split), loc="left", color=INK)
        axes.set_xlabel(
            "accuracy after finetuning, %:\nseeds, mean, 95 % interval",
            color=FADED,
        )
    figure.savefig(path, metadata={"Rows": fingerprint(tables)})


def draw_differences(tables, path, *, runs):
    """Gains of each run over its control, and of MPL without feedback over UDA.

    Args: as for `draw_accuracies`.
    """
    figure, panels = _panels(tables)
    for axes, ((labels, split), groups) in zip(
        panels, tables.items(), strict=True
    ):
        found = [
            one
            for one in differences(groups, runs=runs)
            if one.column == CONTROL or (one.column == UDA and one.run == OFF)
        ]
        names = [f"{one.run} - {one.other}" for one in found]
        axes.axvline(0, color=FADED, linewidth=NAUGHT)
        _draw(axes, names, [one.points for one in found])
        axes.set_title(_title(labels, split), loc="left", color=INK)
        axes.set_xlabel(
            "points, paired by seed:\nmean, 95 % interval", color=FADED
        )
    figure.savefig(path, metadata={"Rows": fingerprint(tables)})


def fingerprint(tables):
    """Identifies the data of the figures of `tables`, in 16 characters.

    PNG files store it under "Rows": whoever has the rows can tell whether a
    figure was drawn from them.
    """
    shown = [
        [key, [[run, percent(group, JUDGED)] for run, group in groups.items()]]
        for key, groups in tables.items()
    ]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]


FIGURES = {"accuracies": draw_accuracies, "differences": draw_differences}


def _panels(tables):
    """An empty figure with a panel per table, side by side."""
    runs = max(len(groups) for groups in tables.values())
    figure = figures.figure(width=5.2 * len(tables), height=0.36 * runs + 1.2)
    return figure, figure.subplots(1, len(tables), squeeze=False)[0]


def _draw(axes, names, estimates, dots=None):
    """Means with their intervals, one per line, from the top down."""
    for place, one in enumerate(estimates):
        if dots is not None:
            seeds = dots[place]
            axes.scatter(seeds, [place] * len(seeds), s=DOT, color=COLORS[4])
        axes.errorbar(
            one.mean,
            place,
            xerr=one.margin,
            fmt="o",
            markersize=MEAN**0.5,
            color=COLORS[0],
            capsize=3,
        )
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.tick_params(colors=FADED, length=0)
    axes.grid(color=GRID, linewidth=0.8, axis="x")
    axes.spines[:].set_visible(False)


def _title(labels, split):
    return f"{labels:,} labels" + ("" if split == "test" else f", {split}")
