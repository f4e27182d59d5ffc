"""What a row records of its run, and what counts as the same recipe."""

import dataclasses
import functools
import json

import pytest

from benchmarks.controls import rows as control_rows
from benchmarks.controls import run as controls
from benchmarks.controls import suites as control_suites
from meta_pseudo_labels import Config
from tests.scripts import ROOT


@pytest.fixture(autouse=True)
def at_the_top(monkeypatch):
    """Where flagfiles name one another from."""
    monkeypatch.chdir(ROOT)


def test_a_line_that_was_cut_off_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    control_rows.append({"run": "uda"}, path)
    with path.open("a") as file:
        file.write('{"run": "ud')
    with pytest.raises(ValueError, match="rows.jsonl, line 2"):
        control_rows.read(path)


def test_a_row_names_no_folder_of_this_machine():
    settings = Config(
        output_dir="/here", data_dir="/there", teacher_labels="/elsewhere"
    )
    assert "here" not in json.dumps(control_rows.recorded_settings(settings))


def test_a_file_that_chose_labels_counts_wherever_it_lies(tmp_path):
    recipes = [
        control_rows.recipe({"method": "uda", "label_subset": subset})
        for subset in ("/here/labeled.json", "/there/labeled.json", "balanced")
    ]
    assert recipes[0] == recipes[1] != recipes[2]
    (tmp_path / "labeled.json").touch()
    config = Config(method="uda", label_subset=str(tmp_path / "labeled.json"))
    recorded = control_rows.recorded_settings(config)
    assert recorded["label_subset"] == "given"
    wanted = control_rows.recipe(dataclasses.asdict(config))
    assert control_rows.recipe(recorded) == wanted


@pytest.mark.parametrize("method, told_apart", [("mpl", 1), ("uda", 0)])
def test_rows_of_reduced_and_of_full_mpl_are_told_apart(method, told_apart):
    full = dict(method=method, teacher_labels=None)
    recipes = [
        control_rows.recipe(full | dict(teacher_labels=path))
        for path in ("/here", "/there", None)
    ]
    assert recipes[0] == recipes[1]
    assert (recipes[0] != recipes[2]) == told_apart
    # What is recorded of a run finds that run again.
    config = Config(method="mpl", teacher_labels="/here")
    recorded = control_rows.recorded_settings(config)
    wanted = control_rows.recipe(dataclasses.asdict(config))
    assert control_rows.recipe(recorded) == wanted


def test_rows_of_pseudo_labels_that_name_no_teacher_are_found():
    """Those from before it was recorded."""
    run = control_suites.SUITES["digits"].runs["pseudo labels"]
    wanted = run.settings(num_labeled=40, seed=0)
    old = dataclasses.asdict(wanted) | {"teacher_labels": None}
    assert control_rows.recipe(old) == control_rows.recipe(
        dataclasses.asdict(wanted)
    )


@pytest.mark.parametrize(
    "file", sorted({suite.rows for suite in control_suites.SUITES.values()})
)
def test_the_rows_of_the_repository_are_of_the_recipe_in_flags(file):
    """Else docs/results.md would tell of a recipe that nobody can run."""
    rows = control_rows.read(controls.RESULTS / file)
    if not rows:
        pytest.skip(f"{file} has no rows yet.")
    runs = {}
    for suite in control_suites.SUITES.values():
        if suite.rows == file:
            runs |= suite.runs

    @functools.cache  # Flagfiles are slow to read, and seeds are many.
    def of_seed_0(run, labels):
        """The settings of a run and of its teacher, or None."""
        choice = dict(num_labeled=labels, seed=0)
        return [
            one and one.settings(**choice)
            for one in (runs[run], runs[run].teacher)
        ]

    for one in rows:
        settings, teacher = (
            known and dataclasses.replace(known, seed=one["seed"])
            for known in of_seed_0(one["run"], one["labels"])
        )
        split = control_rows.split_of(one)
        assert control_rows.find(
            [one], one["run"], settings, split=split, teacher=teacher
        )
