"""Summaries of rows of control runs: means, and differences by seed."""

import collections
import dataclasses
import statistics

from benchmarks.controls.rows import recipe
from meta_pseudo_labels.evaluation.statistics import (
    Estimate,
    discoveries,
    estimate,
    paired_difference,
)
from meta_pseudo_labels.utils.text_tables import text_table

# The paper reports it after finetuning; all runs are finetuned alike.
JUDGED = "accuracy_finetuned"
COLUMNS = {
    "student": "accuracy",
    "finetuned": "accuracy_finetuned",
    "teacher": "accuracy_teacher",
}
# What runs are compared with: one column each in the tables.
CONTROL, UDA, SUPERVISED = "the control", "uda", "supervised"
WHOLE = "the whole recipe"
MIXED = "* rows of different revisions"


@dataclasses.dataclass(frozen=True)
class Difference:
    """The gain of a run over another, in points of accuracy after finetuning.

    Attributes:
      run, other: their names.
      column: what the other is to the run: `CONTROL`, `UDA`, `SUPERVISED`, or
        `WHOLE`, the recipe of which the run changes a part.
      points: run - other.
      mixed: whether the two rows of any seed are from different revisions
        of the code, which may be what makes the difference.
      clear: whether it is unlikely to be chance, among all comparisons in its
        column; see `statistics.discoveries`.
    """

    run: str
    other: str
    column: str
    points: Estimate
    mixed: bool = False
    clear: bool = False


def by_run(rows, runs=()):
    """{run: {seed: row}}, in the order of `runs`, then of appearance.

    Of rows with the same run and seed, the last counts: a file of rows is only
    ever appended to. Of several recipes of one run, that of its last row does.
    """
    names = dict.fromkeys([*runs, *(row["run"] for row in rows)])
    groups = {}
    for name in names:
        own = [row for row in rows if row["run"] == name]
        if own:
            latest = recipe(own[-1]["settings"])
            groups[name] = {
                row["seed"]: row
                for row in own
                if recipe(row["settings"]) == latest
            }
    return groups


def percent(rows_of_run, key):
    """{seed: accuracy in percent}, without rows that have none."""
    return {
        seed: 100 * row[key]
        for seed, row in rows_of_run.items()
        if row[key] is not None
    }


def differences(groups, *, runs):
    """Every comparison that the rows allow.

    Args:
      groups: see `by_run`.
      runs: {name: `suite.Run`} of the suite.

    Returns:
      `Difference`s: MPL over its control, over UDA and over supervised; UDA
      and the other methods over supervised.
    """
    found = []
    for run in groups:
        others = {SUPERVISED: "supervised"}
        if runs[run].feedback is not None:
            control = control_among(groups, run, runs)
            others = {CONTROL: control, UDA: "uda"} | others
        for column, other in others.items():
            if other in groups and other != run:
                found.append(difference(groups, run, other, column))
    return with_discoveries(filter(None, found))


def over_control(groups, *, runs):
    """{run: `Difference` from its control}; see `differences`."""
    found = differences(groups, runs=runs)
    return {one.run: one for one in found if one.column == CONTROL}


def difference(groups, run, other, column):
    """One `Difference` of runs; None if they have no seed in common."""
    points = paired_difference(
        percent(groups[run], JUDGED), percent(groups[other], JUDGED)
    )
    if points is None:
        return None
    is_mixed = mixed(groups[run], groups[other])
    return Difference(run, other, column, points, is_mixed)


def control_among(groups, run, runs):
    """The control of a run, among the runs measured.

    If it was not measured, the control's own: "mpl off" with its soft labels
    instead of drawn ones. A gain over that is due to the labels too.
    """
    control = runs[run].control
    if control is None or control in groups:
        return control
    return runs[control].control or control


def with_discoveries(found):
    """Sets `clear`, one column of the tables at a time.

    Clear differences in one column must not vouch for doubtful ones in another.
    """
    found = list(found)
    columns = collections.defaultdict(list)
    for one in found:
        columns[one.column].append(one)
    clear = {
        (one.run, one.other): its
        for column in columns.values()
        for one, its in zip(
            column, discoveries([one.points for one in column]), strict=True
        )
    }
    return [
        dataclasses.replace(one, clear=clear[one.run, one.other])
        for one in found
    ]


