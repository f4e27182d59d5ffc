"""Students one after another, on digits in place of CIFAR-10."""

import itertools

import pytest

from benchmarks.controls import rows as control_rows
from benchmarks.controls import students
from meta_pseudo_labels.run.config.flags import config_from_flagfile

ROUNDS = ["uda, round 0", "uda, round 1", "uda, round 2"]
SHORT = {"model_type": "mlp", "num_train_steps": 2}


@pytest.mark.parametrize(
    "flagfile, changes", [*itertools.chain(*students.ROUNDS.values())]
)
def test_rounds_have_valid_settings(monkeypatch, request, flagfile, changes):
    monkeypatch.chdir(request.config.rootpath)
    teacher = {"teacher_labels": "x"} if "student" in flagfile else {}
    settings = config_from_flagfile(flagfile, **changes | teacher)
    assert settings.num_warmup_steps < settings.num_train_steps / 3
    assert settings.crop_padding == 2


def test_each_learns_from_the_one_before_and_is_trained_once(
    tmp_path, monkeypatch, capsys
):
    rounds = [("flags/digits_uda.flags", SHORT)]
    learns = {"method": "pseudo_labels", "mpl_pseudo_labels": "soft"}
    rounds += [("flags/digits_uda.flags", SHORT | learns)] * 2
    monkeypatch.setitem(students.ROUNDS, "uda", rounds)
    monkeypatch.setattr(students, "LABELS", 40)
    for _ in range(2):
        monkeypatch.chdir(tmp_path)  # It goes elsewhere.
        students.main(
            ["--begin=uda", "--select", "--folder=runs", "--json=rows.jsonl"]
        )
        told = capsys.readouterr().out.split("\n")
        assert [line[:12] for line in told if line.startswith("uda")] == ROUNDS
    rows = control_rows.read(tmp_path / "rows.jsonl")
    assert [row["run"] for row in rows] == ROUNDS
    assert [row["method"] for row in rows] == ["uda", *["pseudo_labels"] * 2]
    assert {row["seed"] for row in rows} == {students.SELECTING}
    assert {row["split"] for row in rows} == {control_rows.VALIDATION}
    labels = [
        (tmp_path / f"runs/uda/seed-100/round-{n}/teacher_labels.json").exists()
        for n in range(3)
    ]
    assert labels == [False, True, True]


@pytest.mark.parametrize("feedback", ["off", "exact"])
def test_the_last_may_be_of_reduced_mpl(tmp_path, monkeypatch, feedback):
    rounds = [("flags/digits_uda.flags", SHORT)]
    few = SHORT | {"finetune_steps": 2}
    rounds += [("flags/digits_mpl.flags", few)] * 2
    monkeypatch.setitem(students.ROUNDS, "uda", rounds)
    monkeypatch.setattr(students, "LABELS", 40)
    monkeypatch.chdir(tmp_path)
    students.main(
        ["--begin=uda", "--rounds=1", f"--feedback={feedback}"]
        + ["--folder=runs", "--json=rows.jsonl"]
    )
    row = control_rows.read(tmp_path / "rows.jsonl")[-1]
    assert row["run"] == f"uda, round 1, {feedback}"
    assert (row["method"], row["feedback"]) == ("mpl", feedback)
    assert row["settings"]["mpl_student_labeled_weight"] == 1
    assert 0 < row["accuracy_finetuned"] <= 1
    assert row["accuracy_teacher"] is None


def test_the_tutorial_has_the_table_of_the_rows():
    text = students.DOCUMENT.read_text(encoding="utf-8")
    assert students.table() in text
