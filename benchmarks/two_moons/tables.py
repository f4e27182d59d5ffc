"""Writes the tables of docs/two_moons.md from rows of two_moons/run.py.

    python -m benchmarks.two_moons.tables

The rows are in benchmarks/results; the document says which command made them.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.common.documents import with_part
from benchmarks.common.machine import RESULTS, ROOT
from benchmarks.controls import rows as control_rows
from benchmarks.two_moons import report as two_moons_report

DOCUMENT = ROOT / "docs" / "two_moons.md"
# Part of the document -> its rows.
PARTS = {
    "results": two_moons_report.ROWS,
    "paper's rate": "two_moons_paper_rate.jsonl",
    "search": two_moons_report.SEARCH_ROWS,
}


def main():
    text = DOCUMENT.read_text(encoding="utf-8")
    for part in PARTS:
        text = with_table(text, part)
    DOCUMENT.write_text(text, encoding="utf-8")


def with_table(text, part):
    """The document's text with the table of a part's rows."""
    table = two_moons_report.table(read_rows(part))
    return with_part(text, part, f"```\n{table}\n```\n")


def read_rows(part):
    """The rows of a part of the document."""
    return control_rows.read(RESULTS / PARTS[part])


if __name__ == "__main__":
    main()
