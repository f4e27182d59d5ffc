"""The demo, cut down: what it leaves, and what it will not delete."""

import json

import pytest

from tests.scripts import run_script


@pytest.mark.long
def test_demo_leaves_results_figures_and_a_saved_model(tmp_path):
    folder = tmp_path / "demo"
    result = run_script(
        "examples/digits_demo.py",
        f"--output_dir={folder}",
        "--num_train_steps=20",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "not imported" in result.stdout
    rows = json.loads((folder / "results.json").read_text())
    assert [row["method"] for row in rows] == ["supervised", "uda", "mpl"]
    for row in rows:
        assert set(row) == {
            "method",
            "labels",
            "seed",
            "test_accuracy",
            "seconds",
        }
        assert 0 <= row["test_accuracy"] <= 1 and row["seconds"] > 0
    served = json.loads((folder / "predictions.json").read_text())
    assert served["accuracy"] == pytest.approx(rows[-1]["test_accuracy"])
    for name in ("curves.png", "predictions.png", "views.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
def test_demo_does_not_delete_what_it_did_not_write(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    result = run_script("examples/digits_demo.py", f"--output_dir={tmp_path}")
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in result.stderr
    assert (tmp_path / "thesis.txt").read_text() == "precious"
