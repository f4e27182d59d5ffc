"""What a run keeps of the source of its plug-ins."""

import json
import sys

import pytest

from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.pages.compare import conditions_of
from meta_pseudo_labels.run.pages.run_files import RunFiles
from meta_pseudo_labels.utils.plugins import source_files
from tests.tiny_run import tiny

CHANGED = "its source changed"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The file of a plug-in `my_plugin`, which registers nothing."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_plugin", raising=False)
    path = tmp_path / "my_plugin.py"
    path.write_text("FACTOR = 1\n")
    return path


def train(folder, **settings):
    settings = dict(method="supervised", plugins="my_plugin") | settings
    Experiment(tiny(folder, **settings)).train()


def known(folder):
    return json.loads((folder / "plugins.json").read_text())["my_plugin"]


def test_a_run_that_goes_on_with_another_source_says_so(
    module, tmp_path, caplog
):
    folder = tmp_path / "run"
    train(folder, num_train_steps=2)
    train(folder, num_train_steps=3, allow_hparam_change=True)
    assert len(known(folder)) == 1 and CHANGED not in caplog.text
    module.write_text("FACTOR = -1000\n")
    train(folder, num_train_steps=4, allow_hparam_change=True)
    assert len(set(known(folder))) == 2
    assert caplog.text.count(CHANGED) == 1
    # From the start there is one source, the new one.
    train(folder, reset_output_dir=True)
    assert len(known(folder)) == 1
    assert caplog.text.count(CHANGED) == 1


def test_runs_of_different_sources_are_not_put_together(module, tmp_path):
    runs = []
    for seed, source in enumerate(("FACTOR = 1", "FACTOR = 1", "FACTOR = 2")):
        module.write_text(source)
        train(tmp_path / str(seed), seed=seed, num_train_steps=1)
        runs.append(RunFiles(tmp_path / str(seed)))
    groups = conditions_of(runs)
    assert [len(group.runs) for group in groups] == [2, 1]
    assert all("my_plugin (" in group.settings["plugins"] for group in groups)


def test_runs_without_plugins_keep_nothing_of_them(tmp_path):
    Experiment(
        tiny(tmp_path / "run", method="supervised", num_train_steps=1)
    ).train()
    assert not (tmp_path / "run" / "plugins.json").exists()


def test_the_source_of_a_package_is_all_its_modules():
    found = source_files("meta_pseudo_labels.utils,tests.tiny_run")
    assert [path.rpartition("/")[2] for path in found["tests.tiny_run"]] == [
        "tiny_run.py"
    ]
    files = found["meta_pseudo_labels.utils"]
    assert any(path.endswith("utils/plugins.py") for path in files)
    assert len(files) > 5
