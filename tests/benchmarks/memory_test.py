"""The benchmark of memory: its arithmetic, and that it runs."""

import argparse
import json

import pytest

from benchmarks.memory import run as memory
from tests.scripts import run_script


def test_sizes_are_read():
    assert memory.size("16x7") == (16, 7)
    for text in ("16x0", "0x7"):
        with pytest.raises(argparse.ArgumentTypeError, match="at least 1"):
            memory.size(text)
    with pytest.raises(ValueError):
        memory.size("16")


def test_a_cell_says_what_part_of_the_plain_step_it_is():
    found = {"plain": 2.0, "remat": 0.5}
    assert memory.table_cell(found, "plain") == "2.00"
    assert memory.table_cell(found, "remat") == "0.50 (25%)"
    assert memory.table_cell(found, "4 slices") == ""


@pytest.mark.long
def test_remat_and_slices_take_less_memory(tmp_path):
    path = tmp_path / "memory.json"
    result = run_script(
        "benchmarks.memory.run",
        # Remat keeps the activations of one block: of wrn-10-1, which has one
        # in a stage, that is nearly all.
        "--model=wrn-28-2",
        "--sizes=16x7",
        "--rounds=1",
        "--steps=1",
        f"--json={path}",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    report = json.loads(path.read_text())
    cells = {cell["variant"]: cell["gib"] for cell in report["cells"]}
    assert cells["remat"] < 0.8 * cells["plain"]
    assert cells["4 slices"] < 0.8 * cells["plain"]
    assert set(report["time"]["ratios"]) == set(memory.VARIANTS)
    assert "| 16 | 7 | 240 |" in result.stdout
