"""The benchmark of starts: how it splits them, and that it runs."""

import json

import pytest

from benchmarks.starts import first_step
from benchmarks.starts import run as starts
from tests.scripts import run_script


def test_ratios_are_taken_within_a_round():
    rounds = {
        starts.BARE: [{starts.ALL: [4.0, 2.0]}, {starts.ALL: [8.0, 2.0]}],
        "mpl --help": [{starts.ALL: [1.0, 1.0]}, {starts.ALL: [4.0, 1.0]}],
    }
    report = starts.summary(rounds)
    assert report["ratio"] == {"mpl --help": 0.375}
    assert report["ratio_quartiles"] == {"mpl --help": [0.3125, 0.4375]}
    assert report["cpu_ratio"] == {"mpl --help": 0.5}
    bare = report["parts"][starts.BARE][starts.ALL]
    assert bare["seconds"] == [5, 6, 7]
    assert bare["cpu_seconds"] == [2, 2, 2]


def test_the_parts_of_a_start_are_all_of_it():
    marks = [(100, 0), (104, 3), (105, 4), (107, 5), (117, 20), (118, 22)]
    parts = first_step.split(marks, [(2, 2), (3, 2)])
    assert parts[first_step.IMPORTS] == (4, 3)
    assert parts[first_step.PACKAGE] == (1, 1)
    assert parts[first_step.BUILDING] == (2, 1)
    assert parts[first_step.TRACING] == (5, 4)
    assert parts[first_step.COMPILING] == (4, 9)
    assert parts[first_step.STEP] == (1, 2)
    assert parts.pop(first_step.TOTAL) == (17, 20)
    for kind, whole in enumerate((17, 20)):
        assert sum(part[kind] for part in parts.values()) == whole


def test_another_status_than_what_was_awaited_is_no_measurement():
    with pytest.raises(RuntimeError, match="ended with 3"):
        starts.run_process(["-c", "import sys; sys.exit(3)"])
    seconds, cpu_seconds = starts.run_process(
        ["-c", "sum(range(10**6)); import sys; sys.exit(1)"], status=1
    )
    assert seconds > 0 and cpu_seconds > 0


@pytest.mark.long
def test_a_small_network_is_timed(tmp_path):
    path = tmp_path / "starts.json"
    result = run_script(
        "benchmarks.starts.run",
        "--models=mlp",
        "--estimators=exact",
        "--rounds=1",
        f"--json={path}",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    report = json.loads(path.read_text())
    assert set(report["ratio"]) == {*starts.COMMANDS, "mlp, exact"}
    parts = report["parts"]["mlp, exact"]
    assert parts.pop("traces") >= 1
    assert set(parts) == {*first_step.PARTS, first_step.TOTAL}
    for part in parts.values():
        assert part["cpu_seconds"][1] >= 0
    assert parts[first_step.TRACING]["seconds"][1] > 0
