"""The benchmarks run, at a size where their figures mean nothing."""

import json

import pytest

from tests.scripts import run_script


@pytest.mark.long
def test_step_time(tmp_path):
    path = tmp_path / "out.json"
    result = run_script(
        "benchmarks/step_time.py",
        f"--json={path}",
        "--model=wrn-10-1",
        "--batch_size=2",
        "--image_size=8",
        "--rounds=3",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    ratios = json.loads(path.read_text())["ratio"]
    assert set(ratios) == {"release", "exact", "reinforce", "off"}
    assert all(ratio > 0 for ratio in ratios.values())
