"""The benchmarks run, at a size where their figures mean nothing."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def run(script, *arguments):
    result = subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.mark.long
def test_step_time(tmp_path):
    path = tmp_path / "out.json"
    run(
        "benchmarks/step_time.py",
        f"--json={path}",
        "--model=wrn-10-1",
        "--batch_size=2",
        "--image_size=8",
        "--rounds=3",
    )
    ratios = json.loads(path.read_text())["ratio"]
    assert set(ratios) == {"release", "exact", "reinforce", "off"}
    assert all(ratio > 0 for ratio in ratios.values())
