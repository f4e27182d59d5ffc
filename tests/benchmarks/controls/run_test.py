"""Control runs: what is repeated, what is refused, how they end."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks.controls import rows as control_rows
from benchmarks.controls import run as controls
from benchmarks.controls import runs as control_runs
from benchmarks.controls import suites as control_suites
from meta_pseudo_labels import Config
from meta_pseudo_labels.data import save_labeled_indices
from meta_pseudo_labels.run import data
from tests.benchmarks.controls.made_up import row
from tests.scripts import ROOT, run_script


@pytest.fixture(autouse=True)
def at_the_top(monkeypatch):
    """Where flagfiles name one another from."""
    monkeypatch.chdir(ROOT)


def test_only_runs_with_the_same_settings_and_seed_are_found():
    rows = [
        row("uda"),
        row("uda", seed=1),
        row("uda", settings={"lr": 0.1}),
        row("mpl off"),
        row("uda", split="validation"),
    ]
    uda = Config(method="uda")
    assert control_rows.find(rows, "uda", uda) == rows[:1]
    second = dataclasses.replace(uda, seed=1)
    assert control_rows.find(rows, "uda", second) == rows[1:2]
    third = dataclasses.replace(uda, seed=2)
    assert control_rows.find(rows, "uda", third) == []
    assert control_rows.find(rows, "uda", uda, split="validation") == rows[4:]


@pytest.mark.parametrize(
    "run, changes, found",
    [
        # The row knows none of these; it had their default.
        ("uda", {"uda_weight": 2.0}, False),
        ("uda", {"uda_weight": 1.0}, True),
        # What a method does not read.
        ("uda", {"mpl_feedback": "off"}, True),
        ("mpl off", {"mpl_feedback": "off"}, False),
        ("supervised", {"uda_weight": 2.0}, True),
        # Where, not what.
        ("uda", {"output_dir": "x", "data_dir": "y"}, True),
        # What no trained network depends on.
        ("uda", {"use_tpu": True, "eval_batch_size": 7}, True),
        ("mpl exact", {"diagnose_draws": 7, "diagnose_lr": 0.5}, True),
        # Reduced MPL, and a method that cannot be without it.
        ("mpl exact", {"teacher_labels": "x"}, False),
    ],
)
def test_settings_that_a_row_does_not_know(run, changes, found):
    wanted = Config(method=run.split()[0], **changes)
    assert bool(control_rows.find([row(run)], run, wanted)) is found


def test_tasks_come_seed_by_seed_and_bring_their_teacher():
    arguments = controls._parse_arguments(
        ["digits", "--seeds=2", "--first_seed=4", "--num_labeled", "20"]
        + ["--runs", "uda", "pseudo labels"]
    )
    tasks = controls.list_tasks(control_suites.SUITES["digits"], arguments)
    assert [(task.run, task.settings.seed) for task in tasks] == [
        ("uda", 4),
        ("pseudo labels", 4),
        ("uda", 5),
        ("pseudo labels", 5),
    ]
    assert tasks[0].teacher is None
    teacher = tasks[3].teacher
    assert (teacher.method, teacher.seed, teacher.num_labeled) == (
        "supervised",
        5,
        20,
    )


def test_two_stages_know_their_teacher_and_rows_of_another_do_not_count():
    arguments = controls._parse_arguments(
        ["fast", "--seeds=1", "--num_labeled=250", "--runs", "two-stage"]
    )
    suite = control_suites.SUITES["fast"]
    (task,) = controls.list_tasks(suite, arguments)
    teacher = task.teacher
    assert (teacher.method, teacher.num_labeled) == ("uda", 250)
    settings, taught, other = map(
        dataclasses.asdict,
        (task.settings, teacher, dataclasses.replace(teacher, lr=0.9)),
    )
    rows = [
        row("two-stage", settings=settings, teacher_settings=who)
        for who in (taught, other, None)
    ]
    found = control_rows.find(rows, task.run, task.settings, teacher=teacher)
    assert found == [rows[0], rows[2]]  # Old rows do not know their teacher.
    # A trial is one of the teacher too.
    arguments = controls._parse_arguments(
        ["fast", "--runs", "two-stage", "--steps=5", "--json=x.jsonl"]
    )
    task = controls.list_tasks(suite, arguments)[0]
    steps = [one.num_train_steps for one in (task.settings, task.teacher)]
    assert steps == [5, 5]
    # The suite's numbers of steps are of runs in bfloat16.
    assert task.settings.use_bfloat16 and task.teacher.use_bfloat16


def test_runs_in_another_precision_are_others():
    suite = control_suites.SUITES["digits"]
    arguments = ["digits", "--seeds=1", "--num_labeled=20"]
    arguments += ["--runs", "pseudo labels"]
    tasks = [
        controls.list_tasks(suite, controls._parse_arguments(given))[0]
        for given in (arguments, [*arguments, "--bfloat16"])
    ]
    used = [(t.settings.use_bfloat16, t.teacher.use_bfloat16) for t in tasks]
    assert used == [(False, False), (True, True)]
    rows = [
        row("pseudo labels", settings=dataclasses.asdict(task.settings))
        for task in tasks
    ]
    for task, its in zip(tasks, rows, strict=True):
        found = control_rows.find(rows, "pseudo labels", task.settings)
        assert found == [its]


def test_pretrained_networks_begin_with_the_file_that_is_named(capsys):
    arguments = controls._parse_arguments(
        ["pretrained", "--seeds=1", "--num_labeled=250", "--weights=x/some.h5"]
    )
    suite = control_suites.SUITES["pretrained"]
    tasks = controls.list_tasks(suite, arguments)
    given = os.path.abspath("x/some.h5")
    found = {
        task.run: (task.settings.student_weights, task.settings.teacher_weights)
        for task in tasks
    }
    assert found == {
        "supervised": (given, None),
        "uda": (given, None),
        "mpl off": (given, given),
        "mpl exact": (given, given),
    }
    recorded = control_rows.recorded_settings(tasks[3].settings)
    assert recorded["teacher_weights"] == "some.h5"
    assert control_rows.recipe(recorded) == control_rows.recipe(
        dataclasses.asdict(
            suite.runs["mpl exact"].settings(num_labeled=250, seed=0)
        )
    )
    with pytest.raises(SystemExit):
        controls._parse_arguments(["pretrained"])
    assert "pretrained needs --weights" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        controls._parse_arguments(["digits", "--weights=some.h5"])
    assert "digits takes no --weights" in capsys.readouterr().err


def test_variants_run_only_when_asked_for():
    suite = control_suites.SUITES["digits"]
    arguments = controls._parse_arguments(["digits", "--seeds=1"])
    names = {task.run for task in controls.list_tasks(suite, arguments)}
    assert "mpl reinforce" in names and "mpl reinforce_cosine" not in names


def test_an_unknown_run_is_refused(capsys):
    with pytest.raises(SystemExit):
        controls._parse_arguments(["digits", "--runs", "mpl exakt"])
    assert "'mpl exakt' is not a run of digits" in capsys.readouterr().err


def test_a_trial_needs_a_file_of_its_own(capsys):
    """Its rows would be taken for the recipe that was changed."""
    with pytest.raises(SystemExit):
        controls._parse_arguments(["digits", "--steps=5"])
    assert "name a file of their own with --json" in capsys.readouterr().err
    controls._parse_arguments(["digits", "--steps=5", "--json=x.jsonl"])


def test_what_was_run_is_not_repeated_and_what_failed_is(
    tmp_path, monkeypatch, capsys
):
    """In place of training, rows; supervised fails at first."""
    started, failing = [], {"supervised"}

    def run_all(tasks, arguments):
        for task in tasks:
            started.append(task.run)
            if task.run in failing:
                yield task, None
            else:
                config = dataclasses.asdict(task.settings)
                yield task, row(task.run, settings=config)

    monkeypatch.setattr(controls, "run_all", run_all)
    command = ["digits", "--seeds=1", "--num_labeled", "40"]
    command += ["--runs", "supervised", "uda", f"--json={tmp_path}/rows.jsonl"]
    with pytest.raises(SystemExit, match="1 of 2 runs failed"):
        controls.main(command)
    failing.clear()
    controls.main(command)
    controls.main(command)
    assert started == ["supervised", "uda", "supervised"]
    assert "2 runs, 0 of them to do." in capsys.readouterr().out
    assert len(control_rows.read(tmp_path / "rows.jsonl")) == 2


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_a_process_that_is_killed_ends_all_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(control_runs, "measure", die)
    with pytest.raises(SystemExit, match="fewer --jobs take less"):
        controls.main(
            ["digits", "--seeds=2", "--runs", "uda", "--num_labeled", "40"]
            + [f"--json={tmp_path}/rows.jsonl"]
        )


def test_a_run_that_chooses_its_own_labels_is_done_once():
    runs = ("mpl off, 10 labels", "mpl off")
    arguments = controls._parse_arguments(
        ["where", "--seeds=1", "--num_labeled", "20", "40", "--runs", *runs]
    )
    tasks = controls.list_tasks(control_suites.SUITES["where"], arguments)
    labels = [(task.run, task.settings.num_labeled) for task in tasks]
    assert labels == [(runs[0], 10), (runs[1], 20), (runs[1], 40)]


def test_the_folder_of_data_may_be_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    parsed = controls._parse_arguments(["cifar10", "--data_dir=~/sets"])
    assert parsed.data_dir == "/somewhere/sets"


def test_a_revision_is_that_of_the_code_wherever_it_is_called_from(
    tmp_path, monkeypatch
):
    here = control_runs.revision()
    monkeypatch.chdir(tmp_path)
    assert control_runs.revision() == here


@pytest.mark.parametrize("changes", [{}, {"known_classes": 5}])
def test_pool_images_are_none_that_a_network_saw_the_label_of(changes):
    config = Config(dataset="digits", num_labeled=40, seed=7, **changes)
    images = data.load_data(config)
    pool = control_runs.with_pool_as_test(images, config)
    everything = data.load_data(Config(dataset="digits", num_labeled=0))
    label_of = {
        image.tobytes(): label
        for image, label in zip(
            everything.labeled_images, everything.labeled_labels, strict=True
        )
    }
    classes = images.spec.num_classes
    plain = Config(dataset="digits", num_labeled=40, seed=7)
    labeled = data.load_data(plain).labeled_images
    seen = {image.tobytes() for image in labeled}
    assert len(pool.test_images) > 500
    assert not seen & {image.tobytes() for image in pool.test_images}
    # Their own labels, and all classes of the task.
    labels = [label_of[image.tobytes()] for image in pool.test_images]
    np.testing.assert_array_equal(pool.test_labels, labels)
    assert set(labels) == set(range(classes))
    # Nothing else changed.
    np.testing.assert_array_equal(pool.labeled_labels, images.labeled_labels)


def test_a_pool_is_the_same_where_a_file_chose_the_labels(tmp_path):
    config = Config(dataset="digits", num_labeled=40, seed=7)
    images = data.load_data(config)
    path = tmp_path / "labeled.json"
    save_labeled_indices(images, path)
    chosen = dataclasses.replace(config, seed=8, label_subset=str(path))
    pools = [
        control_runs.with_pool_as_test(data.load_data(one), one)
        for one in (config, chosen)
    ]
    np.testing.assert_array_equal(pools[0].test_images, pools[1].test_images)
    assert len(pools[0].test_images) > 500


def test_pools_of_two_seeds_differ_by_the_labeled_images_only(monkeypatch):
    monkeypatch.setattr(control_runs, "POOL_IMAGES", 100)
    pools = []
    for seed in (0, 1):
        config = Config(dataset="digits", num_labeled=40, seed=seed)
        images = data.load_data(config)
        pool = control_runs.with_pool_as_test(images, config).test_images
        assert len(pool) == 100
        pools.append({image.tobytes() for image in pool})
    assert len(pools[0] & pools[1]) > 80


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who runs")
def test_what_is_ended_leaves_no_run_behind(tmp_path):
    script = [sys.executable, "-m", "benchmarks.controls.run"]
    arguments = ["digits", "--seeds=1", "--num_labeled", "40"]
    arguments += ["--runs", "mpl exact", f"--json={tmp_path}/rows.jsonl"]
    with subprocess.Popen(script + arguments, stderr=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + 60
        while len(children := processes_of(run.pid)) < 2:  # And a tracker.
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.1)
        run.terminate()
        assert run.wait(60) == 128 + signal.SIGTERM
        deadline = time.monotonic() + 30
        while any(map(is_running, children)):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def processes_of(parent):
    """The ids of the processes that a process started."""
    tasks = pathlib.Path(f"/proc/{parent}/task/{parent}/children")
    return tasks.read_text().split()


def is_running(process):
    """Whether it is there, and not only its exit code."""
    try:
        stat = pathlib.Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.long
def test_runs_side_by_side_and_runs_that_fail(tmp_path):
    path = tmp_path / "rows.jsonl"
    result = run_script(
        "benchmarks.controls.run",
        *("digits", "--seeds=1", "--num_labeled", "40", "--steps=3"),
        *("--jobs=2", "--select", f"--json={path}"),
        *("--runs", "supervised", "pseudo labels", "mpl exact"),
    )
    assert result.returncode == 0, result.stderr[-2000:]
    rows = {one["run"]: one for one in control_rows.read(path)}
    assert set(rows) == {"supervised", "pseudo labels", "mpl exact"}
    for one in rows.values():
        assert (one["split"], one["seed"], one["steps"]) == ("validation", 0, 3)
        assert one["labels"] == one["labels_learned"] == 40
        assert 0 <= one["accuracy"] <= 1 and one["train_seconds"] > 0
        assert one["train_cpu_seconds"] > 0
        assert str(tmp_path) not in json.dumps(one)
    assert rows["pseudo labels"]["accuracy_teacher"] is not None
    result = run_script(
        "benchmarks.controls.run",
        *("cifar10", "--seeds=1", "--runs", "uda", f"--json={path}"),
        f"--data_dir={tmp_path}",
    )
    assert result.returncode == 1
    assert "2 of 2 runs failed" in result.stderr
    assert "is not prepared" in result.stderr
