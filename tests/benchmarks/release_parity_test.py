"""The benchmarks run, at a size where their figures mean nothing."""

import json

import pytest

from tests.scripts import run_script


@pytest.mark.long
def test_release_parity(reference_dir, tmp_path):
    (tmp_path / "trace.npz").symlink_to(
        reference_dir / "supervised_wrn28_1.npz"
    )
    path = tmp_path / "out.json"
    result = run_script(
        "benchmarks.release_parity.run", tmp_path, f"--json={path}"
    )
    assert result.returncode == 0, result.stderr[-2000:]
    errors = json.loads(path.read_text())["errors"]["trace"]
    assert set(errors) == {"float64", "float32", "float32 left to itself"}
    assert max(errors["float64"]) < 1e-6 < max(errors["float32"]) < 1e-3
