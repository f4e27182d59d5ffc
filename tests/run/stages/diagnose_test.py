"""--task_mode=diagnose: a run's folder before and after."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from matplotlib.image import imread

from meta_pseudo_labels import data
from meta_pseudo_labels.data.streams.records import Records
from meta_pseudo_labels.evaluation.diagnosis.probes import Probes
from meta_pseudo_labels.learners.feedback import ESTIMATORS
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.stages.diagnose import (
    diagnose_run,
    held_out_images,
    held_out_part,
)
from meta_pseudo_labels.utils.checkpoint_files import CheckpointError
from meta_pseudo_labels.utils.settings import ConfigError
from tests.tiny_run import tiny

DIAGNOSE = dict(task_mode="diagnose", diagnose_batches=2, diagnose_draws=2)


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(pathlib.Path(folder).rglob("*"))
        if path.is_file()
    }


@pytest.mark.long
def test_a_run_is_diagnosed_at_its_end_and_left_as_it_was(tmp_path):
    """Where the cosine schedule has brought the student's rate to 0."""
    config = tiny(tmp_path / "run", lr_decay_type="cosine")
    Experiment(config).train()
    before = contents(config.output_dir)
    config = dataclasses.replace(config, **DIAGNOSE)
    experiment = Experiment(config)
    text = experiment.diagnose()
    after = contents(config.output_dir)
    assert set(after) - set(before) == {
        pathlib.Path("diagnosis.json"),
        pathlib.Path("diagnosis.png"),
    }
    assert all(after[path] == before[path] for path in before)
    assert float(experiment.learner.optimizer.learning_rate) < 1e-8

    folder = pathlib.Path(config.output_dir)
    found = json.loads((folder / "diagnosis.json").read_text())
    settings = found["settings"]
    assert (settings["batches"], settings["draws"]) == (2, 2)
    assert settings["start_step"] == 4
    assert settings["held_out_part"] == "test"
    assert " on 500 test images, " in text
    # The peak, per 256 images; a batch has 4.
    assert settings["learning_rate"] == pytest.approx(4 / 256)
    assert list(found["estimators"]) == list(ESTIMATORS)
    assert found["estimators"]["exact"]["norm_ratio"] > 1e-6
    for name in ("release", "off"):
        assert found["estimators"][name]["norm_ratio"] < 1e-6
        assert name in text
    assert imread(folder / "diagnosis.png").shape[0] > 500


@pytest.mark.long
def test_another_rate_and_a_held_out_feedback_split(tmp_path):
    config = tiny(tmp_path / "run", num_labeled=40, num_feedback=10)
    Experiment(config).train()
    config = dataclasses.replace(config, diagnose_lr=0.5, **DIAGNOSE)
    Experiment(config).diagnose()
    path = pathlib.Path(config.output_dir) / "diagnosis.json"
    settings = json.loads(path.read_text())["settings"]
    assert settings["learning_rate"] == pytest.approx(0.5)


@pytest.mark.long
def test_what_is_not_finite_ends_it_on_the_first_batch(tmp_path, monkeypatch):
    """A rate far too high, then a run that has diverged itself."""
    config = tiny(tmp_path / "run", num_train_steps=2)
    Experiment(config).train()
    probes = []
    probe = Probes.probe
    monkeypatch.setattr(
        Probes,
        "probe",
        lambda *args, **kwargs: probes.append(1) or probe(*args, **kwargs),
    )
    config = dataclasses.replace(config, **DIAGNOSE)
    with pytest.raises(ConfigError, match="not finite after .*--diagnose_lr"):
        Experiment(dataclasses.replace(config, diagnose_lr=1e30)).diagnose()
    assert len(probes) == 1

    learner = Experiment(config).trained_learner()
    weight = learner.student.trainable_variables[-1]  # No ReLU after it.
    weight.assign(np.full(weight.shape, np.nan))
    with pytest.raises(ConfigError, match="before any step. The run has div"):
        diagnose_run(learner, config, Experiment(config).data)
    assert len(probes) == 1
    assert not (tmp_path / "run" / "diagnosis.json").exists()


def test_without_a_checkpoint_it_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint: train"):
        Experiment(tiny(tmp_path, **DIAGNOSE)).diagnose()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["supervised", "uda"])
def test_other_methods_have_no_feedback(tmp_path, method):
    with pytest.raises(ConfigError, match=f"--method={method} has none"):
        tiny(tmp_path, method=method, **DIAGNOSE)


@pytest.mark.parametrize(
    ("name", "value"),
    [("diagnose_batches", 1), ("diagnose_draws", 1), ("diagnose_lr", 0.0)],
)
def test_numbers_out_of_range_are_named(tmp_path, name, value):
    with pytest.raises(ConfigError, match=f"--{name}={value} is too small"):
        tiny(tmp_path, **{name: value})


@pytest.mark.long
def test_a_student_that_never_learns_is_refused(tmp_path):
    config = tiny(tmp_path / "run", mpl_student_lr=0.0)
    Experiment(config).train()
    config = dataclasses.replace(config, **DIAGNOSE)
    with pytest.raises(ConfigError, match="--diagnose_lr"):
        Experiment(config).diagnose()
    assert not (tmp_path / "run" / "diagnosis.json").exists()


def arrays(tests):
    """Labeled images of level 0 and test images of levels 1, 2, ..."""
    images = np.full([3, 8, 8, 3], 0, np.uint8)
    levels = np.arange(1, tests + 1, dtype=np.uint8)
    return data.from_arrays(
        images,
        np.array([0, 1, 1]),
        images,
        test_images=np.tile(levels[:, None, None, None], [1, 8, 8, 3]),
        test_labels=levels % 2,
        mean=(0.0, 0.0, 0.0),
        std=(1 / 255, 1 / 255, 1 / 255),
    )


def test_held_out_images_are_test_images_with_their_labels():
    images, labels = held_out_images(arrays(9), count=4, seed=0)
    levels = np.rint(images[:, 0, 0, 0]).astype(int)
    assert len(set(levels)) == 4 and set(levels) <= set(range(1, 10))
    np.testing.assert_array_equal(labels, levels % 2)
    others, _ = held_out_images(arrays(9), count=4, seed=1)
    assert np.any(others != images)
    everything, _ = held_out_images(arrays(9), count=99, seed=0)
    assert np.rint(everything[:, 0, 0, 0]).tolist() == list(range(1, 10))


def test_images_of_a_validation_split_come_first():
    images = arrays(9)
    kept = dataclasses.replace(
        images,
        validation_images=images.test_images[:1] + 100,
        validation_labels=images.test_labels[:1],
    )
    assert held_out_part(kept) == "validation"
    found, labels = held_out_images(kept, count=4, seed=0)
    assert np.rint(found[:, 0, 0, 0]).tolist() == [101]
    assert labels.numpy().tolist() == [1]


def test_without_held_out_images_there_is_no_diagnosis():
    with pytest.raises(ValueError, match="has no test images"):
        held_out_images(arrays(0), count=4, seed=0)


def test_records_in_files_are_taken_by_their_places():
    records = Records(
        paths=("a", "b"),
        shards=np.array([0, 0, 1], np.int32),
        offsets=np.array([0, 7, 0]),
        parse=None,
    )
    taken = records[np.array([1, 2])]
    assert taken.shards.tolist() == [0, 1]
    assert taken.offsets.tolist() == [7, 0]
