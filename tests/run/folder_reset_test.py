"""What a reset deletes, and what it never does."""

import os
import subprocess
import sys

import pytest

from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.folder import RunFolder, resets, run_files
from meta_pseudo_labels.run.stages import RunFile
from meta_pseudo_labels.utils import deleting
from meta_pseudo_labels.utils.settings import ConfigError


def reset(folder):
    RunFolder(str(folder)).reset()


def contents(folder):
    """All paths in a folder, relative; links are not followed."""
    return {
        os.path.relpath(os.path.join(where, name), folder)
        for where, folders, files in os.walk(folder)
        for name in folders + files
    }


# What killed processes left as they wrote, now and in earlier versions.
LEFT = "hparams.json.part", "hparams.json.0123abcd-12.part"


@pytest.fixture
def run(tmp_path):
    """A folder with all that a run writes, and a stranger's file."""
    folder = tmp_path / "run"
    for name in run_files():
        path = folder / name
        if "." in name:
            path.parent.mkdir(exist_ok=True)
            path.write_text("{}")
        else:
            (path / "deep").mkdir(parents=True)
            (path / "deep" / "file").write_text("")
    (folder / "hparams.json").write_text(Config().to_json())
    for name in LEFT:
        (folder / name).write_text("{")
    (folder / "notes.txt").write_text("precious")
    return folder


def test_a_reset_deletes_the_run_and_nothing_else(run):
    reset(run)
    assert contents(run) == {"notes.txt"}


@pytest.mark.fast("inference/a.parts")
@pytest.mark.parametrize("name", ["finetune", "evals", "inference/a.parts"])
def test_what_another_process_is_writing_is_not_deleted(run, name):
    before = contents(run)
    code = (
        "import sys, time\n"
        "from meta_pseudo_labels.utils.files import locked\n"
        "with locked(sys.argv[1]):\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run / name)],
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "locked\n"
        for refused in (RunFolder.reset, RunFolder.check_reset):
            with pytest.raises(ConfigError, match="is in use by process"):
                refused(RunFolder(str(run)))
        other.kill()
    assert before < contents(run)
    reset(run)  # A lock that a killed process left is in nobody's way.
    assert contents(run) == {"notes.txt"}


@pytest.mark.parametrize(
    "settings",
    [
        dict(reset_output_dir=False),
        dict(reset_output_dir=True, task_mode="finetune"),
        dict(reset_output_dir=True, task_mode="eval"),
        dict(reset_output_dir=True, task_mode="export"),
    ],
)
def test_only_a_training_that_asks_for_it_resets(run, settings):
    before = contents(run)
    config = Config(output_dir=str(run), **settings)
    assert not resets(config)
    Experiment(config)
    assert contents(run) == before


def test_nothing_is_reset_before_training(run):
    before = contents(run)
    config = Config(output_dir=str(run), reset_output_dir=True)
    assert resets(config)
    Experiment(config)
    assert contents(run) == before


def test_a_folder_that_holds_no_run_has_nothing_to_reset(tmp_path):
    reset(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    reset(tmp_path)
    assert tmp_path.is_dir()


@pytest.mark.parametrize(
    "hparams",
    [None, '{"num_train_steps": 3, "dataset_name": "cifar10"}', "{}"],
    ids=["none", "of the release", "empty"],
)
def test_a_folder_of_another_program_is_not_reset(run, hparams):
    (run / "hparams.json").unlink()
    if hparams is not None:
        (run / "hparams.json").write_text(hparams)
    before = contents(run)
    with pytest.raises(ConfigError, match="nothing was deleted") as caught:
        reset(run)
    assert str(run) in str(caught.value)
    assert contents(run) == before


def test_a_repository_or_a_home_is_not_reset(run, monkeypatch):
    """Though a run was started right in it."""
    (run / ".git").mkdir()
    before = contents(run)
    with pytest.raises(ConfigError, match="is a git repository, so nothing"):
        reset(run)
    (run / ".git").rename(run / ".hg")
    with pytest.raises(ConfigError, match="is a hg repository, so nothing"):
        reset(run)
    (run / ".hg").rmdir()
    monkeypatch.setenv("HOME", str(run))
    with pytest.raises(ConfigError, match="is your home, so nothing"):
        reset(run)
    assert contents(run) == before - {".git"}


def test_a_run_that_was_killed_as_it_began_is_reset(tmp_path):
    """labeled.json comes before hparams.json, a look at the data before it."""
    for name in ("labeled.json", *LEFT, "data.json", "views.png"):
        (tmp_path / name).write_text("{")
    reset(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_root_is_not_reset():
    with pytest.raises(ConfigError, match="is the root of the file system"):
        RunFolder("/").check_reset()


def test_a_run_with_unreadable_settings_is_not_reset(run):
    (run / "hparams.json").write_text("{")
    before = contents(run)
    with pytest.raises(ConfigError, match="cannot be read"):
        reset(run)
    assert contents(run) == before


def test_a_reset_follows_no_links(run, tmp_path):
    precious = tmp_path / "precious"
    (precious / "checkpoints").mkdir(parents=True)
    (precious / "file").write_text("")
    (run / "saved_model" / "deep" / "file").unlink()
    (run / "saved_model" / "deep" / "link").symlink_to(precious)
    for name, target in (("linked", precious), ("broken", run / "absent")):
        (run / "events" / name).symlink_to(target)
    reset_link = run / "eval.json"
    reset_link.unlink()
    reset_link.symlink_to(precious)
    reset(run)
    assert contents(run) == {"notes.txt"}
    assert contents(precious) == {"checkpoints", "file"}


def test_a_run_with_a_mount_in_it_is_not_reset(run, monkeypatch):
    """Known before training is built, and before the first file goes."""
    place = os.path.realpath(run / "saved_model" / "deep")
    monkeypatch.setattr(deleting, "mount_points", lambda: {place})
    before = contents(run)
    config = Config(output_dir=str(run), reset_output_dir=True)
    for refuse in (lambda: Experiment(config), lambda: reset(run)):
        with pytest.raises(ConfigError, match="deep is a mount, so nothing"):
            refuse()
    assert contents(run) == before
    monkeypatch.undo()
    reset(run)


def test_a_stage_s_files_are_not_a_pattern_in_the_run_s_own_folder():
    with pytest.raises(ValueError, match="is a pattern, but a reset needs"):
        RunFile("*.csv", "what a reset would leave")
    RunFile("tables/*.csv", "what it deletes with their folder")


@pytest.mark.parametrize("path", ["/", "", "..", "../other", "/etc/passwd"])
def test_a_stage_has_no_files_outside(path):
    with pytest.raises(ValueError, match="not within a run's folder"):
        RunFile(path, "what a reset would delete")


def test_the_mark_of_a_run_is_deleted_last():
    """Otherwise a reset that was killed could not be repeated."""
    assert run_files()[-1] == "hparams.json"


def test_a_folder_called_done_is_not_deleted(tmp_path):
    (tmp_path / "done" / "work").mkdir(parents=True)
    with pytest.raises(ConfigError, match="done is not a file"):
        RunFolder(str(tmp_path)).mark_not_done()
    assert contents(tmp_path) == {"done", "done/work"}
