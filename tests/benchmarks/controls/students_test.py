"""Students one after another, on digits in place of CIFAR-10."""

import dataclasses
import itertools
import json

import pytest

from benchmarks.controls import rows as control_rows
from benchmarks.controls import students
from benchmarks.controls.rounds import Round
from meta_pseudo_labels.run.config.flags import config_from_flagfile

ROUNDS = ["uda, round 0", "uda, round 1", "uda, round 2"]
SHORT = {"model_type": "mlp", "num_train_steps": 2}
LEARNS = {"method": "pseudo_labels", "mpl_pseudo_labels": "soft"}


@pytest.mark.parametrize(
    "of_round", [*itertools.chain(*students.ROUNDS.values())]
)
def test_rounds_have_valid_settings(monkeypatch, request, of_round):
    monkeypatch.chdir(request.config.rootpath)
    flagfile, changes = of_round.flagfile, of_round.changes
    taught = "student" in flagfile or "method" in changes
    teacher = {"teacher_labels": "x"} if taught else {}
    settings = config_from_flagfile(flagfile, **changes | teacher)
    assert settings.method == "pseudo_labels" or not taught
    assert settings.num_warmup_steps < settings.num_train_steps / 3
    assert settings.crop_padding == (None if settings.student_weights else 2)


def test_each_learns_from_the_one_before_and_is_trained_once(
    tmp_path, monkeypatch, capsys
):
    rounds = [Round("flags/digits_uda.flags", SHORT)]
    rounds += [Round("flags/digits_uda.flags", SHORT | LEARNS)] * 2
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
        (
            tmp_path
            / f"runs/uda/40-labels/seed-100/round-{n}/teacher_labels.json"
        ).exists()
        for n in range(3)
    ]
    assert labels == [False, True, True]


def in_pairs(monkeypatch):
    """Rounds of two networks each, and of one at the end."""
    few = {"finetune_steps": 2}
    flagfile = "flags/digits_supervised.flags"
    rounds = [
        Round(flagfile, SHORT, networks=2),
        Round(flagfile, SHORT | LEARNS, networks=2),
        Round(flagfile, SHORT | LEARNS | few),
    ]
    monkeypatch.setitem(students.ROUNDS, "augmented", rounds)
    monkeypatch.setattr(students, "LABELS", 40)


@pytest.mark.fast("select")
@pytest.mark.parametrize(
    ("asked", "seed"),
    [(["--select"], 100), (["--seed=3"], 3)],
    ids=["select", "test"],
)
def test_students_learn_what_networks_of_the_same_labels_say_on_average(
    tmp_path, monkeypatch, asked, seed
):
    in_pairs(monkeypatch)
    for _ in range(2):  # The second time there is nothing left to do.
        monkeypatch.chdir(tmp_path)
        students.main(["--folder=runs", "--json=rows.jsonl", *asked])
    rows = control_rows.read(tmp_path / "rows.jsonl")
    assert [(row["run"], row["seed"], row.get("teachers")) for row in rows] == [
        ("augmented, round 0", seed, None),
        ("augmented, round 0, network 2", seed + 1_000, None),
        ("augmented, round 1", seed, 2),
        ("augmented, round 1, network 2", seed + 1_000, 2),
        ("augmented, round 2", seed, 2),
    ]
    assert {row["labels_seed"] for row in rows} == {seed}
    assert [row["settings"]["label_subset"] for row in rows] == [
        *("balanced", "given") * 2,
        "balanced",
    ]
    folder = tmp_path / f"runs/augmented/40-labels/seed-{seed}"
    choices = [
        json.loads((folder / f"round-{place}/labeled.json").read_text())
        for place in ("0", "0-network-2", "1", "1-network-2", "2")
    ]
    assert all(choice["indices"] == choices[0]["indices"] for choice in choices)
    learned, too = (
        json.loads((folder / place / "teacher_labels.json").read_text())
        for place in ("round-1", "round-1-network-2")
    )
    assert learned == too
    first, second = learned["source"]["mean_of"]
    assert first["weights"] != second["weights"]


@pytest.mark.long
def test_reduced_mpl_learns_from_several_too(tmp_path, monkeypatch):
    in_pairs(monkeypatch)
    monkeypatch.chdir(tmp_path)
    students.main(
        ["--students=1", "--feedback=exact"]
        + ["--folder=runs", "--json=rows.jsonl"]
    )
    rows = control_rows.read(tmp_path / "rows.jsonl")
    assert [(row["run"], row.get("teachers")) for row in rows] == [
        ("augmented, round 0", None),
        ("augmented, round 0, network 2", None),
        ("augmented, round 1, exact", 2),
    ]


