"""The table of docs/performance.md: what files of results say."""

import json

from benchmarks.common.documents import with_part
from benchmarks.common.machine import RESULTS
from benchmarks.performance.table import (
    COMMANDS,
    DOCUMENT,
    PART,
    ratio_cell,
    table,
)


def test_the_page_has_the_table_of_the_results():
    """Else: make results."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_part(text, PART, table()) == text


def test_a_row_is_what_a_file_says():
    report = json.loads((RESULTS / "step_time.json").read_text("utf-8"))
    cell = ratio_cell(report["ratio"]["exact"])
    rows = [line.split(" | ") for line in table().splitlines()]
    (row,) = [row for row in rows if row[0] == "| time of a step, `exact`"]
    assert row[1] == "its bare passes" and row[2].startswith(f"{cell} (")
    assert row[3] == f"`{COMMANDS['step_time']}`"
    assert row[4] == f"{report['machine']['date']} |"
    assert all(len(row) == 5 for row in rows[2:])


def test_quartiles_stand_in_brackets():
    assert ratio_cell(0.849) == "0.85"
    assert ratio_cell(1.0, (0.9, 1.116)) == "1.00 (0.90 to 1.12)"
