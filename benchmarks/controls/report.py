"""Writes docs/results.md, its figures and README.md's table from control runs.

    python -m benchmarks.controls.report

Reads the rows of `suites.SUITES` (those of `audit` have a page of their own)
and of frozen features in benchmarks/results, and the text around the tables in
docs/results_notes.md. Nothing in docs/results.md is written by hand.
"""

import argparse
import os
import pathlib
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.common.machine import RESULTS, ROOT
from benchmarks.controls import conditions as control_conditions
from benchmarks.controls import figures as results_figures
from benchmarks.controls import readme as results_readme
from benchmarks.controls import rows as control_rows
from benchmarks.controls import tables as control_tables
from benchmarks.controls.rows import split_of
from benchmarks.controls.suites import SUITES
from benchmarks.controls.tables import CONTROL, SUPERVISED, UDA
from benchmarks.frozen_features import tables as frozen_tables
from benchmarks.frozen_features import trainer as frozen_trainer
from meta_pseudo_labels.evaluation.statistics import paired_difference

DOCS = ROOT / "docs"
DATASETS = ("digits", "cifar10")
# Suites whose runs all take equal time, and their headings.
EQUAL_TIME = {
    "pretrained": "A pretrained network, at equal time",
    "fast": "CIFAR-10 with a fast network, at equal time",
}
FROZEN = "Frozen features of a pretrained network"
PARTS = "MPL's parts, one by one"
_COLUMNS = (CONTROL, UDA, SUPERVISED)
SOFT = " †"
SOFT_REMARK = (
    "† Over `mpl off` with its soft labels, as that with sampled ones was not "
    "measured: what the labels do is in it."
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=pathlib.Path, default=DOCS)
    arguments = parser.parse_args()
    rows = read_rows()
    (arguments.docs / "results.md").write_text(
        report(
            rows,
            read_notes(),
            low_precision=read_low_precision(),
            equal_time=read_equal_time(),
            recipe_parts=read_parts(),
            frozen=read_frozen_features(),
            frozen_own=read_frozen_features("_own"),
        ),
        encoding="utf-8",
    )
    if arguments.docs.resolve() == DOCS:
        readme = ROOT / "README.md"
        text = readme.read_text(encoding="utf-8")
        readme.write_text(with_table(text, rows), encoding="utf-8")
    for dataset in DATASETS:
        tables = tables_of(rows, dataset)
        if tables:
            for name, draw in results_figures.FIGURES.items():
                draw(
                    tables,
                    arguments.docs / figure_name(dataset, name),
                    runs=SUITES[dataset].runs,
                )


def with_table(readme, rows):
    """The README's text with the table of these rows."""
    dataset = results_readme.DATASET
    return results_readme.with_table(
        readme, tables_of(rows, dataset), runs=SUITES[dataset].runs
    )


def read_rows():
    """The rows of all control runs in the repository."""
    return [
        row
        for dataset in DATASETS
        for row in control_rows.read(RESULTS / SUITES[dataset].rows)
    ]


def read_low_precision():
    """The rows of control runs in bfloat16."""
    return control_rows.read(RESULTS / "digits_bfloat16.jsonl")


def read_equal_time():
    """{suite: rows} of the suites whose runs take equal time."""
    return {
        suite: control_rows.read(RESULTS / SUITES[suite].rows)
        for suite in EQUAL_TIME
    }


def read_parts():
    """The rows of MPL with one part of the recipe changed at a time."""
    return control_rows.read(RESULTS / SUITES["parts"].rows)


def read_frozen_features(kind=""):
    """The rows of small networks on frozen features.

    Args:
      kind: "_own" for methods at settings of their own.
    """
    return frozen_trainer.read_rows(RESULTS / f"frozen_features{kind}.jsonl")


