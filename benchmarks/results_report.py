"""Writes docs/results.md and its figures from the rows of control runs.

    python benchmarks/results_report.py

Reads benchmarks/results/{digits,cifar10}.jsonl and the words around the tables
in docs/results_notes.md. Nothing in docs/results.md is written by hand.
"""

import argparse
import os
import pathlib
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import control_rows
import control_tables
import results_figures
from control_rows import split_of
from control_suites import CONDITIONS, OFF, SUITES

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"
DATASETS = ("digits", "cifar10")

PAPER = """\
| Pham et al. 2021, top-1 % | CIFAR-10, 4,000 labels | SVHN, 1,000 labels |
|---|---|---|
| supervised, few labels | 82.14 | 88.17 |
| pseudo labels from a fixed teacher | 83.79 | 89.81 |
| UDA | 94.53 | 97.11 |
| MPL, finetuned | 96.11 ± 0.07 | 98.01 ± 0.07 |
| supervised, all labels | 94.92 | 97.41 |"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=pathlib.Path, default=DOCS)
    arguments = parser.parse_args()
    rows = read_rows()
    (arguments.docs / "results.md").write_text(
        report(rows, read_notes()), encoding="utf-8"
    )
    for name, draw in results_figures.FIGURES.items():
        for dataset in DATASETS:
            tables = tables_of(rows, dataset)
            if tables:
                draw(tables, arguments.docs / figure_name(dataset, name))


def read_rows():
    """The rows of all control runs in the repository."""
    return [
        row
        for dataset in DATASETS
        for row in control_rows.read(RESULTS / SUITES[dataset].rows)
    ]


def read_notes(path=DOCS / "results_notes.md"):
    """{heading: text} of the words around the tables."""
    parts = re.split(
        r"^## (.*)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    return {
        heading: text.strip()
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def report(rows, notes):
    """The text of docs/results.md."""
    parts = [
        "# Results",
        "<!-- Written by benchmarks/results_report.py from "
        "benchmarks/results/*.jsonl and docs/results_notes.md: change those, "
        "then run it. -->",
        notes["Results"],
        how_to_read(),
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
    parts += ["## The paper's figures", notes["The paper's figures"], PAPER]
    return "\n\n".join(parts) + "\n"


def how_to_read():
    return (
        "Accuracies are in percent: mean ± standard deviation over n seeds. "
        "*Student* is the student (its moving average) after training, "
        "*finetuned* the same after finetuning on the labeled images, "
        "*teacher* who labeled for it; *seconds* are those of training one "
        "run, for pseudo labels with its teacher: the median, on a machine "
        "that may have had other work, so no measure of cost. A difference is "
        "the mean over the seeds that both runs have (in braces how many, "
        "where one has more), in points of accuracy after finetuning, with its "
        "95 % confidence interval (Student's t, n - 1 degrees of freedom) in "
        "brackets. It is bold where it is hardly chance: of the bold ones of a "
        "table one in twenty is expected to be (Benjamini and Hochberg; never "
        "with fewer than 5 seeds). Where *validation* is written, images of "
        "the unlabeled pool were classified whose labels no network saw, to "
        "choose settings by; else the test images were."
    )


def tables_of(rows, dataset):
    """{(labels, split): {run: {seed: row}}} of the suite of a data set."""
    suite = SUITES[dataset]
    own = [
        row
        for row in rows
        if row["dataset"] == dataset and row["run"] in suite.runs
    ]
    keys = sorted({(row["labels"], split_of(row)) for row in own})
    return {
        key: control_tables.by_run(
            [row for row in own if (row["labels"], split_of(row)) == key],
            suite.runs,
        )
        for key in keys
    }


def table_section(labels, split, groups, dataset):
    """Heading, accuracies, differences and facts of one set of runs."""
    title = f"### {labels:,} labels"
    if split != control_rows.TEST:
        title += f", {split}"
    found = control_tables.differences(groups, runs=SUITES[dataset].runs)
    by_pair = {(one.run, one.other): one for one in found}
    others = ("control", "uda", "supervised")
    lines = []
    for run in groups:
        own = {other: by_pair.get((run, other)) for other in others}
        own["control"] = by_pair.get((run, OFF))
        seeds = len(groups[run])
        lines.append([run, *(_points(own[other], seeds) for other in others)])
    return [
        title,
        _markdown(
            ("", "n", "student", "finetuned", "teacher", "seconds"),
            [
                [
                    run,
                    str(len(group)),
                    *(
                        control_tables.spread(group, key).replace("+-", "±")
                        for key in control_tables.COLUMNS.values()
                    ),
                    f"{control_tables.seconds(group):,.0f}",
                ]
                for run, group in groups.items()
            ],
        ),
        _markdown(("points over", "mpl off", "uda", "supervised"), lines),
        *_remark(found),
        facts(groups),
    ]


def conditions_section(rows):
    """Per condition: accuracies, and what feedback adds; [] without rows."""
    suite = SUITES["where"]
    own = [
        row
        for row in rows
        if row["run"] in suite.runs and row["dataset"] == "digits"
    ]
    parts = []
    for split in sorted({split_of(row) for row in own}):
        (base,) = suite.num_labeled
        groups = control_tables.by_run(
            [
                row
                for row in own
                if split_of(row) == split
                and row["labels"] == _labels_of(row["run"], base)
            ],
            suite.runs,
        )
        if not any(", " in run for run in groups):
            continue
        found = control_tables.differences(groups, runs=suite.runs)
        over = {one.run: one for one in found if one.other.startswith(OFF)}
        lines = [
            [
                condition,
                run.removesuffix(f", {condition}").removeprefix("mpl "),
                str(len(groups[run])),
                control_tables.spread(
                    groups[run], control_tables.JUDGED
                ).replace("+-", "±"),
                _points(over.get(run), len(groups[run])),
            ]
            for condition in ("", *CONDITIONS)
            for run in groups
            if run.partition(", ")[2] == condition
        ]
        parts += [
            f"### {base} labels, {split}",
            _markdown(
                ("condition", "feedback", "n", "finetuned", "points over off"),
                [[line[0] or "none", *line[1:]] for line in lines],
            ),
            *_remark(over.values()),
            facts(groups),
        ]
    return parts


def _labels_of(run, base):
    """How many labels a run has under its condition; else those of `base`."""
    condition = run.partition(", ")[2]
    _, changes = CONDITIONS.get(condition, ((), {}))
    return changes.get("num_labeled", base)


def facts(groups):
    """What ran, where and when, in one paragraph."""
    rows = [row for group in groups.values() for row in group.values()]
    versions = [row["versions"] for row in rows]
    parts = [
        _joined(row["model"] for row in rows),
        _joined(f"{row['steps']:,}" for row in rows) + " steps",
        _joined(_machine(row) for row in rows),
        "TensorFlow " + _joined(known["tensorflow"] for known in versions),
        "Keras " + _joined(known["keras"] for known in versions),
        _joined(row["date"] for row in rows),
        "code at " + _joined(str(row["revision"]) for row in rows),
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


def _points(found, seeds):
    """A `Difference` of a run with so many seeds, for a table."""
    if found is None:
        return ""
    text = control_tables.interval(found.points)
    if found.clear:
        text = f"**{text}**"
    if found.points.count < seeds:
        text += f" {{{found.points.count}}}"
    return text + r" \*" * found.mixed


def _remark(found):
    """What the star behind a difference says, if there is one."""
    mixed = any(one.mixed for one in found)
    return ["\\" + control_tables.MIXED + "."] if mixed else []


def _joined(values):
    return ", ".join(sorted(set(values)))


def _markdown(heading, lines):
    """A table; a line is a list of strings."""
    rows = [heading, ["---"] * len(heading), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
