"""Runs of a network of KerasHub, from a preset on disk."""

import dataclasses
import hashlib
import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from meta_pseudo_labels.data.spec import DATASETS
from meta_pseudo_labels.learners.build import build_model
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.pretrained import check_weights, load_first_weights
from meta_pseudo_labels.utils.settings import ConfigError
from tests import tiny_presets
from tests.tiny_run import assert_same_weights, tiny

pytest.importorskip(
    "keras_hub", reason="keras-hub is not installed: pip install '.[hub]'"
)


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A folder, and the backbone that is in it."""
    folder = tmp_path_factory.mktemp("presets") / "resnet"
    return str(folder), tiny_presets.write(folder)


def of(folder, output_dir, **settings):
    """A run of student and teacher from a preset."""
    defaults = dict(
        model_type="keras_hub",
        student_weights=folder,
        teacher_weights=folder,
        mpl_student_lr=1e-3,
        mpl_teacher_lr=1e-3,
        finetune_lr=1e-3,
    )
    return tiny(output_dir, **defaults | settings)


@pytest.fixture(scope="module")
def trained(preset, tmp_path_factory):
    """A run that ended, in a folder that nobody writes to."""
    run = Experiment(of(preset[0], tmp_path_factory.mktemp("trained") / "run"))
    run.train()
    return run


def test_both_networks_begin_with_the_preset(preset, tmp_path):
    folder, backbone = preset
    config = of(folder, tmp_path / "run", mpl_student_lr=0.0)
    run = Experiment(config)
    load_first_weights(run.learner, config)
    for network in (run.learner.student, run.learner.teacher):
        ours = network.get_layer("backbone").weights
        for got, wanted in zip(ours, backbone.weights, strict=True):
            np.testing.assert_array_equal(got, wanted)
        assert not np.any(network.layers[-1].kernel)


def test_the_run_says_which_network_it_is_and_what_it_read(preset, trained):
    folder = pathlib.Path(trained.output_dir)
    hparams = json.loads((folder / "hparams.json").read_text())
    assert hparams["model_type"] == f"keras_hub:{preset[0]}"
    assert hparams["student_weights"] == preset[0]
    assert hparams["teacher_model_type"] is None
    weights = pathlib.Path(preset[0], "model.weights.h5").read_bytes()
    said = json.loads((folder / "weights.json").read_text())
    assert set(said) == {"student", "teacher"}
    for report in said.values():
        assert report["source"] == preset[0]
        assert report["sha256"] == hashlib.sha256(weights).hexdigest()
        assert report["head"] == ["head.dense/0", "head.dense/1"]
        assert len(report["matched"]) == len(preset[1].weights)
        assert not report["missing"] and not report["left_over"]


@pytest.mark.long
def test_later_stages_build_it_again(trained, tmp_path):
    """Of what the run keeps alone, as in a process of their own."""
    folder = tmp_path / "run"
    shutil.copytree(trained.output_dir, folder)
    settings = json.loads((folder / "hparams.json").read_text())
    for stage in ("finetune", "eval", "export"):
        now = settings | dict(task_mode=stage, output_dir=str(folder))
        experiment = Experiment(Config(**now))
        getattr(experiment, {"eval": "evaluate"}.get(stage, stage))()
    served = tf.saved_model.load(f"{folder}/saved_model/1")
    digits = experiment.data
    levels = tf.constant(digits.test_images[:3])
    outputs = served.signatures["serving_default"](levels)
    assert {3} == {len(value) for value in outputs.values()}


@pytest.mark.long
def test_a_run_goes_on_as_one_that_was_not_stopped(preset, trained, tmp_path):
    half = of(preset[0], tmp_path / "half", num_train_steps=4, save_every=2)
    shutil.copytree(trained.output_dir, tmp_path / "half")
    for path in (tmp_path / "half" / "checkpoints").glob("step-4*"):
        path.unlink()
    (tmp_path / "half" / "done").unlink()
    assert Experiment(half).train()
    assert_same_weights(half, trained.config)


def test_a_folder_that_is_gone_is_named_by_every_stage(
    preset, trained, tmp_path
):
    settings = json.loads(
        pathlib.Path(trained.output_dir, "hparams.json").read_text()
    )
    moved = shutil.copytree(preset[0], tmp_path / "moved")
    gone = str(tmp_path / "gone")
    settings["model_type"] = f"keras_hub:{gone}"
    with pytest.raises(ConfigError, match=f"no folder {gone}.*Put it there"):
        Config(**settings | dict(task_mode="eval"))
    # As the line says. The weights are those of the run's checkpoint.
    there = dict(model_type=f"keras_hub:{moved}", allow_hparam_change=True)
    config = Config(**settings | there | dict(task_mode="eval"))
    student = Experiment(config).trained_learner().student
    wanted = trained.trained_learner().student
    for got, want in zip(student.weights, wanted.weights, strict=True):
        np.testing.assert_array_equal(got, want)


def test_each_role_may_have_a_preset_of_its_own(preset, tmp_path):
    other = str(tmp_path / "vit")
    tiny_presets.write(other, tiny_presets.vit())
    settings = dict(teacher_weights=other, teacher_model_type="keras_hub")
    config = of(preset[0], tmp_path / "run", **settings)
    assert config.model_type == f"keras_hub:{preset[0]}"
    assert config.teacher_model_type == f"keras_hub:{other}"
    again = dataclasses.replace(config, seed=1)
    assert again.model_type == config.model_type
    # What is named in full stays as it is.
    mlp = dict(model_type="mlp", teacher_model_type=f"keras_hub:{other}")
    assert tiny(tmp_path, **mlp).teacher_model_type == f"keras_hub:{other}"


def test_its_pixels_are_in_front_where_it_has_weights(preset):
    spec = DATASETS["cifar10"]
    name = dict(model_type=f"keras_hub:{preset[0]}")
    for settings, wanted in (
        (dict(student_weights=preset[0]), True),
        (dict(), False),
        (dict(preprocessing="network"), True),
        (dict(student_weights=preset[0], preprocessing="dataset"), False),
    ):
        with tf.Graph().as_default():  # No weights are made.
            model = build_model(
                Config(**name, **settings), spec, role="student"
            )
        kinds = [type(one).__name__ for one in model.operations[1:3]]
        assert (kinds == ["Multiply", "Add"]) == wanted, settings


def test_fresh_weights_of_a_preset_are_told_of(preset, tmp_path, monkeypatch):
    """Who names a preset may think that its weights come along."""
    said = []
    monkeypatch.setattr(
        logging, "warning", lambda text, *words: said.append(text % words)
    )
    name = f"keras_hub:{preset[0]}"
    config = tiny(tmp_path / "run", model_type=name)
    learner = Experiment(config).learner
    said.clear()
    load_first_weights(learner, config)
    assert [line.partition(";")[0] for line in said] == [
        "The student begins with fresh weights",
        "The teacher begins with fresh weights",
    ]
    assert f"--teacher_weights={preset[0]}" in said[1]
    said.clear()
    load_first_weights(learner, of(preset[0], tmp_path / "run"))
    assert not any("fresh weights" in line for line in said)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(model_type="keras_hub"), "give its folder as the weights"),
        (dict(model_type="mlp"), "--student_weights=.*=keras_hub:/"),
        (dict(model_type="MobileNetV2"), "--student_weights=.*=keras_hub:/"),
        (dict(student_weights="imagenet"), "folder of a preset of KerasHub"),
        (dict(student_weights="kaggle://a/b"), "nothing is downloaded here"),
        (dict(student_weights="hf://a/b"), r"from_preset\('hf://a/b'\)"),
        (dict(teacher_weights="modelscope://a/b"), "nothing is downloaded"),
        (dict(remat=True), "has no blocks"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(
    preset, tmp_path, settings, words
):
    name = f"keras_hub:{preset[0]}"
    defaults = dict(model_type=name, student_weights=preset[0])
    if settings.get("model_type") == "keras_hub":
        defaults["student_weights"] = None
    with pytest.raises(ConfigError, match=words) as error:
        Experiment(tiny(tmp_path / "run", **defaults | settings))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_unknown_pixels_are_refused_before_anything_is_built(preset, tmp_path):
    folder = tmp_path / "preset"
    shutil.copytree(preset[0], folder)
    (folder / "image_converter.json").unlink()
    config = of(str(folder), tmp_path / "run")
    with pytest.raises(ConfigError, match="--preprocessing=dataset"):
        check_weights(config)
    check_weights(dataclasses.replace(config, preprocessing="dataset"))


def test_another_runs_student_is_taken_too(trained, preset, tmp_path):
    config = of(
        preset[0],
        tmp_path / "run",
        model_type=f"keras_hub:{preset[0]}",
        student_weights=trained.output_dir,
        teacher_weights=None,
    )
    check_weights(config)
    learner = Experiment(config).learner
    report = load_first_weights(learner, config)["student"]
    assert not report.head and not report.missing and not report.left_over
    averages = trained.trained_learner().student_ema.averages
    floats = [v for v in learner.student.weights if "float" in v.dtype]
    for got, wanted in zip(floats, averages, strict=True):
        np.testing.assert_array_equal(got, wanted)
    with pytest.raises(ConfigError, match="give --preprocessing=network too"):
        check_weights(dataclasses.replace(config, preprocessing="dataset"))
