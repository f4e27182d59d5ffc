"""The example without images: its parts, and a run cut down."""

import collections
import dataclasses
import json
import sys

import keras
import numpy as np
import pytest

from benchmarks.two_moons import run as two_moons
from benchmarks.two_moons import settings as choices
from benchmarks.two_moons import tables
from meta_pseudo_labels.learners.feedback import ESTIMATORS
from tests.scripts import run_script


def test_the_data_are_the_papers():
    arrays = two_moons.moons(3)
    assert arrays["points"].shape == arrays["test_points"].shape == (2000, 2)
    assert np.bincount(arrays["test_labels"]).tolist() == [1000, 1000]
    assert arrays["labels"].tolist() == [0, 0, 0, 1, 1, 1]
    # The first moon is the upper one.
    upper = arrays["test_points"][arrays["test_labels"] == 0]
    assert upper[:, 1].mean() > 0.3
    # The six are points of the training set, and no point is drawn twice.
    points = {tuple(point) for point in arrays["points"]}
    labeled = {tuple(point) for point in arrays["labeled"]}
    assert labeled < points and len(labeled) == 6
    test_points = {tuple(point) for point in arrays["test_points"]}
    assert not points & test_points
    assert np.any(arrays["points"] != two_moons.moons(4)["points"])


@pytest.mark.long
def test_networks_start_as_the_papers_and_alike_in_every_method():
    settings = dataclasses.replace(choices.LABELS_ALONE, num_steps=3)
    students = []
    for method in ("supervised", "exact"):
        learner, train = two_moons.trainer(method, settings)
        train(two_moons.moons(0), 0)  # A second seed begins afresh.
        two_moons.start_afresh(learner, 7)
        assert int(learner.step) == 0
        students.append(np.concatenate([w.ravel() for w in weights(learner)]))
    supervised, exact = students
    assert exact.size == (2 + 1) * 8 + (8 + 1) * 8 + (8 + 1) * 2
    assert abs(exact).max() <= 0.1 and 0.04 < exact.std() < 0.075
    np.testing.assert_array_equal(exact, supervised)
    assert np.any(learner.teacher.get_weights()[0] != weights(learner)[0])


def weights(learner):
    return learner.student.get_weights()


def test_every_estimator_of_the_library_is_a_method():
    assert {"supervised", "pseudo labels", *ESTIMATORS} == set(
        two_moons.METHODS
    )
    assert len(two_moons.METHODS) == len(ESTIMATORS) + 2


@pytest.mark.long
def test_a_seed_comes_out_the_same_after_another():
    settings = dataclasses.replace(choices.WITH_CONSISTENCY, num_steps=30)
    learner, train = two_moons.trainer("reinforce", settings)
    outcomes = []
    for seed in (1, 0, 1):
        train(two_moons.moons(seed), seed)
        outcomes.append(weights(learner))
    for first, other, again in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(first, again)
        assert np.any(first != other)


def test_accuracy_counts_points_in_their_moon():
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2, use_bias=False)]
    )
    model.set_weights([np.float32([[0, 1], [0, 0]])])  # Class 1 where x > 0.
    arrays = {
        "test_points": np.float32([[1, 0], [2, 5], [-1, 0], [-3, 2]]),
        "test_labels": np.array([1, 0, 0, 0]),
    }
    assert two_moons.accuracy(model, arrays) == 0.75


def row(method, seed, accuracy, **settings):
    known = {"consistency": 0.0, "feedback_weight": 1.0, **settings}
    found = {"method": method, "seed": seed, "accuracy": accuracy}
    if method != "supervised":
        found["accuracy_teacher"] = 0.9
        found["feedback_grad_ratio"] = 0.002 * seed
    return {**found, "settings": known}


def test_the_table_compares_with_the_control_seed_by_seed():
    rows = [
        *(row("supervised", seed, 0.5) for seed in range(3)),
        *(row("off", seed, value) for seed, value in enumerate((0.8, 0.9))),
        *(row("exact", seed, value) for seed, value in enumerate((0.85, 0.97))),
        # Another weight is compared with the same control; other data with
        # none.
        *(row("exact", seed, 0.9, feedback_weight=10.0) for seed in range(2)),
        *(row("exact", seed, 0.9, consistency=4.0) for seed in range(2)),
    ]
    lines = two_moons.report.table(rows).splitlines()[2:]
    supervised, off, exact, weighted, views = map(str.split, lines)
    assert supervised[-5:] == "3 50.0 +- 0.0 50.0".split()
    assert off[-9:] == "2 85.0 +- 7.1 90.0 +- 0.0 80.0 0.001".split()
    # The ratios are 0 and 0.002: nothing is left out.
    # Gains of 5 and 7 points: mean 6, standard error sqrt(2) / sqrt(2) = 1.
    assert exact[-5:] == "85.0 +6.0 +- 1.0 0.001".split()
    # Gains of 10 and 0.
    assert weighted[-5:] == "90.0 +5.0 +- 5.0 0.001".split()
    assert "feedback_weight 10" in lines[3]
    assert views[-2:] == ["90.0", "0.001"]