def read_notes(path=DOCS / "results_notes.md"):
    """{heading: text} of the text around the tables."""
    parts = re.split(
        r"^## (.*)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    return {
        heading: text.strip()
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def report(
    rows,
    notes,
    *,
    low_precision=(),
    equal_time=None,
    recipe_parts=(),
    frozen=(),
    frozen_own=(),
):
    """The text of docs/results.md.

    Args:
      rows: of control runs of all methods, in float32.
      notes: see `read_notes`.
      low_precision: rows of digits in bfloat16.
      equal_time: see `read_equal_time`.
      recipe_parts: see `read_parts`.
      frozen, frozen_own: see `read_frozen_features`.
    """
    parts = [
        "# Results",
        "<!-- Written by benchmarks/controls/report.py from "
        "benchmarks/results/*.jsonl and docs/results_notes.md: change those, "
        "then run it. -->",
        notes["Results"],
        "## How to read",
        notes["How to read"],
    ]
    for dataset in DATASETS:
        tables = tables_of(rows, dataset)
        if tables:
            parts += [f"## {dataset}", notes[dataset]]
            parts += [
                f"![{title}]({figure_name(dataset, title)})"
                for title in results_figures.FIGURES
            ]
            for (labels, split), groups in tables.items():
                parts += table_section(labels, split, groups, dataset)
    conditions = control_conditions.section(rows)
    if conditions:
        parts += ["## Where feedback helps", notes["Where feedback helps"]]
        parts += conditions
    for suite, own in (equal_time or {}).items():
        tables = tables_of(own, suite)
        if tables:
            parts += [f"## {EQUAL_TIME[suite]}", notes[EQUAL_TIME[suite]]]
            for (labels, split), groups in tables.items():
                parts += table_section(labels, split, groups, suite)
    if recipe_parts:
        parts += [f"## {PARTS}", notes[PARTS]]
        parts += control_conditions.section(recipe_parts, kind="parts")
    if frozen:
        parts += [f"## {FROZEN}", notes[FROZEN]]
        parts += frozen_tables.sections(frozen, frozen_own)
    if low_precision:
        parts += ["## In bfloat16", notes["In bfloat16"]]
        parts += precision_table(rows, low_precision)
    parts += ["## The paper's figures", notes["The paper's figures"]]
    return "\n\n".join(parts) + "\n"


def tables_of(rows, name):
    """{(labels, split): {run: {seed: row}}} of a suite, by its name.

    Leaves out the tables that served to choose among the runs of `where`,
    which has its own section.
    """
    suite = SUITES[name]
    own = [
        row
        for row in rows
        if row["dataset"] == suite.dataset and row["run"] in suite.runs
    ]
    keys = sorted({(row["labels"], split_of(row)) for row in own})
    tables = {
        key: control_tables.by_run(
            [row for row in own if (row["labels"], split_of(row)) == key],
            suite.runs,
        )
        for key in keys
    }
    elsewhere = {
        run
        for other in SUITES.values()
        if other.has_conditions and other.dataset == suite.dataset
        for run in other.runs
    }
    return {
        (labels, split): groups
        for (labels, split), groups in tables.items()
        if split == control_rows.TEST or groups.keys() - elsewhere
    }


def table_section(labels, split, groups, suite):
    """Heading, accuracies, differences and facts of one set of runs."""
    title = f"### {labels:,} labels"
    if split != control_rows.TEST:
        title += f", {split}"
    runs = SUITES[suite].runs
    found = control_tables.differences(groups, runs=runs)
    by_column = {(one.run, one.column): one for one in found}
    lines = []
    for run, group in groups.items():
        over = [by_column.get((run, column)) for column in _COLUMNS]
        cells = [control_tables.cell(one, len(group)) for one in over]
        if over[0] is not None and over[0].other != runs[run].control:
            cells[0] += SOFT
        lines.append([run, *cells])
    heading = ["", "n", "student", "finetuned", "teacher", "seconds"]
    costs = SUITES[suite].equal_time
    if costs:
        heading += ["of the processor", "steps"]
    return [
        title,
        control_tables.markdown(
            heading,
            [
                [
                    run,
                    str(len(group)),
                    *control_tables.cells(group),
                    control_tables.seconds(group),
                    *(_costs(group) if costs else ()),
                ]
                for run, group in groups.items()
            ],
        ),
        control_tables.markdown(("points over", *_COLUMNS), lines),
        *control_tables.remark(found),
        *([SOFT_REMARK] if any(SOFT in line[1] for line in lines) else []),
        control_tables.facts(groups),
    ]


def _costs(group):
    """Processor seconds of a run, if some rows have them, and its steps."""
    seconds = control_tables.seconds(group, "train_cpu_seconds")
    return seconds, control_tables.steps(group.values())


def precision_table(rows, low_precision):
    """Table and facts of runs in bfloat16 beside the same runs in float32."""
    groups = control_tables.by_run(low_precision)
    (labels,) = {row["labels"] for row in low_precision}
    others = tables_of(rows, "digits")[labels, control_rows.TEST]
    judged = control_tables.JUDGED
    lines = []
    for run, group in groups.items():
        points = paired_difference(
            control_tables.percent(group, judged),
            control_tables.percent(others[run], judged),
        )
        lines.append(
            [
                run,
                str(points.count),
                control_tables.spread(others[run], judged, sign="±"),
                control_tables.spread(group, judged, sign="±"),
                control_tables.interval(points),
            ]
        )
    heading = ("", "n", "float32", "bfloat16", "points over float32")
    return [
        control_tables.markdown(heading, lines),
        control_tables.facts(groups),
    ]


def figure_name(dataset, figure):
    return f"results_{dataset}_{figure}.png"


if __name__ == "__main__":
    main()
