"""Following a run's checkpoints, with a weight for a learner."""

import json
import logging

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.run.checkpoints import Checkpoints
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.folder import RunFolder
from meta_pseudo_labels.run.stages import follow
from meta_pseudo_labels.utils.files import locked
from meta_pseudo_labels.utils.settings import ConfigError
from tests.tiny_folders import run_settings, write_folders
from tests.tiny_run import tiny

# What the test set says of the checkpoint of a step.
ACCURACY = {1: 0.25, 2: 0.75, 3: 0.75, 4: 0.5}


class Run:
    """Checkpoints, in which the weight is the step, and their follower."""

    def __init__(self, folder):
        self.folder = folder
        self.weight, self.trained = (
            tf.Variable(np.zeros([1000], np.float32)) for _ in range(2)
        )
        self.checkpoints = Checkpoints(
            {"weight": self.trained}, folder, max_to_keep=9
        )

    def save(self, *steps):
        for step in steps:
            self.trained.assign(tf.fill([1000], float(step)))
            self.checkpoints.save(step)
        self.checkpoints.wait()

    def spoil(self, step):
        path = self.folder / "checkpoints" / f"step-{step}.index"
        path.write_bytes(path.read_bytes()[:20])

    def follow(self, *, forever=False, best_on="test", digest="a"):
        return follow.follow(
            self.weight,
            RunFolder(str(self.folder)),
            {"test": None},
            digests={"test": digest},
            forever=forever,
            best_on=best_on,
        )

    def seen(self, **settings):
        return [row["step"] for row in self.follow(**settings)]

    def accuracy(self):
        return json.loads((self.folder / "acc").read_text())


@pytest.fixture
def run(tmp_path, monkeypatch):
    def accuracies(weight, datasets):
        step = int(weight.numpy()[0])  # Of what was restored.
        return {"eval/test/student": ACCURACY[step], "eval/test/raw": 0.0}

    monkeypatch.setattr(follow, "_accuracies", accuracies)
    monkeypatch.setattr(follow, "learner_state", lambda w: {"weight": w})
    return Run(tmp_path)


def test_accuracies_of_other_images_are_not_added(run):
    run.save(1)
    assert run.seen() == [1]
    run.save(2)
    rows = (run.folder / "evals" / "metrics.jsonl").read_text()
    with pytest.raises(ConfigError, match="test images are not those.*evals"):
        run.seen(digest="b")
    assert (run.folder / "evals" / "metrics.jsonl").read_text() == rows
    assert run.seen() == [2]


def test_images_may_change_before_there_is_any_accuracy(run):
    assert run.seen(digest="mistaken") == []
    run.save(1)
    assert run.seen() == [1]


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_damaged_file_of_hashes_is_named(run, content):
    run.save(1)
    assert run.seen() == [1]
    (run.folder / "evals" / "images.json").write_text(content)
    with pytest.raises(ConfigError, match="images.json cannot be read.*anew"):
        run.seen()


def test_the_best_is_of_those_that_were_judged_alike(run, monkeypatch):
    """Test images came later; the first row knows of none."""
    run.save(1)
    monkeypatch.setattr(
        follow,
        "_accuracies",
        lambda *_: {"eval/validation/student": 0.9},
    )
    assert [*run.follow(best_on="validation")]
    monkeypatch.setattr(
        follow, "_accuracies", lambda *_: {"eval/test/student": 0.5}
    )
    run.save(2)
    assert run.seen() == [2]
    assert run.accuracy()["best_step"] == 2


def test_rows_of_older_runs_go_on(run):
    run.save(1)
    assert run.seen() == [1]
    (run.folder / "evals" / "images.json").unlink()
    run.save(2)
    assert run.seen(digest="b") == [2]
    with pytest.raises(ConfigError):
        run.seen()


def test_each_checkpoint_is_evaluated_once_also_after_a_restart(run):
    run.save(1, 2)
    assert run.seen() == [1, 2]
    assert run.seen() == []
    run.save(3)
    assert run.seen() == [3]
    log = (run.folder / "evals" / "metrics.jsonl").read_text()
    assert [json.loads(line)["step"] for line in log.splitlines()] == [1, 2, 3]


