"""The table of docs/feedback.md, from what a diagnosis measured."""

import json
import subprocess

import pytest

from benchmarks.common import documents
from benchmarks.diagnosis import run as report

STEP = {
    "predicted": -0.00359,
    "measured": -0.00351,
    "measured_error": 0.00031,
    "held_out": -0.00064,
    "held_out_error": 0.00012,
}


def test_the_document_has_the_table_of_what_is_kept():
    text = report.DOCUMENT.read_text(encoding="utf-8")
    found = json.loads(report.KEPT.read_text(encoding="utf-8"))
    table = report.table(found)
    assert documents.with_part(text, report.PART, table) == text, (
        "Run python -m benchmarks.diagnosis.run"
    )
    assert "dirty" not in found["machine"]["revision"]


def test_the_table_has_numbers_and_what_is_not_known():
    machine = dict(cpu="CPU", cores=2, tensorflow="2", keras="3", date="today")
    found = {
        "settings": {"draws": 16, "batches": 20},
        "estimators": {
            "exact": {"norm_ratio": 0.01871, "cosine_one_draw": 1.0},
            "reinforce": {"noise": 287.4, "pearson": None},
        },
        "teacher_steps": {
            "exact": STEP,
            "reinforce, one draw": STEP,
            "random direction": STEP,
        },
        "machine": machine | {"revision": "abc"},
    }
    lines = report.table(found).splitlines()
    assert lines[2] == (
        "| `exact` | 0.0187 | 1.00 |  |  |  |  | -3.59 | -3.51 ± 0.31 "
        "| -0.64 ± 0.12 |"
    )
    assert lines[3] == "| `reinforce` |  |  |  | 287 |  |  |  |  |  |"
    assert lines[4].startswith("| `reinforce`, one draw |  |")
    assert lines[5].startswith("| a random direction |  |")
    assert lines[-1].startswith("20 batches; CPU, 2 cores")
    assert lines[-1].endswith("code at abc.")


def test_a_diagnosis_that_fails_changes_nothing(tmp_path, monkeypatch):
    """Where main.py ends so; that it says why, the next test shows."""
    commands = []

    def ended_badly(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 3, stdout="")

    before = report.DOCUMENT.read_bytes(), report.KEPT.read_bytes()
    monkeypatch.setattr(report.subprocess, "run", ended_badly)
    monkeypatch.setattr("sys.argv", ["run.py", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        report.main()
    assert ended.value.code == 3
    assert commands[-1][1:] == [
        *("main.py", "--task_mode=diagnose", f"--output_dir={tmp_path}")
    ]
    assert before == (report.DOCUMENT.read_bytes(), report.KEPT.read_bytes())


@pytest.mark.long
def test_what_cannot_be_diagnosed_changes_nothing(tmp_path, monkeypatch, capfd):
    before = report.DOCUMENT.read_bytes(), report.KEPT.read_bytes()
    monkeypatch.setattr("sys.argv", ["run.py", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        report.main()
    assert ended.value.code == 1
    error = capfd.readouterr().err
    assert f"{tmp_path}" in error and "Traceback" not in error
    assert before == (report.DOCUMENT.read_bytes(), report.KEPT.read_bytes())


@pytest.mark.parametrize(
    "text", ["nothing", 2 * "<!-- a -->\n<!-- end of a -->"]
)
def test_a_document_without_one_place_is_refused(text):
    with pytest.raises(ValueError, match="places for a"):
        documents.with_part(text, "a", "new\n")
