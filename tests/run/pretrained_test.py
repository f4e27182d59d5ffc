"""Runs that begin with weights from elsewhere."""

import dataclasses
import functools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.data.spec import DATASETS
from meta_pseudo_labels.learners.build import build_learner, build_model
from meta_pseudo_labels.run.checkpoints import Checkpoints
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.labeled_choice import has_classes
from meta_pseudo_labels.run.pretrained import (
    check_weights,
    load_first_weights,
)
from meta_pseudo_labels.run.restoring import learner_state, restore_start
from meta_pseudo_labels.utils.settings import ConfigError
from tests.models.helpers import randomize
from tests.tiny_run import tiny

EARLY = dict(num_train_steps=1, save_every=1)  # The student waits for a step.


def assert_same(one, other):
    """Equal weights; seeds of dropout apart."""
    for ours, theirs in zip(floats(one), floats(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def floats(model):
    return [v.numpy() for v in model.weights if "float" in v.dtype]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """(network, its file): of seven classes, where the digits have ten."""
    donor = models.build("mlp", input_shape=(8, 8, 3), num_classes=7)
    randomize(donor)
    path = str(tmp_path_factory.mktemp("donor") / "donor.weights.h5")
    donor.save_weights(path)
    return donor, path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run that ended, not finetuned: its `Experiment`."""
    run = Experiment(tiny(tmp_path_factory.mktemp("source") / "run"))
    run.train()
    return run


def test_a_run_begins_with_a_file_and_says_what_it_took(file, tmp_path):
    donor, path = file
    config = tiny(
        tmp_path / "run", student_weights=path, teacher_weights=path, **EARLY
    )
    run = Experiment(config)
    run.train()
    for layer in ("hidden_1.dense", "hidden_2.dense"):
        ours = run.learner.student.get_layer(layer)
        assert_same(ours, donor.get_layer(layer))
    average = run.learner.student_ema.averages[0]
    np.testing.assert_array_equal(average, donor.weights[0])
    said = json.loads((tmp_path / "run" / "weights.json").read_text())
    assert set(said) == {"student", "teacher"}
    for report in said.values():
        assert report["source"] == path and len(report["sha256"]) == 64
        assert len(report["matched"]) == 4
        assert report["head"] == ["head.dense/0", "head.dense/1"]
        assert report["mismatched"][0] == ["head.dense/0", [128, 7], [128, 10]]
    hparams = json.loads((tmp_path / "run" / "hparams.json").read_text())
    assert hparams["student_weights"] == path


@pytest.mark.long
def test_the_runs_own_checkpoint_comes_first(source, tmp_path):
    """A file that is gone is needed no more, nor missed."""
    folder = tmp_path / "run"
    shutil.copytree(source.output_dir, folder)
    gone = dict(student_weights="gone.keras", allow_hparam_change=True)
    run = Experiment(tiny(folder, **gone))
    assert not run.train()
    assert_same(run.learner.student, source.trained_learner().student)
    assert not (folder / "weights.json").exists()


OTHERS = tuple("abcdefghij")  # Classes, as many as those of the digits.


def test_the_last_layer_is_new_if_the_other_run_has_other_classes(
    source, tmp_path
):
    config = tiny(tmp_path / "run", student_weights=source.output_dir)
    learner = build_learner(config, source.data.spec)
    same = source.data.spec.class_names
    assert not load_first_weights(learner, config, same)["student"].head
    report = load_first_weights(learner, config, OTHERS)["student"]
    assert len(report.head) == 2 and not report.missing
    for ours in learner.student.layers[-1].get_weights():
        assert not ours.any()


def test_classes_are_those_of_the_run_around_a_file(source, tmp_path, logged):
    folder = tmp_path / "run"
    shutil.copytree(source.output_dir, folder)
    same = source.data.spec.class_names
    for place in ("saved_model/1/assets.extra/student.keras", "finetune/x.h5"):
        assert has_classes(f"{folder}/{place}", same)
        assert not has_classes(f"{folder}/{place}", OTHERS)
    assert has_classes(f"{tmp_path}/elsewhere/x.h5", OTHERS)
    assert not logged
    (folder / "labeled.json").write_text("{")
    assert has_classes(str(folder), OTHERS)
    assert "not known whether its classes" in logged[0]


@pytest.mark.parametrize("place", ["", "/checkpoints", "/checkpoints/step-4"])
def test_a_checkpoint_of_a_run_with_other_classes_is_refused(
    source, tmp_path, place
):
    path = source.output_dir + place
    config = tiny(tmp_path / "run", load_checkpoint=path, num_train_steps=9)
    learner = build_learner(config, source.data.spec)
    start = functools.partial(
        restore_start,
        learner,
        config,
        Checkpoints(learner_state(learner), config.output_dir),
        fresh=False,
    )
    with pytest.raises(ConfigError, match="other classes than a, b.*--student"):
        start(class_names=OTHERS)
    assert start(class_names=source.data.spec.class_names) == 4


@pytest.mark.long
def test_another_runs_student_is_that_of_its_average(source, tmp_path):
    path = source.output_dir
    config = tiny(tmp_path / "run", student_weights=path, **EARLY)
    run = Experiment(config)
    reports = load_first_weights(run.learner, config)
    assert not reports["student"].head and not reports["student"].left_over
    trained = source.trained_learner()
    averages = trained.student_ema.averages
    for ours, theirs in zip(floats(run.learner.student), averages, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    raw = floats(trained.student)
    assert any(np.any(a != b) for a, b in zip(raw, averages, strict=True))


def test_of_another_run_the_finetuned_student_is_taken(source, tmp_path):
    folder = tmp_path / "source"
    shutil.copytree(source.output_dir, folder)
    student = models.build("mlp", input_shape=(8, 8, 3), num_classes=10)
    randomize(student)
    (folder / "finetune").mkdir()
    student.save_weights(folder / "finetune" / "from-step-4.weights.h5")
    # Of a step before training went on.
    source.learner.student.save_weights(
        folder / "finetune" / "from-step-2.weights.h5"
    )
    config = tiny(tmp_path / "run", teacher_weights=str(folder))
    learner = build_learner(config, source.data.spec)
    assert set(load_first_weights(learner, config)) == {"teacher"}
    assert_same(learner.teacher, student)


def test_two_replicas_begin_with_the_same(file, source, mirrored, tmp_path):
    config = tiny(
        tmp_path / "run",
        student_weights=file[1],
        teacher_weights=source.output_dir,
        model_type="mlp",
    )
    with mirrored(2).scope():
        learner = build_learner(config, source.data.spec)
    load_first_weights(learner, config)
    trained = source.trained_learner().student_ema.averages
    for network, wanted in (
        (learner.student, file[0].weights[:4]),
        (learner.teacher, trained),
    ):
        ours = [v for v in network.weights if "float" in v.dtype]
        for variable, value in zip(ours, wanted, strict=False):
            for copy in variable.value.values:
                np.testing.assert_array_equal(copy, value)


@pytest.mark.parametrize("flag", ["student_weights", "teacher_weights"])
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere.keras", "There is no file"),
        ("wrn.weights.h5", "another network"),
        ("empty", "no checkpoint in it"),
        ("pickled.pt", "is not a .weights.h5 or .keras file"),
    ],
)
def test_what_fits_nothing_ends_the_run_before_it_begins(
    tmp_path, flag, path, words
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "pickled.pt").write_bytes(b"1")
    if path.startswith("wrn"):
        wrn = models.build("wrn-10-1", input_shape=(8, 8, 3), num_classes=10)
        wrn.save_weights(tmp_path / path)
    config = tiny(tmp_path / "run", **{flag: str(tmp_path / path)})
    with pytest.raises(ConfigError, match=f"--{flag}=.*{words}") as raised:
        Experiment(config).train()
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run" / "hparams.json").exists()


def test_weights_within_what_a_reset_deletes_are_refused(source, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(source.output_dir, folder)
    config = tiny(folder, student_weights=str(folder), reset_output_dir=True)
    with pytest.raises(ConfigError, match="--student_weights=.*would empty"):
        Experiment(config)
    assert (folder / "checkpoints").exists()


def test_two_beginnings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="leave one of them out"):
        tiny(tmp_path, load_checkpoint="a", teacher_weights="b.keras")


@pytest.mark.long
def test_networks_of_keras_see_their_own_pixels_where_they_have_weights():
    spec = DATASETS["cifar10"]
    fresh = Config(model_type="MobileNet")
    for settings, role, wanted in (
        (dict(), "student", False),
        (dict(student_weights="imagenet"), "student", True),
        (dict(student_weights="imagenet"), "teacher", False),
        (dict(teacher_weights="imagenet"), "teacher", True),
        (dict(preprocessing="network"), "student", True),
        (
            dict(student_weights="a.h5", preprocessing="dataset"),
            "student",
            False,
        ),
    ):
        config = dataclasses.replace(fresh, **settings)
        with tf.Graph().as_default():  # No weights are made.
            model = build_model(config, spec, role=role)
        kinds = [type(one).__name__ for one in model.operations[1:3]]
        assert (kinds == ["Multiply", "Add"]) == wanted, (settings, role)


def test_a_preprocessing_that_no_network_has_is_refused():
    with pytest.raises(ConfigError, match="network is not for mlp: only"):
        Config(model_type="mlp", preprocessing="network")


def test_imagenet_is_for_networks_of_keras(tmp_path):
    config = tiny(tmp_path / "run", student_weights="imagenet")
    with pytest.raises(ConfigError, match="for networks of keras.applications"):
        Experiment(config)


@pytest.mark.parametrize("place", ["", "/finetune/from-step-4.weights.h5"])
def test_a_run_that_saw_other_pixels_is_refused(tmp_path, place):
    """By its settings; its network need not be built for it."""
    before = Config(model_type="MobileNet", image_size=32)
    for name in ("finetune/from-step-4.weights.h5", "checkpoints/step-4.index"):
        (tmp_path / "before" / name).parent.mkdir(parents=True)
        (tmp_path / "before" / name).touch()
    (tmp_path / "before" / "hparams.json").write_text(before.to_json())
    config = Config(
        model_type="MobileNet",
        student_weights=f"{tmp_path}/before{place}",
        output_dir=str(tmp_path / "run"),
    )
    with pytest.raises(ConfigError, match="give --preprocessing=dataset too"):
        check_weights(config)
    check_weights(dataclasses.replace(config, preprocessing="dataset"))


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize("task_mode", ["inspect", "train"])
def test_a_look_at_a_run_to_come_misses_its_weights_too(
    tmp_path, role, task_mode
):
    weights = {f"{role}_weights": "gone.keras"}
    config = tiny(tmp_path, task_mode=task_mode, **weights)
    with pytest.raises(ConfigError, match=f"--{role}_weights=gone.keras: "):
        Experiment(config)
