"""Which network predicts, of which run and which checkpoint."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

from meta_pseudo_labels.data import load_class_distributions
from meta_pseudo_labels.run.finetuned import finetuned_path
from meta_pseudo_labels.run.inference.networks import (
    check_checkpoints,
    checkpoint_networks,
)
from meta_pseudo_labels.utils.checkpoint_files import CheckpointError
from meta_pseudo_labels.utils.settings import ConfigError


def same(network, weights):
    for one, other in zip(network.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)


def weights_of(model):
    return [weight.copy() for weight in model.get_weights()]


def test_each_network_is_the_run_s(inferring):
    experiment = inferring()
    learner = experiment.trained_learner()
    raw, teacher = weights_of(learner.student), weights_of(learner.teacher)
    average = weights_of(learner.finished_student())
    assert any((a != b).any() for a, b in zip(raw, average, strict=True))
    for name, want in (("teacher", teacher), ("student", average)):
        (network,) = checkpoint_networks(inferring(inference_network=name))
        same(network, want)
        assert network.name == name
    (network,) = checkpoint_networks(experiment)
    same(network, average)
    with pytest.raises(ConfigError, match="finetune first, with `.*finetune"):
        checkpoint_networks(inferring(inference_network="finetuned"))


@pytest.mark.long
def test_the_finetuned_student_goes_first(inferring):
    experiment = inferring()
    experiment.finetune()
    learner = experiment.trained_learner()
    want = weights_of(experiment.finetuned_student(learner))
    for name in (None, "finetuned"):
        (network,) = checkpoint_networks(inferring(inference_network=name))
        same(network, want)
    (network,) = checkpoint_networks(inferring(inference_network="student"))
    same(network, learner.finished_student().get_weights())
    # However the latest checkpoint is spelled.
    folder = experiment.output_dir
    for path in (
        folder,
        f"{folder}/checkpoints",
        f"{folder}/checkpoints/step-4",
        f"{folder}/../{os.path.basename(folder)}/checkpoints/step-4.index",
    ):
        for settings in (dict(from_checkpoint=path), dict(inference_ckpt=path)):
            (network,) = checkpoint_networks(inferring(**settings))
            same(network, want)
    # That of step 2 was not finetuned.
    path = f"{experiment.output_dir}/checkpoints/step-2"
    with pytest.raises(ConfigError, match="from-step-2"):
        checkpoint_networks(
            inferring(inference_network="finetuned", inference_ckpt=path)
        )


@pytest.mark.long
def test_what_was_finetuned_from_a_path_is_found_by_it(inferring, tmp_path):
    """In this run, of its own checkpoint and of another run's."""
    experiment = inferring()
    other = other_run(experiment, tmp_path / "other")
    for path in (f"{experiment.output_dir}/checkpoints/step-2", other):
        finetuning = inferring(from_checkpoint=path)
        finetuning.finetune()
        learner = finetuning.trained_learner()
        want = weights_of(finetuning.finetuned_student(learner))
        for settings in (
            dict(from_checkpoint=path),
            dict(inference_ckpt=path, inference_network="finetuned"),
        ):
            (network,) = checkpoint_networks(inferring(**settings))
            same(network, want)


def other_run(experiment, folder, **settings):
    """Another run: a copy, whose hparams.json says these settings."""
    shutil.copytree(experiment.output_dir, folder)
    config = dataclasses.replace(
        experiment.config, output_dir=str(folder), **settings
    )
    (folder / "hparams.json").write_text(config.to_json())
    return str(folder)