@pytest.mark.long
def test_students_of_fewer_teachers_are_trained_anew(tmp_path, monkeypatch):
    """Where they were stopped before that, they are refused."""
    in_pairs(monkeypatch)
    pairs = students.ROUNDS["augmented"]
    single = [dataclasses.replace(one, networks=1) for one in pairs]

    def main(rounds, *asked):
        monkeypatch.setitem(students.ROUNDS, "augmented", rounds)
        monkeypatch.chdir(tmp_path)
        students.main(["--folder=runs", "--json=rows.jsonl", *asked])
        return control_rows.read(tmp_path / "rows.jsonl")

    rows = main(single)
    assert [row.get("teachers") for row in rows] == [None, 1, 1]
    rows = main(pairs)
    assert [row.get("teachers") for row in rows[3:]] == [None, 2, 2, 2]
    learned = json.loads(
        (
            tmp_path
            / "runs/augmented/40-labels/seed-0/round-1/teacher_labels.json"
        ).read_text()
    )
    assert len(learned["source"]["mean_of"]) == 2
    # As if it had been stopped once the first round was there.
    (tmp_path / "rows.jsonl").write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(SystemExit, match="students: .*has other labels than"):
        main(single)


@pytest.mark.fast("exact")
@pytest.mark.parametrize("feedback", ["off", "exact"])
def test_the_last_may_be_of_reduced_mpl(tmp_path, monkeypatch, feedback):
    rounds = [Round("flags/digits_uda.flags", SHORT)]
    few = {"finetune_steps": 2}
    rounds += [Round("flags/digits_uda.flags", SHORT | LEARNS | few)] * 2
    monkeypatch.setitem(students.ROUNDS, "augmented", rounds)
    monkeypatch.setattr(students, "LABELS", 40)
    monkeypatch.chdir(tmp_path)
    students.main(
        ["--students=1", f"--feedback={feedback}"]
        + ["--folder=runs", "--json=rows.jsonl"]
    )
    first, row = control_rows.read(tmp_path / "rows.jsonl")
    assert row["run"] == f"augmented, round 1, {feedback}"
    assert (row["method"], row["feedback"]) == ("mpl", feedback)
    assert row["settings"]["mpl_student_labeled_weight"] == 1
    assert row["settings"]["mpl_pseudo_labels"] == "soft"
    assert row["teacher_settings"] == first["settings"]
    assert 0 < row["accuracy_finetuned"] <= 1
    assert row["accuracy_teacher"] is None


@pytest.mark.parametrize("begin", students.ROUNDS)
@pytest.mark.parametrize("feedback", ["off", "exact"])
def test_reduced_mpl_differs_from_its_round_in_nothing_else(
    monkeypatch, request, begin, feedback
):
    monkeypatch.chdir(request.config.rootpath)
    last = students.ROUNDS[begin][-1]
    plain = config_from_flagfile(
        last.flagfile, teacher_labels="x", **last.changes
    )
    reduced = students.reduced(plain, feedback)
    for field in dataclasses.fields(plain):
        if field.name != "method" and not field.name.startswith("mpl_"):
            name = field.name
            assert getattr(plain, name) == getattr(reduced, name), name
    assert reduced.mpl_pseudo_labels == plain.mpl_pseudo_labels == "soft"


def test_the_recipe_is_that_of_students_with_feedback(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    recipe, student = (
        config_from_flagfile(
            f"flags/cifar10_fast_{name}.flags",
            teacher_labels="x",
            num_train_steps=600,
        )
        for name in ("reduced", "student")
    )
    reduced = students.reduced(student, "exact")
    assert recipe == dataclasses.replace(reduced, mpl_feedback_every=4)


@pytest.mark.parametrize(
    "asked",
    [["--students=-1"], ["--students=4"], ["--students=0", "--feedback=off"]],
)
def test_a_number_of_students_that_cannot_be_is_refused(capsys, asked):
    with pytest.raises(SystemExit):
        students.main(["--begin=uda", *asked])
    assert "error: --students=" in capsys.readouterr().err


@pytest.mark.parametrize("begin", students.ROUNDS)
def test_those_that_begin_with_weights_need_a_file_and_others_take_none(
    capsys, begin
):
    needs = begin.startswith("pretrained")
    given = [] if needs else ["--weights=some.weights.h5"]
    with pytest.raises(SystemExit):
        students.main([f"--begin={begin}", *given])
    told = "needs" if needs else "takes no"
    assert f"--begin={begin} {told} --weights" in capsys.readouterr().err


def test_feedback_from_imagenets_weights_is_refused(capsys):
    with pytest.raises(SystemExit):
        students.main(
            ["--begin=pretrained", "--weights=some.weights.h5"]
            + ["--feedback=exact"]
        )
    assert "leave --feedback out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("begin", "method"),
    [("pretrained", "supervised"), ("pretrained-uda", "uda")],
)
def test_every_pretrained_network_starts_from_the_file(
    tmp_path, monkeypatch, request, begin, method
):
    asked = []
    monkeypatch.setattr(students, "train_rounds", asked.append)
    monkeypatch.chdir(tmp_path)
    students.main(
        [f"--begin={begin}", "--weights=some.weights.h5", "--num_labeled=250"]
    )
    monkeypatch.chdir(request.config.rootpath)
    teachers = []
    for number in range(asked[0].students + 1):
        (pair,) = students._networks(number, asked[0], teachers)
        assert pair[0] == f"{begin}, round {number}"
        assert pair[1].student_weights == str(tmp_path / "some.weights.h5")
        assert pair[1].method == ("pseudo_labels" if number else method)
        assert (pair[1].dataset, pair[1].num_labeled) == ("cifar10", 250)
        teachers = [pair[1]]


