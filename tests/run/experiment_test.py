"""A run and its stages, on a small network and a few steps."""

import dataclasses
import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.run import experiment as experiment_module
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.utils.checkpoint_files import CheckpointError
from meta_pseudo_labels.utils.settings import ConfigError
from tests.tiny_run import rows, tiny, weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The settings of a finished run; tests leave its folder as it is."""
    config = tiny(tmp_path_factory.mktemp("trained") / "run")
    Experiment(config).train()
    return config


def test_training_leaves_settings_logs_and_checkpoints(trained):
    folder = os.listdir(trained.output_dir)
    assert sorted(folder) == [
        "checkpoints",
        "done",
        "events",
        "hparams.json",
        "labeled.json",
        "machine.json",
        "metrics.jsonl",
    ]
    with open(f"{trained.output_dir}/hparams.json") as file:
        assert Config(**json.load(file)) == trained
    assert [row["step"] for row in rows(trained)] == [1, 2, 2, 3, 4, 4]
    evaluations = [row for row in rows(trained) if "eval/accuracy" in row]
    assert [row["step"] for row in evaluations] == [2, 4]


def test_every_training_step_is_logged_under_the_names_of_the_release(trained):
    names = {
        "cross_entropy/student_on_u",
        "cross_entropy/student_on_l",
        "cross_entropy/student_on_l_old",
        "cross_entropy/teacher_on_u",
        "cross_entropy/teacher_on_l",
        "lr/student",
        "lr/teacher",
        "mpl/dot_product",
        "mpl/moving_dot_product",
        "mpl/feedback_grad_ratio",
        "skipped_steps",
        "uda/weight",
        "uda/u_ratio",
        "uda/l_ratio",
    }
    for row in rows(trained):
        if "eval/accuracy" not in row:
            # While the student waits the ratio is no number, and left out.
            waits = (
                {"mpl/feedback_grad_ratio"} if not row["lr/student"] else set()
            )
            assert set(row) == names - waits | {"step"}
            assert np.all(np.isfinite(list(row.values())))


def test_rates_are_scaled_by_the_batch_and_each_has_its_own_wait(trained):
    """Peak 4/256; the student waits one step, both warm up in one."""
    steps = [row for row in rows(trained) if "lr/student" in row]
    assert [row["lr/student"] for row in steps[:2]] == [0, 4 / 256]
    assert [row["lr/teacher"] for row in steps[:2]] == [4 / 256, 4 / 256]


def test_a_finished_run_is_left_alone(trained):
    before = weights(trained), rows(trained)
    Experiment(trained).train()
    after = weights(trained), rows(trained)
    assert before[1] == after[1]
    for name, value in before[0].items():
        np.testing.assert_array_equal(after[0][name], value)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run through all stages, and what `evaluate` returned before and after
    finetuning."""
    config = tiny(tmp_path_factory.mktemp("finished") / "run")
    experiment = Experiment(config)
    experiment.train()
    before = experiment.evaluate()
    experiment.finetune()
    after = experiment.evaluate()
    experiment.export()
    return config, before, after


def test_evaluation_knows_all_networks_there_are(finished):
    config, before, after = finished
    assert list(before) == ["student", "student_raw", "teacher"]
    assert list(after) == ["student", "student_raw", "teacher", "finetuned"]
    assert {name: after[name] for name in before} == before
    assert all(0 <= value <= 1 for value in after.values())
    with open(f"{config.output_dir}/eval.json") as file:
        assert json.load(file) == after


@pytest.mark.long
def test_stages_can_be_started_from_the_folder_alone(finished):
    config, _, after = finished
    assert Experiment(config).evaluate() == after


def test_training_evaluated_the_average_of_the_student(finished):
    config, _, after = finished
    last = rows(config)[-1]
    assert last["eval/accuracy"] == pytest.approx(after["student"])


@pytest.mark.long
def test_held_out_images_judge_in_place_of_the_test_images(tmp_path):
    """While training; in the end both are told."""
    config = tiny(tmp_path, num_validation=30)
    experiment = Experiment(config)
    experiment.train()
    accuracies = experiment.evaluate()
    held_out = accuracies["validation"]
    assert list(accuracies) == [*held_out, "validation"]
    last = rows(config)[-1]
    assert last["eval/accuracy"] == pytest.approx(held_out["student"])
    assert last["eval/accuracy"] != pytest.approx(accuracies["student"])
    learner, images = experiment.trained_learner(), experiment.data
    for network, network_accuracy in held_out.items():
        model = dict(student=learner, student_raw=learner.student).get(
            network, learner.teacher
        )
        shown = data.normalize(
            images.validation_images,
            mean=images.spec.mean,
            std=images.spec.std,
        )
        found = model(shown, training=False).numpy().argmax(axis=-1)
        right = np.mean(found == images.validation_labels)
        assert right == pytest.approx(network_accuracy)


@pytest.mark.long
def test_the_export_is_the_finetuned_student(finished):
    config, _, after = finished
    experiment = Experiment(config)
    served = tf.saved_model.load(f"{config.output_dir}/saved_model/1")
    answers = served.signatures["serving_default"](
        images=tf.constant(experiment.data.test_images)
    )
    right = answers["classes"].numpy() == experiment.data.test_labels
    assert np.mean(right) == pytest.approx(after["finetuned"])
    student = experiment.finetuned_student(experiment.trained_learner())
    logits = student(next(iter(experiment.test_dataset))[0])
    np.testing.assert_allclose(
        answers["probabilities"][:250], tf.nn.softmax(logits), rtol=1e-4
    )
    extra = f"{config.output_dir}/saved_model/1/assets.extra"
    with open(f"{extra}/model_card.json") as file:
        assert json.load(file)["metrics"] == after


