"""Writes the table of accuracies of docs/audit.md.

    python -m benchmarks.controls.run audit --seeds=10 --first_seed=13
    python -m benchmarks.audit.accuracy

The rows are those of the control runs of the suite `audit`.
"""

from benchmarks.audit.table import DOCUMENT
from benchmarks.common.documents import with_part
from benchmarks.common.machine import RESULTS
from benchmarks.controls import rows as control_rows
from benchmarks.controls import tables as control_tables
from benchmarks.controls.suites import SUITES

SUITE = SUITES["audit"]
ROWS = RESULTS / SUITE.rows
HEADING = ("", "n", *control_tables.COLUMNS, "control", "points over it")


def main():
    text = DOCUMENT.read_text(encoding="utf-8")
    text = with_part(text, "accuracy", table(control_rows.read(ROWS)))
    DOCUMENT.write_text(text, encoding="utf-8")


def table(rows):
    """The table in Markdown, and what ran; says so if nothing did yet.

    Args:
      rows: of the suite, all with the same number of labels; only those of
        the test images count.
    """
    rows = [
        row for row in rows if control_rows.split_of(row) == control_rows.TEST
    ]
    if not rows:
        return "Not measured yet.\n"
    groups = control_tables.by_run(rows, SUITE.runs)
    over = control_tables.over_control(groups, runs=SUITE.runs)
    lines = [
        [
            run,
            str(len(group)),
            *control_tables.cells(group),
            over[run].other if run in over else "",
            control_tables.cell(over.get(run), len(group)),
        ]
        for run, group in groups.items()
    ]
    parts = [
        control_tables.markdown(HEADING, lines),
        *control_tables.remark(over.values()),
        control_tables.facts(groups),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
