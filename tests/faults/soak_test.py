"""What a long run holds does not grow."""

import json
import subprocess
import sys

import pytest

from tests.faults.soak import NO_LEAK, judge
from tests.scripts import ROOT


def rows(*, leak=0.0, **late):
    """Notes of 3,000 steps, with a leak in MB per 1,000 steps.

    In the last 1,500 steps there is `late` of what is named.
    """
    constant = dict(threads=9, open_files=9, functions=9, python_blocks=9)
    noise = [0.0, 2.0, 1.0, -1.0, -2.0]
    notes = [
        {
            "step": step,
            "resident_mb": 500 + noise[step // 20 % 5] + leak * step / 1000,
            **constant,
        }
        for step in range(20, 3001, 20)
    ]
    return [note | late if note["step"] > 1500 else note for note in notes]


def test_noise_is_no_leak():
    result = judge(rows(), steps=3000)
    assert result["all_flat"] and result["samples"] == 100
    assert abs(result["memory"]["mb_per_1000_steps"]) < 0.2


def test_a_file_that_is_open_for_a_moment_is_no_leak():
    notes = rows()
    notes[-1] = notes[-1] | dict(open_files=10, threads=10)
    assert judge(notes, steps=3000)["all_flat"]


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("memory", dict(leak=10 * NO_LEAK)),
        ("threads", dict(threads=10)),
        ("open_files", dict(open_files=10)),
        ("functions", dict(functions=10)),
        ("python_blocks", dict(python_blocks=10**6)),
    ],
)
def test_what_grows_is_named(what, changes):
    flat = judge(rows(**changes), steps=3000)["flat"]
    assert [name for name in flat if not flat[name]] == [what]


@pytest.mark.long
def test_a_thousand_steps_leave_nothing_behind(tmp_path):
    """In a process of its own: what other tests leave comes and goes.

    There are too few to tell a slope of memory from its noise.
    """
    report = tmp_path / "soak.json"
    subprocess.run(
        [sys.executable, *("-m", "tests.faults.soak")]
        + ["--steps=1500", f"--json={report}"],
        cwd=ROOT,
        check=False,  # Its status counts memory too.
        timeout=300,
    )
    flat = json.loads(report.read_text())["flat"]
    del flat["memory"]
    assert flat and all(flat.values()), flat