def as_text(rows, *, runs):
    """Tables for a terminal: per number of labels, means and differences."""
    parts = []
    for labels in sorted({row["labels"] for row in rows}):
        groups = by_run([row for row in rows if row["labels"] == labels], runs)
        parts.append(
            f"{labels} labels; percent of the {_split(groups)} images, mean "
            "+- standard deviation"
        )
        parts.append(text_table(_lines(groups)))
        compared = differences(groups, runs=runs)
        if compared:
            parts.append(
                "Points after finetuning, paired by seed, with 95 % interval"
            )
            parts.append(text_table(_compared(compared)))
            if any(one.mixed for one in compared):
                parts.append(MIXED)
    return "\n\n".join(parts)


def markdown(heading, lines):
    """A table; the heading and each of the lines are lists of strings."""
    rows = [heading, ["---"] * len(heading), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cells(rows_of_run):
    """The accuracies of a run for a table in Markdown, as in `COLUMNS`."""
    return [spread(rows_of_run, key, sign="±") for key in COLUMNS.values()]


def spread(rows_of_run, key, *, sign="+-"):
    """Mean +- standard deviation in percent; empty if there is none."""
    values = percent(rows_of_run, key).values()
    if not values:
        return ""
    return mean_and_deviation(estimate(values), sign=sign)


def mean_and_deviation(found, *, sign="±"):
    """An `Estimate` in words; of a single value, its mean alone."""
    if found.deviation is None:
        return f"{found.mean:.2f}"
    return f"{found.mean:.2f} {sign} {found.deviation:.2f}"


def joined(values):
    """Different texts, sorted, with commas between them."""
    return ", ".join(sorted(set(values)))


def interval(points):
    """A difference and its interval, in words."""
    if points.margin is None:
        return f"{points.mean:+.2f}"
    low, high = points.mean - points.margin, points.mean + points.margin
    return f"{points.mean:+.2f} ({low:+.2f} to {high:+.2f})"


def cell(found, seeds):
    """A `Difference` of a run with `seeds` seeds, for a table in Markdown."""
    if found is None:
        return ""
    text = interval(found.points)
    if found.clear:
        text = f"**{text}**"
    if found.points.count < seeds:
        text += f" {{{found.points.count}}}"
    return text + r" \*" * found.mixed


def remark(found):
    """The footnote for a star after a difference, if there is one."""
    return ["\\" + MIXED + "."] if any(one.mixed for one in found) else []


def seconds(rows_of_run, key="train_seconds"):
    """Median training time as text: other work slows some runs down.

    Over the rows that have it; empty if none has.
    """
    times = (row.get(key) for row in rows_of_run.values())
    known = [time for time in times if time is not None]
    return f"{statistics.median(known):,.0f}" if known else ""


def _lines(groups):
    return [
        {"run": run, "seeds": len(group)}
        | {name: spread(group, key) for name, key in COLUMNS.items()}
        | {"seconds": seconds(group)}
        for run, group in groups.items()
    ]


def _compared(found):
    return [
        {
            "run": one.run,
            "over": one.other,
            "seeds": one.points.count,
            "points": interval(one.points) + " *" * one.mixed,
        }
        for one in found
    ]


def mixed(group, other):
    """Whether the rows of any seed are from different revisions."""
    return any(
        group[seed].get("revision") != other[seed].get("revision")
        for seed in group.keys() & other.keys()
    )


def _split(groups):
    row = next(iter(next(iter(groups.values())).values()))
    return row.get("split", "test")


def steps(rows):
    """The numbers of steps of rows, as text."""
    return " or ".join(
        f"{steps:,}" for steps in sorted({row["steps"] for row in rows})
    )


def facts(groups):
    """What ran, where and when, in one paragraph."""
    rows = [row for group in groups.values() for row in group.values()]
    versions = [row["versions"] for row in rows]
    parts = [
        joined(row["model"] for row in rows),
        steps(rows) + " steps",
        joined(_machine(row) for row in rows),
        "TensorFlow " + joined(known["tensorflow"] for known in versions),
        "Keras " + joined(known["keras"] for known in versions),
        joined(row["date"] for row in rows),
        "code at " + joined(str(row["revision"]) for row in rows),
    ]
    return "; ".join(parts) + "."


def _machine(row):
    if "machine" not in row:
        return "machine not recorded"
    facts = row["machine"]
    threads = facts["threads"]
    return f"{facts['cpu']}, {threads} thread{'s' * (threads > 1)} a run"
