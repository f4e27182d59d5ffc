"""Turns the rows of run.py into a table, a figure and a JSON file."""

import collections
import json
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

from benchmarks.common.machine import revision
from meta_pseudo_labels.learners.feedback import resolve
from meta_pseudo_labels.utils import figures
from meta_pseudo_labels.utils.text_tables import text_table

# The part of the plane that is shown, and the number of dots per side.
LOW, HIGH, DOTS = np.array([-2.0, -1.3]), np.array([2.0, 1.3]), 120
COLUMNS = 6  # Panels side by side.
FIGURE, ROWS = "two_moons.png", "two_moons.jsonl"
SEARCH_ROWS = "two_moons_search.jsonl"


def regions(model):
    """The probability of class 1 over the plane, [DOTS, DOTS]; rows are y."""
    x, y = (np.linspace(LOW[i], HIGH[i], DOTS) for i in (0, 1))
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    probabilities = tf.nn.softmax(model(np.float32(grid)))[:, 1]
    return probabilities.numpy().reshape(DOTS, DOTS)


def _progress(rows):
    """Prints a line when a method is done."""
    print(
        f"{_learns(rows[0]['settings'])}, {_name(rows[0])}: "
        f"{_spread(rows, 'accuracy')} in "
        f"{sum(row['seconds'] for row in rows):.0f} s",
        flush=True,
    )


def write(groups, folder, moons, *, search):
    """Prints the table; writes the rows and, except for a search, the figure.

    Args:
      groups: yields lists of rows of `two_moons.measure`; each is written when
        it arrives, to a file that ends with .part until it has them all.
      folder: the destination; created if it is missing.
      moons: the data of seed 0, see `two_moons.moons`.
      search: whether these are the rows of a search.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (SEARCH_ROWS if search else ROWS)
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "revision": revision(),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }
    rows = []
    unfinished = path.with_suffix(".part")
    with unfinished.open("w") as file:
        for group in groups:
            for row in group:
                file.write(json.dumps(_plain(row) | facts) + "\n")
            file.flush()
            _progress(group)
            rows += group
    unfinished.replace(path)
    print(f"\n{table(rows)}\n")
    if not search:
        drawn = [row for row in rows if "regions" in row]
        draw(drawn, moons, folder / FIGURE)
    print(f"The rows{'' if search else ' and the figure'} are in {folder}.")


def table(rows):
    """Mean and standard deviation over the seeds, in percent, as text.

    "over off" is the paired gain over MPL without feedback and its standard
    error (see `_difference`), "ratio" the median of
    `learner.feedback_grad_ratio` as last measured.
    """
    groups = collections.defaultdict(list)
    for row in rows:
        groups[_key(row)].append(row)
    plain = groups[next(iter(groups))][0]["settings"]
    return text_table(
        [
            {
                "learns from": _learns(group[0]["settings"]),
                "other settings": _changes(group[0]["settings"], plain),
                "method": group[0]["method"],
                "seeds": len(group),
                "student %": _spread(group, "accuracy"),
                "teacher %": _spread(group, "accuracy_teacher"),
                "worst": f"{100 * min(row['accuracy'] for row in group):.1f}",
                "over off": _difference(group, rows),
                "ratio": _ratio(group),
            }
            for group in groups.values()
        ]
    )


def draw(rows, moons, path):
    """Decision regions, a panel per row, grouped by kind of teacher.

    Args:
      rows: those of seed 0, with "regions".
      moons: the data of seed 0, see `two_moons.moons`.
      path: PNG file to write.
    """
    groups = collections.defaultdict(list)
    for row in rows:
        groups[_learns(row["settings"])].append(row)
    lines = [
        (learns, group[first : first + COLUMNS])
        for learns, group in groups.items()
        for first in range(0, len(group), COLUMNS)
    ]
    figure = figures.figure(width=2.1 * COLUMNS, height=1.75 * len(lines))
    panels = figure.subplots(len(lines), COLUMNS, squeeze=False)
    for axes, (learns, line) in zip(panels, lines, strict=True):
        axes[0].set_ylabel(f"from {learns}", fontsize=9, color=figures.FADED)
        for panel in axes[len(line) :]:
            panel.set_axis_off()
        for panel, row in zip(axes, line, strict=False):
            _draw_panel(panel, row, moons)
    figure.savefig(path)


def _draw_panel(axes, row, moons):
    axes.set_title(
        f"{_name(row)}, {row['accuracy']:.0%}",
        loc="left",
        fontsize=8,
        color=figures.INK,
    )
    blue, orange = figures.COLORS[:2]
    extent = (LOW[0], HIGH[0], LOW[1], HIGH[1])
    axes.contourf(
        row["regions"],
        levels=[0, 0.5, 1],
        colors=[blue, orange],
        alpha=0.25,
        extent=extent,
    )
    axes.plot(*moons["points"][::4].T, ".", color="#555555", markersize=0.8)
    for number, color in enumerate((blue, orange)):
        labeled = moons["labeled"][moons["labels"] == number]
        axes.plot(
            *labeled.T, "o", color=color, markersize=6, markeredgecolor="white"
        )
    axes.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])


def _key(row):
    return json.dumps(row["settings"]), row["method"]


def _name(row):
    """A method, with its labels and a feedback weight other than 1."""
    settings = row["settings"]
    weight, labels = settings["feedback_weight"], settings["pseudo_labels"]
    heavy = "" if weight == 1 else f" x{weight:g}"
    return " ".join(filter(None, [labels, row["method"] + heavy]))


def _plain(row):
    return {name: value for name, value in row.items() if name != "regions"}


def _learns(settings):
    return "labels and views" if settings["consistency"] else "labels"


def _changes(settings, plain):
    """The differences from the first row's settings, as text."""
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in settings.items()
        if value != plain[name]
    )


def _spread(rows, name):
    values = [100 * row[name] for row in rows if name in row]
    if not values:
        return ""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} +- {deviation:.1f}"


def _ratio(rows):
    """Median norm of the feedback's gradient over the teacher's, as text."""
    values = [
        row["feedback_grad_ratio"]
        for row in rows
        if "feedback_grad_ratio" in row
    ]
    return f"{statistics.median(values):.1g}" if values else ""


def _difference(group, rows):
    """Mean gain over MPL without feedback, seed by seed, and its error.

    The control is the rows of `off` with the same settings and the same kind of
    pseudo labels; the feedback weight, which `off` ignores, may differ. Without
    such rows, it is those with soft labels, its own kind, marked by a dagger.
    """
    first = group[0]
    if first["method"] == "off" or "accuracy_teacher" not in first:
        return ""
    off = [row for row in rows if row["method"] == "off"]
    for kind, mark in ((_kind(first), ""), ("soft", " †")):
        gains = [
            100 * (row["accuracy"] - other["accuracy"])
            for row in group
            for other in off
            if _condition(row, kind) == _condition(other, _kind(other))
        ]
        if len(gains) >= 2:
            error = statistics.stdev(gains) / len(gains) ** 0.5
            return f"{statistics.mean(gains):+.1f} +- {error:.1f}{mark}"
    return ""


def _condition(row, kind):
    """What a row and its control share, given a kind of labels."""
    settings = row["settings"] | {"feedback_weight": None}
    return settings | {"pseudo_labels": kind}, row["seed"]


def _kind(row):
    """The kind of pseudo labels in a row of MPL."""
    return resolve(row["method"], row["settings"].get("pseudo_labels"))[1]
