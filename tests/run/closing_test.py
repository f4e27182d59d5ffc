"""Commands that a run prints can be pasted, whatever its folder is called."""

import json
import re
import shlex
import types

import pytest

from meta_pseudo_labels.run import closing, teacher_labels
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.pages.report import report_page
from meta_pseudo_labels.run.pages.run_files import RunFiles
from meta_pseudo_labels.run.stages.evaluate import EvaluationReport


@pytest.mark.parametrize("name", ["plain", "with a blank", "$(id)", "a;b", "'"])
def test_paths_in_commands_are_quoted(tmp_path, monkeypatch, name):
    monkeypatch.setattr(closing.inspection, "skip_summary", lambda data: "")
    folder = tmp_path / name
    (folder / "events").mkdir(parents=True)
    config = Config(output_dir=str(folder))
    experiment = types.SimpleNamespace(config=config, data=None)
    lines = closing.closing_summary(experiment).split("\n")
    (following,) = [line for line in lines if line.startswith("Next: ")]
    words = shlex.split(following.removeprefix("Next: "))
    assert words == ["mpl", "finetune", f"--output_dir={folder}"]
    (events,) = [line for line in lines if "tensorboard" in line]
    assert shlex.split(events)[-1] == f"--logdir={folder}/events"
    command = teacher_labels._command(folder)
    assert shlex.split(command)[-1] == f"--output_dir={folder}"


@pytest.mark.parametrize(
    ("method", "networks", "task"),
    [
        ("mpl", ["student", "teacher"], "finetune"),
        ("mpl", ["finetuned", "student"], "export"),
        ("uda", ["student"], "export"),
        ("mpl", None, "export"),  # Of other images: it is not known.
    ],
)
def test_a_student_of_mpl_is_finetuned_before_it_is_exported(
    tmp_path, monkeypatch, method, networks, task
):
    monkeypatch.setattr(closing.inspection, "skip_summary", lambda data: "")
    config = Config(task_mode="eval", method=method, output_dir=str(tmp_path))
    if networks is not None:
        found = types.SimpleNamespace(top_1=0.5)
        report = EvaluationReport(
            images="the test images of digits",
            step=1,
            networks=dict.fromkeys(networks, found),
            validation=dict.fromkeys(networks[:1], found),
        )
        text = json.dumps(report.accuracies)  # As `save` writes it.
        (tmp_path / "eval.json").write_text(text)
    experiment = types.SimpleNamespace(config=config, data=None)
    line = closing.closing_summary(experiment).split("\n")[-1]
    assert line.startswith(f"Next: mpl {task} --output_dir=")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("mpl", ["finetune", "eval", "export"]),
        ("supervised", ["eval", "export"]),
        ("uda", ["eval", "export"]),
        ("unknown", ["finetune", "eval", "export"]),
    ],
)
def test_the_page_and_the_command_name_the_same_next(tmp_path, method, path):
    config = types.SimpleNamespace(task_mode="train", method=method)
    assert closing.following(config) == path[0]
    (tmp_path / "hparams.json").write_text(json.dumps({"method": method}))
    page = report_page(RunFiles(tmp_path))
    told = re.findall(r"mpl (\w+) --output_dir", page)
    assert told[: len(path)] == path and len(set(told)) == len(told)