def test_a_changed_first_network_has_new_students(tmp_path, monkeypatch):
    monkeypatch.setattr(students, "LABELS", 40)
    for folder, steps in (("a", 2), ("b", 3)):
        first = SHORT | {"num_train_steps": steps}
        rounds = [
            Round("flags/digits_uda.flags", changes)
            for changes in (first, SHORT | LEARNS)
        ]
        monkeypatch.setitem(students.ROUNDS, "uda", rounds)
        monkeypatch.chdir(tmp_path)
        students.main(
            ["--begin=uda", f"--folder={folder}", "--json=rows.jsonl"]
        )
    rows = control_rows.read(tmp_path / "rows.jsonl")
    assert [row["run"][-1] for row in rows] == ["0", "1", "0", "1"]
    assert [row["steps"] for row in rows] == [2, 2, 3, 2]


def test_a_run_that_went_on_has_no_time(tmp_path, monkeypatch):
    monkeypatch.setattr(students, "LABELS", 40)
    rounds = [Round("flags/digits_uda.flags", SHORT)]
    monkeypatch.setitem(students.ROUNDS, "uda", rounds)
    for rows in ("first.jsonl", "second.jsonl"):  # The same folder.
        monkeypatch.chdir(tmp_path)
        students.main(["--begin=uda", "--folder=runs", f"--json={rows}"])
    (first,), (second,) = (
        control_rows.read(tmp_path / name)
        for name in ("first.jsonl", "second.jsonl")
    )
    assert first["train_cpu_seconds"] > 0
    assert second["train_cpu_seconds"] is None
    assert first["accuracy"] == second["accuracy"]


def test_the_table_has_what_a_student_is_used_as(tmp_path, monkeypatch):
    row = dict(model="mlp", steps=20, split="test", date="2026-11-30", seed=0)
    row |= dict(settings={"teacher_labels": "given"}, accuracy_finetuned=None)
    row["labels"] = 4_000
    reduced = dict(accuracy_finetuned=0.625, teachers=2)
    several = dict(teachers=2, seed=1_000, labels_seed=0)
    rows = [
        (None, dict(run="uda, round 1, exact", accuracy=0.5, **reduced)),
        (10, dict(run="augmented, round 1", accuracy=0.125)),
        (20, dict(run="augmented, round 1", accuracy=0.75)),
        (1_234, dict(run="augmented, round 1", accuracy=0.25, teachers=2)),
        (30, dict(run="augmented, round 1, network 2", accuracy=1, **several)),
        (40, dict(run="augmented, round 1", accuracy=0.5, seed=1)),
        (50, dict(run="augmented, round 1", accuracy=0.375, labels=250)),
    ]
    monkeypatch.setattr(students, "ROWS", tmp_path / "rows.jsonl")
    for seconds, changes in rows:
        control_rows.append(
            row | changes | {"train_cpu_seconds": seconds}, students.ROWS
        )
    lines = students.table().splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    few, many, one, two = "250", "4,000", "1 of round 0", "2 of round 0"
    assert [cell[1:6] + cell[7:9] for cell in cells] == [
        [few, "1", "0", one, "mlp", "37.5", "50"],
        [many, "1", "0", one, "mlp", "75.0", "20"],
        [many, "1", "0", two, "2 mlp", "25.0, 100.0", "1,234, 30"],
        [many, "1", "1", one, "mlp", "50.0", "40"],
        [many, "1, exact", "0", two, "mlp", "62.5", "unknown"],
    ]


def test_old_rows_of_students_had_one_teacher():
    for row in control_rows.read(students.ROWS):
        if "teachers" not in row:
            first = row["run"].endswith("round 0") or "round 0," in row["run"]
            assert students._teachers(row) == 1 - first, row["run"]


def test_a_folder_with_a_comma_is_refused(capsys, tmp_path):
    with pytest.raises(SystemExit):
        students.main([f"--folder={tmp_path}/a,b"])
    assert "name a folder without one" in capsys.readouterr().err


def test_the_tutorial_has_the_table_of_the_rows():
    text = students.DOCUMENT.read_text(encoding="utf-8")
    assert students.table() in text
    last = len(students.ROUNDS["augmented"]) - 1
    assert f"`runs/cifar/augmented/4000-labels/seed-0/round-{last}`" in text