@pytest.mark.long
def test_a_student_that_was_not_finetuned_has_its_accuracies_in_its_card(
    tmp_path, trained
):
    shutil.copytree(trained.output_dir, tmp_path / "run")
    config = dataclasses.replace(trained, output_dir=str(tmp_path / "run"))
    accuracies = Experiment(config).evaluate()
    version = Experiment(config).export()
    with open(f"{version}/assets.extra/model_card.json") as file:
        card = json.load(file)
    assert (card["network"], card["metrics"]) == ("student", accuracies)


@pytest.mark.long
def test_another_export_is_another_version(finished):
    config, _, _ = finished
    first = pathlib.Path(config.output_dir) / "saved_model" / "1"
    before = (first / "saved_model.pb").read_bytes()
    assert Experiment(config).export() == str(first.with_name("2"))
    assert (first / "saved_model.pb").read_bytes() == before


@pytest.mark.long
def test_finetuning_starts_from_the_averages(tmp_path, trained):
    """At rate 0 an mlp comes out as it went in."""
    # Leaves the shared run as it is.
    config = dataclasses.replace(
        trained, output_dir=str(tmp_path), finetune_lr=0.0
    )
    experiment = Experiment(config)
    experiment.trained_learner = trained_learner = lambda: _restored(trained)
    experiment.finetune()
    images = next(iter(experiment.test_dataset))[0]
    np.testing.assert_allclose(
        experiment.finetuned_student(trained_learner())(images),
        trained_learner()(images),
        rtol=1e-4,
        atol=1e-5,
    )


def _restored(config):
    return Experiment(config).trained_learner()


@pytest.mark.long
def test_any_checkpoint_can_be_finetuned(tmp_path, trained):
    """One that is not the latest, by its path; also that of another run."""
    shutil.copytree(trained.output_dir, tmp_path / "run")
    path = f"{trained.output_dir}/checkpoints/step-2"
    config = dataclasses.replace(
        trained,
        output_dir=str(tmp_path / "run"),
        from_checkpoint=path,
        finetune_lr=0.0,
    )
    assert Experiment(config).finetune()
    (weights,) = (tmp_path / "run").glob("finetune/*.h5")
    assert re.fullmatch("from-step-2-of-[0-9a-f]{8}.weights.h5", weights.name)
    experiment = Experiment(config)
    finetuned = experiment.finetuned_student(experiment.trained_learner())
    students = [
        _restored(dataclasses.replace(config, from_checkpoint=source))
        for source in (path, "latest")
    ]
    own, latest = (
        learner.finished_student().get_weights()[0] for learner in students
    )
    np.testing.assert_array_equal(finetuned.get_weights()[0], own)
    assert (own != latest).any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(num_labeled=41), "num_labeled is 41"),
        (dict(num_labeled=5000), "num_labeled is 5000"),
        (
            dict(num_labeled=1297),
            "unlabeled images, and 'digits' has none: give",
        ),
    ],
)
def test_data_that_cannot_be_had_writes_nothing(tmp_path, settings, words):
    config = tiny(tmp_path / "run", **settings)
    with pytest.raises(ConfigError, match=words):
        Experiment(config).train()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_all_labels_are_fine_for_supervised(tmp_path):
    config = tiny(
        tmp_path / "run",
        method="supervised",
        num_labeled=1297,
        num_train_steps=1,
    )
    Experiment(config).train()
    assert rows(config)[-1]["step"] == 1


@pytest.mark.parametrize("stage", ["finetune", "evaluate", "export"])
def test_later_stages_need_a_trained_run(tmp_path, stage):
    with pytest.raises(ConfigError, match="not exist: .* with `mpl train`"):
        getattr(Experiment(tiny(tmp_path / "absent")), stage)()
    with pytest.raises(CheckpointError, match="no checkpoint: .*`mpl train`"):
        getattr(Experiment(tiny(tmp_path)), stage)()
    assert list(tmp_path.iterdir()) == []


def test_other_settings_are_refused_before_any_work(trained):
    changed = dataclasses.replace(trained, uda_data=3, seed=1)
    with pytest.raises(ConfigError, match="seed was 0, is now 1; uda_data"):
        Experiment(changed)


@pytest.mark.parametrize(
    ("method", "strong"), [("supervised", True), ("uda", False), ("mpl", False)]
)
def test_labeled_images_are_augmented_in_supervised_only(
    tmp_path, monkeypatch, method, strong
):
    """Quirk 31, whatever --use_augment says."""

    class Seen(Exception):
        pass

    def training_dataset(*args, augment_labeled, **settings):
        raise Seen(augment_labeled)

    monkeypatch.setattr(
        experiment_module.data, "training_dataset", training_dataset
    )
    run = Experiment(tiny(tmp_path, method=method, use_augment=True))
    with pytest.raises(Seen) as seen:
        run.train()
    assert seen.value.args == (strong,)
