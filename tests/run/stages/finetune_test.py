"""The finetuning of a run: its settings, its log, its early end."""

import dataclasses
import json
import os
import pathlib

import keras
import numpy as np
import pytest

from meta_pseudo_labels import data
from meta_pseudo_labels.learners.finetuning import finetune
from meta_pseudo_labels.run.config import Config, after_training
from meta_pseudo_labels.run.finetuned import (
    is_finetuned,
    prepare,
    unfinished,
)
from meta_pseudo_labels.run.folder import RunFolder
from meta_pseudo_labels.run.stages import finetune as finetune_stage
from meta_pseudo_labels.utils.settings import ConfigError
from tests import tiny_finetuning
from tests.tiny_finetuning import (
    EARLY,
    evaluations,
    images,
    learner,
    network,
    run,
    weights,
    weights_path,
)
from tests.tiny_run import tiny


@pytest.fixture(scope="module")
def ended_early(tmp_path_factory):
    config = tiny(tmp_path_factory.mktemp("early"), **EARLY)
    assert run(config)
    return config


@pytest.mark.long
def test_it_ends_early_and_keeps_the_best(ended_early):
    rows = evaluations(ended_early)
    found = [row["eval/accuracy"] for row in rows]
    every = ended_early.finetune_eval_every
    assert [row["step"] for row in rows] == [
        every * (number + 1) for number in range(len(found))
    ]
    best = found.index(max(found))
    assert best > 0  # It learned something, and then nothing more.
    assert len(found) == best + 1 + ended_early.finetune_patience
    assert len(found) * every < ended_early.finetune_steps
    student = network()
    student.set_weights(weights(ended_early))
    right = [
        np.argmax(student(shown, training=False), -1) == labels
        for shown, labels in data.validation_dataset(images(), batch_size=50)
    ]
    assert np.mean(np.concatenate(right)) == pytest.approx(max(found))


def test_it_does_what_the_library_does(ended_early):
    student = network()
    history = finetune(
        student,
        data.finetuning_dataset(images(), batch_size=20, seed=0),
        learning_rate=ended_early.finetune_lr,
        steps=ended_early.finetune_steps,
        validation_data=data.validation_dataset(images(), batch_size=250),
        eval_every=ended_early.finetune_eval_every,
        patience=ended_early.finetune_patience,
    )
    assert history.history["val_accuracy"] == [
        row["eval/accuracy"] for row in evaluations(ended_early)
    ]
    for one, two in zip(
        student.get_weights(), weights(ended_early), strict=True
    ):
        np.testing.assert_array_equal(one, two)


