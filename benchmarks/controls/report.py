"""Writes docs/results.md, its figures and README.md's table from control runs.

    python -m benchmarks.controls.report

Reads the rows of `suites.SUITES` and of frozen features in benchmarks/results,
and the text around the tables in docs/results_notes.md. Nothing in
docs/results.md is written by hand.
"""

import argparse
import os
import pathlib
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.common.machine import RESULTS, ROOT
from benchmarks.controls import figures as results_figures
from benchmarks.controls import readme as results_readme
from benchmarks.controls import rows as control_rows
from benchmarks.controls import tables as control_tables
from benchmarks.controls.rows import split_of
from benchmarks.controls.suites import SUITES
from benchmarks.controls.tables import CONTROL, SUPERVISED, UDA, WHOLE
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
            read_low_precision(),
            read_equal_time(),
            read_parts(),
            read_frozen_features(),
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


def read_frozen_features():
    """The rows of small networks on frozen features."""
    return frozen_trainer.read_rows(RESULTS / "frozen_features.jsonl")


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
    rows, notes, low_precision=(), equal_time=None, parts_rows=(), frozen=()
):
    """The text of docs/results.md.

    Args:
      rows: of control runs of all methods, in float32.
      notes: see `read_notes`.
      low_precision: rows of digits in bfloat16.
      equal_time: see `read_equal_time`.
      parts_rows: see `read_parts`.
      frozen: see `read_frozen_features`.
    """
    parts = [
        "# Results",
        "<!-- Written by benchmarks/controls/report.py from "
        "benchmarks/results/*.jsonl and docs/results_notes.md: change those, "
        "then run it. -->",
        notes["Results"],
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
    conditions = conditions_section(rows)
    if conditions:
        parts += ["## Where feedback helps", notes["Where feedback helps"]]
        parts += conditions
    for suite, own in (equal_time or {}).items():
        tables = tables_of(own, suite)
        if tables:
            parts += [f"## {EQUAL_TIME[suite]}", notes[EQUAL_TIME[suite]]]
            for (labels, split), groups in tables.items():
                parts += table_section(labels, split, groups, suite)
    if parts_rows:
        parts += [f"## {PARTS}", notes[PARTS]]
        parts += conditions_section(parts_rows, kind="parts")
    if frozen:
        parts += [f"## {FROZEN}", notes[FROZEN]]
        parts += frozen_tables.sections(frozen)
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
        facts(groups),
    ]


def _costs(group):
    """Processor seconds of a run, if some rows have them, and its steps."""
    seconds = control_tables.seconds(group, "train_cpu_seconds")
    return seconds, _steps(group.values())


def _steps(rows):
    return " or ".join(
        f"{steps:,}" for steps in sorted({row["steps"] for row in rows})
    )


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
    return [control_tables.markdown(heading, lines), facts(groups)]


def conditions_section(rows, kind=""):
    """Per condition: accuracies, and what feedback adds; [] without rows.

    Args:
      rows: of the suites of this kind.
      kind: see `Suite`.
    """
    parts = []
    for suite in SUITES.values():
        if suite.has_conditions and suite.kind == kind:
            for labels in suite.num_labeled:
                for split in (control_rows.TEST, control_rows.VALIDATION):
                    parts += conditions_table(rows, suite, labels, split)
    return parts


def conditions_table(rows, suite, labels, split):
    """Heading, table and facts; [] if no condition was measured."""
    groups = control_tables.by_run(
        [
            row
            for row in rows
            if row["dataset"] == suite.dataset
            and row["run"] in suite.runs
            and row["labels"]
            == suite.runs[row["run"]].changes.get("num_labeled", labels)
            and split_of(row) == split
        ],
        suite.runs,
    )
    if not any(suite.runs[run].condition for run in groups):
        return []
    found = control_tables.differences(groups, runs=suite.runs)
    over = {one.run: one for one in found if one.column == CONTROL}
    # What the part of a recipe is worth is a question of its own.
    whole = _over_whole(groups, suite) if suite.kind else {}
    lines = [
        [
            condition or "none",
            suite.runs[run].feedback,
            str(len(groups[run])),
            _labels_learned(groups[run]),
            control_tables.spread(groups[run], control_tables.JUDGED, sign="±"),
            control_tables.cell(over.get(run), len(groups[run])),
            *(
                [control_tables.cell(whole.get(run), len(groups[run]))]
                if suite.kind
                else ()
            ),
        ]
        for condition in dict.fromkeys(
            one.condition for one in suite.runs.values()
        )
        for run in groups
        if suite.runs[run].condition == condition
    ]
    heading = ["condition", "feedback", "n", "labels", "finetuned"]
    heading += ["points over off"] + [f"over {WHOLE}"] * bool(suite.kind)
    return [
        f"### {suite.dataset}, {labels:,} labels, {split}",
        control_tables.markdown(heading, lines),
        *control_tables.remark([*over.values(), *whole.values()]),
        facts(groups),
    ]


def _over_whole(groups, suite):
    """{run: `Difference` from that without a condition, of equal feedback}."""
    found = []
    for run in groups:
        whole = f"mpl {suite.runs[run].feedback}"
        if suite.runs[run].condition and whole in groups:
            found.append(control_tables.difference(groups, run, whole, WHOLE))
    found = control_tables.with_discoveries(filter(None, found))
    return {one.run: one for one in found}


def _labels_learned(group):
    """How many labels the networks of a run learn."""
    return control_tables.joined(
        str(row.get("labels_learned", row["labels"])) for row in group.values()
    )


def facts(groups):
    """What ran, where and when, in one paragraph."""
    rows = [row for group in groups.values() for row in group.values()]
    versions = [row["versions"] for row in rows]
    parts = [
        control_tables.joined(row["model"] for row in rows),
        _steps(rows) + " steps",
        control_tables.joined(_machine(row) for row in rows),
        "TensorFlow "
        + control_tables.joined(known["tensorflow"] for known in versions),
        "Keras " + control_tables.joined(known["keras"] for known in versions),
        control_tables.joined(row["date"] for row in rows),
        "code at "
        + control_tables.joined(str(row["revision"]) for row in rows),
    ]
    return "; ".join(parts) + "."


def _machine(row):
    if "machine" not in row:
        return "machine not recorded"
    facts = row["machine"]
    threads = facts["threads"]
    return f"{facts['cpu']}, {threads} thread{'s' * (threads > 1)} a run"


def figure_name(dataset, figure):
    return f"results_{dataset}_{figure}.png"


if __name__ == "__main__":
    main()