@pytest.mark.long
def test_a_run_of_other_settings_predicts_with_its_own(inferring, tmp_path):
    """Its student is twice as wide, so ours could not take its weights."""
    from meta_pseudo_labels.run.experiment import Experiment

    experiment = inferring()
    config = dataclasses.replace(
        experiment.config,
        task_mode="train",
        output_dir=str(tmp_path / "other"),
        model_type="mlp-1-16",
        method="supervised",
        num_train_steps=1,
        seed=5,
    )
    other = Experiment(config)
    other.data = experiment.data
    other.train()
    want = weights_of(other.learner.finished_student())
    networks = checkpoint_networks(
        inferring(inference_ckpt_ensemble=f"latest,{config.output_dir}")
    )
    assert len(networks) == 2
    same(networks[1], want)
    assert networks[0].count_params() != networks[1].count_params()
    with pytest.raises(ConfigError, match="other trains no teacher that sees"):
        checkpoint_networks(
            inferring(
                inference_ckpt=config.output_dir, inference_network="teacher"
            )
        )


def test_runs_on_other_images_are_refused(inferring, tmp_path):
    experiment = inferring()
    path = other_run(experiment, tmp_path / "a", known_classes=5)
    with pytest.raises(
        ConfigError, match="has known_classes 5, the one in .*10"
    ):
        checkpoint_networks(inferring(inference_ckpt=path))
    path = other_run(experiment, tmp_path / "c", image_size=16)
    with pytest.raises(ConfigError, match="has image_size 16, the one in .*8:"):
        checkpoint_networks(inferring(inference_ckpt=path))
    path = other_run(experiment, tmp_path / "b")
    facts = json.loads((tmp_path / "b" / "labeled.json").read_text())
    facts["mean"] = [0.1, 0.2, 0.3]
    (tmp_path / "b" / "labeled.json").write_text(json.dumps(facts))
    with pytest.raises(ConfigError, match="normalize images by different"):
        checkpoint_networks(inferring(inference_ckpt=path))
    facts["class_names"] = facts["class_names"][::-1]
    (tmp_path / "b" / "labeled.json").write_text(json.dumps(facts))
    with pytest.raises(ConfigError, match="differently, or in another order"):
        checkpoint_networks(inferring(inference_ckpt=path))


def test_runs_that_say_what_others_leave_out_predict_with_them(
    inferring, tmp_path
):
    """Digits have 8 x 8 pixels and ten classes, given or not."""
    path = other_run(
        inferring(), tmp_path / "given", image_size=8, known_classes=10
    )
    networks = checkpoint_networks(
        inferring(inference_ckpt_ensemble=f"latest,{path}")
    )
    same(networks[1], networks[0].get_weights())


def test_latest_is_the_run_s_own_wherever_it_was_finetuned_from(
    inferring, tmp_path
):
    """hparams.json remembers another run's checkpoint, here of this step."""
    elsewhere = dict(from_checkpoint=other_run(inferring(), tmp_path / "other"))
    experiment = inferring(**elsewhere)
    learner = inferring().trained_learner()
    path = finetuned_path(learner, experiment.config)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    learner.student.save_weights(path)
    (want,) = checkpoint_networks(inferring(inference_ckpt="latest"))
    (got,) = checkpoint_networks(
        inferring(inference_ckpt="latest", **elsewhere)
    )
    os.remove(path)
    same(got, want.get_weights())


@pytest.mark.parametrize("name", ["absent", "absent/step-4.index"])
def test_missing_checkpoints_are_found_before_any_work(inferring, name):
    experiment = inferring(inference_ckpt_ensemble=f"latest,{name}")
    with pytest.raises(CheckpointError, match="absent.* is not a TensorFlow "):
        check_checkpoints(experiment.config)
    with pytest.raises(CheckpointError):
        experiment.infer()
    with pytest.raises(CheckpointError, match="best has no checkpoint"):
        inferring(inference_ckpt="best").infer()


def test_the_teacher_s_labels_can_be_cached(inferring):
    """In the file that --teacher_labels reads."""
    found = {}
    for name in (None, "teacher"):
        experiment = inferring(inference_network=name)
        path = experiment.cache_labels()
        found[name] = load_class_distributions(path, data=experiment.data)
    teacher = found["teacher"]
    assert teacher.source["network"] == "teacher"
    assert np.abs(teacher.unlabeled - found[None].unlabeled).max() > 1e-4
    (network,) = checkpoint_networks(experiment)
    same(network, experiment.trained_learner().teacher.get_weights())