@pytest.mark.long
def test_adamw_goes_on_bit_for_bit_and_does_what_the_library_does(tmp_path):
    """Its moments are in the checkpoints; the backbone thaws in between."""
    settings = dict(
        finetune_steps=4,
        finetune_lr=0.01,
        finetune_optimizer="adamw",
        finetune_weight_decay=0.5,
        finetune_freeze_backbone_steps=3,
        finetune_backbone_lr_factor=0.5,
        save_every=2,
    )
    config = tiny(tmp_path / "cut", **settings)
    with pytest.raises(KeyboardInterrupt):
        run(config, callbacks=[_CutOffAfter(3)])
    assert run(config)
    student = network()
    finetune(
        student,
        data.finetuning_dataset(images(), batch_size=20, seed=0),
        learning_rate=0.01,
        steps=4,
        optimizer="adamw",
        weight_decay=0.5,
        freeze_backbone_steps=3,
        backbone_lr_factor=0.5,
    )
    for one, two in zip(student.get_weights(), weights(config), strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(ConfigError, match="finetuned with other settings"):
        run(
            tiny(tmp_path / "cut", **settings | dict(finetune_optimizer="adam"))
        )


@pytest.mark.long
def test_weights_of_classes_reach_the_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(
        finetune_stage,
        "class_weights",
        lambda config, images: {3: 50.0, 9: 1.0},
    )
    config = tiny(tmp_path, finetune_steps=1, finetune_lr=0.1)
    assert run(config)
    student = network()
    finetune(
        student,
        data.finetuning_dataset(images(), batch_size=20, seed=0),
        learning_rate=0.1,
        steps=1,
        class_weight={3: 50.0, 9: 1.0},
    )
    for one, two in zip(student.get_weights(), weights(config), strict=True):
        np.testing.assert_array_equal(one, two)


class _CutOffAfter(keras.callbacks.Callback):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == self.steps:
            raise KeyboardInterrupt


@pytest.mark.parametrize("mode", ["update", "frozen"])
def test_batch_norm_is_as_the_settings_say(tmp_path, mode):
    config = tiny(tmp_path, finetune_steps=1, finetune_batch_norm=mode)
    assert run(config)
    *norm, kernel, bias = [
        (one != two).any()
        for one, two in zip(
            network().get_weights(), weights(config), strict=True
        )
    ]
    assert norm == [mode == "update"] * 4
    assert kernel and bias


@pytest.mark.parametrize(
    ("dataset", "steps"),
    [
        ("cifar10", 1_000),
        ("svhn_cropped", 1_000),
        ("imagenet2012", 2_000),
        ("imagenet2012_subset", 2_000),
        ("folders", 1_000),
    ],
)
def test_steps_are_the_papers_of_the_data_set(dataset, steps):
    assert Config(dataset=dataset).finetuning_steps == steps
    assert Config(dataset=dataset, finetune_steps=3).finetuning_steps == 3


def test_the_settings_say_how_many_steps_were_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(after_training, "OTHER_FINETUNING_STEPS", 2)
    assert run(tiny(tmp_path, finetune_steps=None))
    hparams = json.loads((tmp_path / "hparams.json").read_text())
    assert hparams["finetune_steps"] == 2
    # The same, said out loud.
    assert not run(tiny(tmp_path, finetune_steps=2))


def test_one_from_before_there_were_more_settings_counts(tmp_path):
    config = tiny(tmp_path, finetune_steps=1)
    assert run(config)
    path = weights_path(config).with_name(f"{weights_path(config).name}.json")
    old = dict(finetune_batch_size=512, finetune_lr=0.1, finetune_steps=1)
    assert old.items() < json.loads(path.read_text()).items()
    path.write_text(json.dumps(old))
    assert not run(config)
    for changes in (
        dict(finetune_batch_norm="frozen"),
        dict(finetune_patience=1, num_validation=20),
    ):
        other = tiny(tmp_path, finetune_steps=1, **changes)
        with pytest.raises(ConfigError, match="finetuned with other settings"):
            run(other)
    # Not read without patience.
    assert not run(tiny(tmp_path, finetune_steps=1, finetune_eval_every=7))


def test_patience_needs_images_that_are_held_out():
    with pytest.raises(ConfigError) as caught:
        Config(finetune_patience=2)
    assert str(caught.value) == (
        "--finetune_patience=2 needs held-out images, and there "
        "are none: train with --num_validation, or leave it out."
    )


def test_what_nothing_describes_is_finetuned_again(tmp_path):
    """Its settings were deleted, and the next finetuning was stopped."""
    config = tiny(tmp_path, finetune_steps=2, finetune_batch_size=20)
    assert run(config)
    pathlib.Path(f"{weights_path(config)}.json").unlink()
    before = weights(config)
    prepare(
        dataclasses.replace(config, finetune_lr=0.5),
        str(weights_path(config)),
        "a hash",
    )
    assert not os.path.exists(weights_path(config))
    again = dataclasses.replace(config, finetune_lr=0.5)
    assert run(again)
    assert not np.array_equal(weights(again)[0], before[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("class_weight", "balanced"),
        ("label_sampling", "balanced"),
        ("seed", 1),
        ("dense_dropout_rate", 0.5),
        ("flip", False),
        ("batch_norm_decay", 0.5),
    ],
)
def test_settings_of_training_that_it_reads_count_too(tmp_path, name, value):
    config = tiny(tmp_path, finetune_steps=2, finetune_batch_size=20)
    assert run(config)
    other = dataclasses.replace(config, **{name: value})
    with pytest.raises(ConfigError, match=f"other settings.*'{name}'"):
        run(other)
    other = dataclasses.replace(other, allow_hparam_change=True)
    assert run(other) and not run(other)


@pytest.mark.parametrize("finished", [True, False])
def test_other_weights_of_the_same_step_are_finetuned_anew(
    tmp_path, monkeypatch, caplog, finished
):
    """Training went back to an earlier checkpoint and reached it again."""
    config = tiny(tmp_path, finetune_steps=2, finetune_batch_size=20)
    assert run(config) and not run(config)
    before, path = weights(config), weights_path(config)
    if not finished:  # It was stopped before its weights were written.
        path.unlink()
        pathlib.Path(unfinished(str(path))).mkdir()
    trained = network()
    trained.set_weights([2 * each for each in network().get_weights()])
    other = learner(trained)
    monkeypatch.setattr(tiny_finetuning, "learner", lambda: other)
    if finished:
        assert not is_finetuned(other, config)
        assert "was finetuned from other weights" in caplog.text
    assert run(config) and not run(config)
    assert "is made anew: it was finetuned from other weights" in caplog.text
    assert is_finetuned(other, config)
    assert not np.allclose(weights(config)[0], before[0])


def test_what_earlier_versions_finetuned_from_a_path_is_found(tmp_path):
    """They named it after the path as it was spelled."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-4.index").touch()
    source = str(tmp_path / "checkpoints" / "step-4")
    few = dict(finetune_steps=2, finetune_batch_size=20)
    config = tiny(tmp_path, from_checkpoint=source, **few)
    folder = RunFolder(config.output_dir)
    path, earlier = (folder.finetuned_path(4, x) for x in ("latest", source))
    assert str(weights_path(config)) == path != earlier
    assert run(config)
    for suffix in ("", ".json"):
        os.rename(path + suffix, earlier + suffix)
    assert str(weights_path(config)) == earlier
    assert is_finetuned(learner(), config) and not run(config)


def test_what_was_finetuned_before_hashes_were_noted_counts(tmp_path):
    config = tiny(tmp_path, finetune_steps=2, finetune_batch_size=20)
    assert run(config)
    path = pathlib.Path(f"{weights_path(config)}.json")
    noted = json.loads(path.read_text())
    del noted["began_with"]
    path.write_text(json.dumps(noted))
    assert not run(config) and is_finetuned(learner(), config)


def test_training_keeps_its_settings_where_finetuning_has_others(tmp_path):
    config = tiny(tmp_path, finetune_steps=2, finetune_batch_size=20)
    folder = RunFolder(config.output_dir)
    folder.save_settings(config)
    other = dict(class_weight="balanced", allow_hparam_change=True)
    assert run(dataclasses.replace(config, **other, finetune_lr=0.5))
    saved = folder.settings()
    assert saved["class_weight"] is None and saved["finetune_lr"] == 0.5
    assert folder.check_same_training(config) is None


@pytest.mark.parametrize(
    ("trained", "finetuned"),
    [
        (dict(use_bfloat16=True), dict(precision="float32")),
        (dict(), dict(precision="bfloat16")),
    ],
)
def test_training_keeps_its_precision_too(tmp_path, trained, finetuned):
    config = tiny(tmp_path, finetune_steps=2, finetune_batch_size=20, **trained)
    folder = RunFolder(config.output_dir)
    folder.save_settings(config)
    other = dict(use_bfloat16=False) | finetuned
    assert run(dataclasses.replace(config, allow_hparam_change=True, **other))
    assert folder.check_same_training(config) is None
