"""What every task mode says of itself, and what others make of it."""

import dataclasses
import types

import pytest

from meta_pseudo_labels.run import command, experiment
from meta_pseudo_labels.run.closing import closing_summary
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.config.core import free_settings
from meta_pseudo_labels.run.folder import run_files
from meta_pseudo_labels.run.stages import STAGES, RunFile, Stage
from meta_pseudo_labels.utils.settings import ConfigError, command_for, setting
from tests.run.folder_reset_test import contents, reset


class Count(Stage):
    help = "Count."
    files = (
        RunFile("counts/*.txt", "how many there are", shown=True),
        RunFile("absent.txt", "never written", shown=True),
        RunFile("hidden.txt", "an aside"),
    )
    next = "train"


@pytest.fixture
def count(monkeypatch):
    """A task mode that a plug-in registered."""
    monkeypatch.setattr(STAGES, "_found", dict(STAGES.items()))
    STAGES.register("count")(Count)


@pytest.fixture
def counted(tmp_path):
    """The folder of a run in which it ran, and a stranger's file."""
    (tmp_path / "hparams.json").write_text(Config().to_json())
    (tmp_path / "counts").mkdir()
    for name in ("counts/one.txt", "counts.txt", "hidden.txt"):
        (tmp_path / name).write_text("1")
    return tmp_path


def test_every_task_mode_is_registered():
    assert set(STAGES) == {
        "train",
        "finetune",
        "eval",
        "evals",
        "eval_forever",
        "export",
        "inspect",
        "cache_labels",
        "report",
        "review",
        "diagnose",
        "inference",
    }


@pytest.mark.parametrize("name", STAGES)
def test_a_task_mode_says_what_it_does_in_one_line(name):
    text = STAGES[name].help
    assert text.endswith(".") and "\n" not in text and text[0].isupper()
    assert STAGES[name].next in (None, *STAGES)
    assert STAGES[name].run is not Stage.run


def test_only_training_trains():
    assert [name for name in STAGES if STAGES[name].trains] == ["train"]
    assert {name for name in STAGES if not STAGES[name].needs_run} == {
        "train",
        "inspect",
    }


def test_help_of_a_plug_in_begins_with_its_own_flags(
    count, monkeypatch, capsys
):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Limits:
        count_limit: int = setting(10, "The most that is counted.", low=0)

    monkeypatch.setattr(Count, "settings", (Limits,))
    monkeypatch.setattr(command, "define_flags", lambda **_: None)
    with pytest.raises(SystemExit):
        command.start("mpl", ["--help"], typed=(), task_mode="count")
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:5:2] == ["Count.", "Flags of mpl count:"]
    assert lines[5].startswith("  --count_limit: The most that is counted.")


def test_a_setting_of_ours_is_free_by_its_own_word_alone():
    """Though `inspect`, which trains nothing, names those of data its own."""
    assert "diagnose_lr" in free_settings()
    assert "dataset" not in free_settings()


def test_a_reset_deletes_what_a_plug_in_left(count, counted):
    assert {"counts", "absent.txt", "hidden.txt"} < set(run_files())
    assert run_files()[-1] == "hparams.json"
    reset(counted)
    assert contents(counted) == {"counts.txt"}


def test_the_closing_summary_names_what_is_there(count, counted):
    config = types.SimpleNamespace(task_mode="count", output_dir=str(counted))
    data = types.SimpleNamespace(skipped=["a.png"])
    text = closing_summary(types.SimpleNamespace(config=config, data=data))
    assert text.splitlines()[:2] == [
        "  counts/*.txt   how many there are",
        f"Next: mpl train --output_dir={counted}",
    ]
    assert "a.png" in text.splitlines()[2]


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("elsewhere/main.py", "python main.py --task_mode=eval --output_dir="),
        (".venv/bin/mpl", "mpl eval --output_dir="),
        ("meta_pseudo_labels/__main__.py", "mpl eval --output_dir="),
    ],
)
def test_the_next_command_is_of_the_program_that_runs(
    monkeypatch, program, command
):
    monkeypatch.setattr("sys.argv", [program])
    assert command_for("eval", "my run") == f"{command}'my run'"
    assert command_for("eval", "<the run>") == f"{command}<the run>"


def test_checkpoints_and_events_are_told_of_by_their_content(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for step in (2, 10):
        (tmp_path / "checkpoints" / f"step-{step}.index").write_text("")
    (tmp_path / "events").mkdir()
    config = Config(output_dir=str(tmp_path))
    data = types.SimpleNamespace(skipped=[])
    text = closing_summary(types.SimpleNamespace(config=config, data=data))
    assert text.splitlines() == [
        "  checkpoints    step-2, step-10",
        "  events         the same for TensorBoard: tensorboard "
        f"--logdir={tmp_path}/events",
        f"Next: mpl finetune --output_dir={tmp_path}",
    ]


def test_a_diagnosis_needs_feedback():
    config = types.SimpleNamespace(method="uda")
    with pytest.raises(ConfigError, match="--method=uda has none"):
        STAGES["diagnose"].check(config)


@pytest.mark.parametrize("name", run_files())
def test_the_experiment_tells_of_every_file_of_a_run(name):
    assert name in experiment.__doc__
