"""Tables of MPL under conditions that may leave more for feedback to do."""

from benchmarks.controls import rows as control_rows
from benchmarks.controls import tables as control_tables
from benchmarks.controls.rows import split_of
from benchmarks.controls.suites import SUITES
from benchmarks.controls.tables import WHOLE


def section(rows, kind=""):
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
                    parts += table(rows, suite, labels, split)
    return parts


def table(rows, suite, labels, split):
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
    compared = [control_tables.over_control(groups, runs=suite.runs)]
    heading = ["condition", "feedback", "n", "labels"]
    accuracies = {"finetuned": control_tables.JUDGED}
    columns = ["points over off"]
    if suite.kind == "parts":
        compared.append(_over_whole(groups, suite))
        heading[0] = "part changed"
        accuracies = {"student": "accuracy"} | accuracies
        columns.append(f"over {WHOLE}")
    conditions = [run.condition for run in suite.runs.values()]
    lines = []
    for run in sorted(
        groups, key=lambda run: conditions.index(suite.runs[run].condition)
    ):
        how, group = suite.runs[run], groups[run]
        lines.append(
            [
                *(how.condition or "none", how.feedback, str(len(group))),
                _labels_learned(group),
                *(
                    control_tables.spread(group, key, sign="±")
                    for key in accuracies.values()
                ),
                *(
                    control_tables.cell(one.get(run), len(group))
                    for one in compared
                ),
            ]
        )
    return [
        f"### {suite.dataset}, {labels:,} labels, {split}",
        control_tables.markdown([*heading, *accuracies, *columns], lines),
        *control_tables.remark(x for one in compared for x in one.values()),
        control_tables.facts(groups),
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
