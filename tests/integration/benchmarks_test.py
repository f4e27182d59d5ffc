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


@pytest.mark.long
def test_release_parity(reference_dir, tmp_path):
    (tmp_path / "trace.npz").symlink_to(
        reference_dir / "supervised_wrn28_1.npz"
    )
    path = tmp_path / "out.json"
    result = run_script(
        "benchmarks/release_parity.py", tmp_path, f"--json={path}"
    )
    assert result.returncode == 0, result.stderr[-2000:]
    errors = json.loads(path.read_text())["errors"]["trace"]
    assert set(errors) == {"float64", "float32", "float32 left to itself"}
    assert max(errors["float64"]) < 1e-6 < max(errors["float32"]) < 1e-3
