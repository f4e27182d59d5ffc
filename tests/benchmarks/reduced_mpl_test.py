"""benchmarks/reduced_mpl/run.py, at a size where its figures mean nothing."""

import json

import pytest

from tests.scripts import run_script


@pytest.mark.long
def test_reduced_mpl(tmp_path):
    path = tmp_path / "out.json"
    result = run_script(
        "benchmarks.reduced_mpl.run",
        f"--json={path}",
        "--student=wrn-10-1",
        "--teacher=wrn-10-2",
        "--reduced_teacher=mlp-3-16",
        "--batch_size=2",
        "--image_size=8",
        "--rounds=1",
        "--steps=1",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    report = json.loads(path.read_text())
    # 10 numbers to 16 units, to 16, to 10; a bias each.
    assert report["teacher_weights"]["reduced"] == 176 + 272 + 170
    assert report["teacher_weights"]["pseudo_labels"] == 0
    for figure in ("seconds", "peak_bytes"):
        assert report[f"{figure}_ratio"]["full"] == 1
        assert all(value > 0 for value in report[figure].values())
        for name, bounds in report[f"{figure}_ratio_range"].items():
            # One round: it is its own median.
            assert bounds == [report[f"{figure}_ratio"][name]] * 2
    assert report["machine"]["cores"] >= 1
