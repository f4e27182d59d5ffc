"""What training notes of its plug-ins' source, and tells of it."""

import dataclasses
import json

import pytest

from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.stages import train as stage
from meta_pseudo_labels.utils.settings import ConfigError
from tests.plugin_source import source_writer
from tests.tiny_run import tiny

CHANGED = "--plugin=trained is not what the run in"


@pytest.fixture
def source(tmp_path_factory, monkeypatch):
    """A function that gives the plug-in `trained` a source, as at a start."""
    return source_writer("trained", tmp_path_factory, monkeypatch)


def train(folder, **settings):
    settings = dict(method="supervised", plugins="trained") | settings
    Experiment(tiny(folder, **settings)).train()


def noted(folder):
    return json.loads((folder / "plugins.json").read_text())["trained"]


def test_a_run_that_goes_on_with_another_source_says_so(
    source, tmp_path, caplog
):
    source("FACTOR = 1\n")
    train(tmp_path, num_train_steps=2)
    source("FACTOR = -1000\n")
    train(tmp_path, num_train_steps=3, allow_hparam_change=True)
    assert list(noted(tmp_path)) == ["0", "2"]
    assert caplog.text.count(CHANGED) == 1
    assert (
        "To get a result of one version only, undo the change, or start over "
        "with --reset_output_dir.\n"
    ) in caplog.text
    # From the start there is one source, the new one; the old list is not read.
    (tmp_path / "plugins.json").write_text("{")
    train(tmp_path, num_train_steps=1, reset_output_dir=True)
    assert list(noted(tmp_path)) == ["0"]
    assert caplog.text.count(CHANGED) == 1


def test_a_plug_in_that_failed_before_any_checkpoint_is_forgotten(
    source, tmp_path, monkeypatch, caplog
):
    def fail(*arguments):
        raise RuntimeError("in the first step")

    source("FACTOR = None\n")
    with monkeypatch.context() as broken:
        broken.setattr(stage, "_fit", fail)
        with pytest.raises(RuntimeError, match="first step"):
            train(tmp_path, num_train_steps=1)
    failed = noted(tmp_path)
    source("FACTOR = 1\n")
    train(tmp_path, num_train_steps=1)
    assert list(noted(tmp_path)) == ["0"] and noted(tmp_path) != failed
    assert CHANGED not in caplog.text


def test_the_best_on_test_images_needs_some(tmp_path):
    """Validation images do not stand in for them without a word."""
    experiment = Experiment(
        tiny(tmp_path, best_on="test", num_validation=10, num_labeled=40)
    )
    images = experiment.data
    experiment.data = dataclasses.replace(
        images,
        test_images=images.test_images[:0],
        test_labels=images.test_labels[:0],
    )
    with pytest.raises(ConfigError) as caught:
        experiment.train()
    assert str(caught.value) == (
        "--best_on=test: 'digits' has no test images; give some, for folders "
        "with --eval_dir, or choose on those of --num_validation."
    )
    assert not (tmp_path / "hparams.json").exists()


def test_a_run_is_not_deleted_where_its_plug_ins_cannot_be_noted(
    source, tmp_path, monkeypatch
):
    def fail(*arguments, **more):
        raise ConfigError("no plug-ins")

    source("FACTOR = 1\n")
    train(tmp_path, num_train_steps=1)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(stage, "plugin_sources", fail)
    with pytest.raises(ConfigError, match="no plug-ins"):
        train(tmp_path, num_train_steps=1, reset_output_dir=True)
    assert sorted(tmp_path.rglob("*")) == before