def test_one_that_was_killed_in_between_goes_on_behind_it(run):
    run.save(1, 2, 3)
    follower = run.follow()
    assert next(follower)["step"] == 1
    follower.close()
    assert run.seen() == [2, 3]


def test_acc_names_the_latest_and_the_best_of_all(run):
    """The first of equals; those of an earlier process count too."""
    run.save(1, 2)
    run.seen()
    run.save(3, 4)
    assert run.seen() == [3, 4]
    assert run.accuracy() == {
        "images": "test",
        "step": 4,
        "accuracy": 0.5,
        "best_step": 2,
        "best_accuracy": 0.75,
    }


def test_a_damaged_checkpoint_is_left_out_with_a_warning(run, caplog):
    run.save(1, 2, 3)
    run.spoil(2)
    assert run.seen() == [1, 3]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "step-2 cannot be read" in record.message
    assert record.message.endswith("It is left out.")


def test_one_that_was_deleted_before_its_turn_is_nobodys_fault(run, caplog):
    run.save(1, 2)
    follower = run.follow()
    assert next(follower)["step"] == 1
    for path in (run.folder / "checkpoints").glob("step-2*"):
        path.unlink()
    assert list(follower) == []
    assert caplog.records == []


def test_without_a_checkpoint_evals_ends_at_once(run, monkeypatch):
    monkeypatch.setattr(follow.time, "sleep", None)  # It must not wait.
    assert run.seen() == []
    assert not (run.folder / "acc").exists()


def test_eval_forever_waits_until_done_and_takes_what_came_last(
    run, monkeypatch
):
    """The last checkpoint is there before `done` is: it is not missed."""
    to_come = [
        lambda: run.save(1, 2),
        lambda: None,
        lambda: (run.save(4), (run.folder / "done").write_text("4 steps\n")),
    ]

    def sleep(seconds):
        to_come.pop(0)()

    monkeypatch.setattr(follow.time, "sleep", sleep)
    assert run.seen(forever=True) == [1, 2, 4]
    assert to_come == []
    assert run.seen(forever=True) == []  # A finished run is not waited for.


def test_a_run_is_waited_for(run, monkeypatch, capsys):
    sleeps = []

    def sleep(seconds):
        sleeps.append(seconds)
        if len(sleeps) == 2:
            (run.folder / "hparams.json").write_text("{}")

    monkeypatch.setattr(follow.time, "sleep", sleep)
    follow.wait_for_run(str(run.folder))
    assert len(sleeps) == 2
    follow.wait_for_run(str(run.folder))
    assert capsys.readouterr().out == f"Waiting for a run in {run.folder}.\n"


def test_two_do_not_follow_one_run(run):
    run.save(1)
    with (
        locked(str(run.folder / "evals")),
        pytest.raises(ConfigError, match="evals is in use by .* --output_dir"),
    ):
        run.seen()


def test_following_leaves_the_run_as_it_is(run):
    run.save(1, 2)
    scratch = run.folder / "checkpoints" / "step-3_temp"
    scratch.mkdir()  # The training process is writing it.
    before = sorted((run.folder / "checkpoints").rglob("*"))
    run.seen()
    assert sorted((run.folder / "checkpoints").rglob("*")) == before
    names = {path.name for path in run.folder.iterdir()}
    assert names == {"checkpoints", "evals", "acc"}
    assert not (run.folder / "evals" / "lock").exists()


def test_validation_images_alone_are_enough(tmp_path):
    write_folders(tmp_path)
    config = tiny(
        tmp_path / "run",
        **run_settings(tmp_path),
        method="supervised",
        num_labeled=6,
        num_validation=3,
        num_train_steps=2,
    )
    Experiment(config).train()
    rows = list(Experiment(config).follow(forever=False))
    assert [row["step"] for row in rows] == [2]
    assert set(rows[0]) == {
        "step",
        "eval/validation/student",
        "eval/validation/student_raw",
    }
    assert json.loads((tmp_path / "run" / "acc").read_text())["images"] == (
        "validation"
    )