def test_drawn_labels_are_compared_with_drawn_labels():
    rows = [
        *(row("off", seed, 0.9) for seed in range(2)),
        *(row("off", s, 0.7, pseudo_labels="sampled") for s in range(2)),
        *(row("reinforce", seed, 0.8) for seed in range(2)),
        # No control has hard labels: the one with soft ones, and a dagger.
        *(row("reinforce", s, 0.8, pseudo_labels="hard") for s in range(2)),
    ]
    for one in rows:
        one["settings"].setdefault("pseudo_labels", None)
    *_, drawn, hard = two_moons.report.table(rows).splitlines()
    assert "  +10.0 +- 0.0  " in drawn
    assert "  -10.0 +- 0.0 †  " in hard


@pytest.mark.parametrize("part", tables.PARTS)
def test_the_document_has_the_tables_of_the_rows(part):
    rows = tables.read_rows(part)
    text = tables.DOCUMENT.read_text(encoding="utf-8")
    assert tables.with_table(text, part) == text
    (revision,) = {row["revision"] for row in rows}
    assert "dirty" not in revision and f"`{revision}`" in text


def test_means_are_also_weighed_as_the_sums_that_others_are():
    tasks = choices.table_tasks(choices.METHODS)
    assert len(set(tasks)) == len(tasks) == 2 * (len(choices.METHODS) + 3)
    heavy = [
        (method, settings.consistency)
        for method, settings in tasks
        if settings.feedback_weight == settings.batch_size
    ]
    assert len(heavy) == 4 and {m for m, _ in heavy} == set(choices.MEANS)
    assert {settings.feedback_weight for _, settings in tasks} == {1, 128}


def test_the_search_never_sees_the_seeds_of_the_table():
    tasks = choices.search_tasks()
    assert len(set(tasks)) == len(tasks)
    # Each setting without feedback is there to compare the others with.
    controls = {
        dataclasses.replace(settings, feedback_weight=1.0)
        for method, settings in tasks
        if method == "off"
    }
    for _, settings in tasks:
        assert dataclasses.replace(settings, feedback_weight=1.0) in controls
    assert two_moons.FIRST_SEARCH_SEED >= 100


@pytest.mark.long
def test_a_run_leaves_a_table_a_figure_and_rows(tmp_path):
    result = run_script(
        "benchmarks.two_moons.run",
        "--num_steps=3",
        "--seeds=2",
        "--jobs=1",
        "--methods",
        *("supervised", "pseudo labels", "exact"),
        f"--output_dir={tmp_path}",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "student %" in result.stdout
    png = (tmp_path / "two_moons.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    lines = (tmp_path / "two_moons.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    count = collections.Counter(
        (row["method"], row["settings"]["consistency"]) for row in rows
    )
    assert len(count) == 2 * 3 and set(count.values()) == {2}
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert {row["seed"] for row in rows} == {0, 1}


def test_a_run_refuses_no_seeds(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", "--seeds=0"])
    with pytest.raises(SystemExit) as ended:
        two_moons.main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.strip().endswith("--seeds must be at least 1; got 0")


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf"])
def test_a_rate_out_of_range_is_refused(monkeypatch, capsys, rate):
    monkeypatch.setattr(
        sys, "argv", ["two_moons.py", f"--learning_rate={rate}"]
    )
    with pytest.raises(SystemExit) as ended:
        two_moons.parse_arguments()
    assert ended.value.code == 2
    assert "--learning_rate must be above 0; got" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        (["--learning_rate=0.1", "--num_steps=3"], 8),
        (["--search"], 10 + 20),
        # Longer training, and the paper's rate, are no settings of their own.
        (["--search", "--learning_rate=0.1", "--num_steps=3"], 8 + 15),
    ],
)
def test_flags_say_what_is_trained(monkeypatch, tmp_path, flags, count):
    """No task twice, and none of a method that was not asked for."""
    seen = []
    monkeypatch.setattr(two_moons.report, "write", lambda *_, **__: None)
    monkeypatch.setattr(
        two_moons, "measure_all", lambda tasks, **_: seen.extend(tasks)
    )
    command = ["two_moons.py", *flags, f"--output_dir={tmp_path}"]
    command += ["--methods", "off", "exact", "supervised"]
    monkeypatch.setattr(sys, "argv", command)
    two_moons.main()
    assert len(set(seen)) == len(seen)
    assert {m for m, _, _ in seen} <= {"off", "exact", "supervised"}
    for _, settings, _ in seen:
        if "--learning_rate=0.1" in flags:
            assert (settings.learning_rate, settings.num_steps) == (0.1, 3)
    assert len(seen) == count
