"""Tables of frozen features in docs/results.md, in Markdown."""

import collections
import re
import statistics

from benchmarks.controls import tables as control_tables
from benchmarks.frozen_features.run import METHODS, Settings, result
from benchmarks.frozen_features.trainer import AHEAD
from meta_pseudo_labels.evaluation.statistics import estimate, paired_difference

STEPS = Settings.num_steps  # Which the settings were chosen for.
OFF = "`off`"  # With or without consistency, like the method.
ONE_STEP = "exact, consistency"


def sections(rows, own=()):
    """Heading, accuracies, differences and facts for each number of labels.

    Args:
      rows: at settings that are the same with each feedback and without.
      own: of methods whose own best settings are others, at these.
    """
    parts = []
    for labels in sorted({row["labels"] for row in rows}):
        title = f"### {labels:,} labels, frozen features"
        shared, others = (
            [row for row in some if row["labels"] == labels]
            for some in (rows, own)
        )
        parts += [title, *_section(shared)]
        if others:
            parts.append(f"{title}, each method at its own best setting")
            parts += _section(at_own_settings(shared, others))
    return parts


def at_own_settings(rows, own):
    """One row for each method and seed, at the method's own best setting.

    Args:
      rows: at shared settings, which are most methods' own as well; those of
        other numbers of steps, and without consistency, are left out.
      own: see `sections`.
    """
    elsewhere = {row["method"] for row in own}
    return [*own] + [
        row
        for row in rows
        if row["settings"]["num_steps"] == STEPS
        and row["method"] not in elsewhere
        and row["method"] in METHODS
        and not row["method"].endswith("labels alone")
    ]


def _section(rows):
    groups = by_method(rows)
    return [_accuracies(groups), *_differences(groups), _facts(rows)]


def by_method(rows):
    """{(method, steps): {seed: row}} in the order of METHODS, then of steps.

    Args:
      rows: all with the same number of labels.

    Raises:
      ValueError: for two rows of the same method, steps and seed.
    """
    groups = collections.defaultdict(dict)
    for row in rows:
        key = row["method"], row["settings"]["num_steps"]
        if row["seed"] in groups[key]:
            raise ValueError(f"Seed {row['seed']} of {key} is there twice.")
        groups[key][row["seed"]] = row
    return {key: groups[key] for key in sorted(groups, key=_place)}


def _place(key):
    method, steps = key
    ahead = re.fullmatch(AHEAD, method)
    known = METHODS.index(method) if method in METHODS else len(METHODS)
    return known, int(ahead[1]) if ahead else 0, steps


def _accuracies(groups):
    lines = []
    for key, group in groups.items():
        own = estimate(_percent(group).values())
        teachers = [
            row["accuracy_teacher"]
            for row in group.values()
            if "accuracy_teacher" in row
        ]
        seconds = statistics.median(row["seconds"] for row in group.values())
        lines.append(
            [
                _name(*key),
                str(own.count),
                control_tables.mean_and_deviation(own),
                control_tables.mean_and_deviation(estimate(teachers))
                if teachers
                else "",
                f"{seconds:,.1f}",
            ]
        )
    heading = ("", "n", "accuracy", "teacher", "seconds")
    return control_tables.markdown(heading, lines)


def _differences(groups):
    """Points over each control by seed, and the footnote for a star there."""
    controls = {key: _controls(key, groups) for key in groups}
    found = control_tables.with_discoveries(
        [
            control_tables.Difference(
                key,
                other,
                column,
                points,
                control_tables.mixed(groups[key], groups[other]),
            )
            for key, others in controls.items()
            for column, other in others.items()
            if (
                points := paired_difference(
                    _percent(groups[key]), _percent(groups[other])
                )
            )
        ]
    )
    # From the last row up: it has most controls, in the order of the columns.
    known = {one.column for one in found}
    names = [name for key in reversed(groups) for name in controls[key]]
    columns = [name for name in dict.fromkeys(names) if name in known]
    cells = {(one.run, one.column): one for one in found}
    lines = [
        [
            _name(*key),
            *(
                control_tables.cell(cells.get((key, column)), len(group))
                for column in columns
            ),
        ]
        for key, group in groups.items()
        if any((key, column) in cells for column in columns)
    ]
    return [
        control_tables.markdown(("points over", *columns), lines),
        *control_tables.remark(found),
    ]


def _controls(key, groups):
    """{column: key} of the measured methods that a method is compared with."""
    method, steps = key
    name, _, term = method.partition(", ")
    found = {}
    if term and name != "off":
        found[OFF] = f"off, {term}", steps
    if re.fullmatch(AHEAD, method):
        found[ONE_STEP] = ONE_STEP, steps
    for other in ("uda", "supervised"):
        if method not in ("supervised", other):
            found |= {_name(*one): one for one in groups if one[0] == other}
    return {column: other for column, other in found.items() if other in groups}


def _name(method, steps):
    name = f"mpl {method}" if ", " in method else method
    return name if steps == STEPS else f"{name}, {steps:,} steps"


def _percent(group):
    return {seed: result(row) for seed, row in group.items()}


def _facts(rows):
    """What ran, where and when, in one paragraph."""
    machines = [row["machine"] for row in rows]
    parts = [
        control_tables.joined(
            f"{one['cpu']}, {one['cores']} cores" for one in machines
        ),
        *(
            f"{name} "
            + control_tables.joined(one[name.lower()] for one in machines)
            for name in ("TensorFlow", "Keras")
        ),
        control_tables.joined(one["date"] for one in machines),
        "code at " + control_tables.joined(row["revision"] for row in rows),
    ]
    return "; ".join(parts) + "."
