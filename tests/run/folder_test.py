"""The folder of a run: which are accepted, and with whose settings."""

import dataclasses
import json
import os

import pytest

from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.config.core import free_settings
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.folder import RunFolder
from meta_pseudo_labels.run.stages import STAGES
from meta_pseudo_labels.utils.settings import ConfigError

FIELDS = dataclasses.fields(Config)


def write_hparams(folder, text):
    (folder / "hparams.json").write_text(text)
    return str(folder)


def test_json_gives_the_same_settings_back(tmp_path):
    config = Config(output_dir=str(tmp_path), lr=0.3, mpl_feedback="off")
    folder = write_hparams(tmp_path, config.to_json())
    assert Config(**RunFolder(folder).settings()) == config


def test_no_folder_has_no_settings(tmp_path):
    assert RunFolder(None).settings() == {}
    assert RunFolder("").settings() == {}
    assert RunFolder(str(tmp_path)).settings() == {}
    assert RunFolder(str(tmp_path / "absent")).settings() == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "[1, 2]", "3", "null"])
def test_unreadable_settings_are_named(tmp_path, text):
    folder = write_hparams(tmp_path, text)
    with pytest.raises(ConfigError, match="hparams.json cannot be read"):
        RunFolder(folder).settings()


def test_every_changed_setting_of_a_run_is_named(tmp_path):
    folder = str(tmp_path)
    write_hparams(tmp_path, Config(output_dir=folder, lr=0.3).to_json())
    RunFolder(folder).check_same_training(Config(output_dir=folder, lr=0.3))
    with pytest.raises(ConfigError) as caught:
        RunFolder(folder).check_same_training(
            Config(output_dir=folder, lr=0.4, seed=7)
        )
    message = str(caught.value)
    assert "lr was 0.3, is now 0.4" in message
    assert "seed was 0, is now 7" in message
    assert folder in message and "--output_dir" in message


def test_free_settings_may_change(tmp_path):
    folder = str(tmp_path)
    before = Config(
        output_dir="elsewhere",
        teacher_labels="another",
        log_every=11,
        num_train_steps=11,
        num_validation=10,  # For finetune_patience.
    )
    write_hparams(tmp_path, before.to_json())
    changed = Config(
        output_dir=folder,
        eval_batch_size=7,
        inference_data="records",
        inference_dir="images",
        inference_split="train",
        inference_network="teacher",
        inference_ckpt="best",
        inference_ckpt_ensemble="latest,best",
        inference_class_id=1,
        inference_num_threads=4,
        inference_thread_index=3,
        inference_name="others",
        inference_block=5,
        finetune_lr=1.0,
        finetune_steps=3,
        finetune_batch_size=9,
        finetune_batch_norm="frozen",
        finetune_optimizer="adamw",
        finetune_weight_decay=0.1,
        finetune_freeze_backbone_steps=5,
        finetune_backbone_lr_factor=0.1,
        finetune_layer_lr_decay=0.5,
        finetune_patience=2,
        finetune_eval_every=7,
        diagnose_batches=2,
        diagnose_draws=3,
        diagnose_lr=0.1,
        review_images=7,
        review_links=True,
        labels_csv="answers.csv",
        precision="float32",
        save_every=11,
        max_to_keep=5,
        stop_after_bad_steps=7,
        from_checkpoint="best",
        allow_hparam_change=True,
        progress=False,
        progress_seconds=5.0,
        log_format="json",
        data_dir="here",
        labeled_dir="labeled",
        unlabeled_dir="unlabeled",
        eval_dir="eval",
        strict_data=True,
        data_service="grpc://localhost:5050",
        teacher_labels="teacher",
        reset_output_dir=True,
        distribution="multi_worker",
        replicas_per_worker=2,
        worker_addresses="here:1,there:1",
        worker_index=1,
        deterministic=True,
        export_keras=True,
        export_litert=True,
        export_onnx=True,
        steps_per_execution=11,
        log_every=11,
        num_train_steps=11,
        num_validation=10,
        use_tpu=True,
        master="local",
        num_cores_per_replica=2,
        use_xla_sharding=True,
        dataset_service_replicas=2,
        running_local_dev=True,
        plugins="json",
        callbacks="json:loads",
    )
    for name, value in dict(
        jit_compile=True,  # Not beside --distribution=multi_worker.
        task_mode="eval",  # Which refuses settings of inference.
        eval_dataset="folders",
        eval_data_dir="sets",
        saved_model="exported",
    ).items():
        object.__setattr__(changed, name, value)
    names = {f.name for f in FIELDS}
    assert free_settings() <= names
    unchanged = {
        name
        for name in free_settings()
        if getattr(changed, name) == getattr(before, name)
    }
    assert unchanged == set()
    RunFolder(folder).check_same_training(changed)


@pytest.mark.parametrize("paths", [("x", None), (None, "x"), ("x", "")])
def test_teacher_labels_neither_come_nor_go(tmp_path, paths):
    """With them mpl is another method."""
    before, now = (
        Config(output_dir=str(tmp_path), teacher_labels=path) for path in paths
    )
    write_hparams(tmp_path, before.to_json())
    message = f"teacher_labels was {paths[0]}, is now {paths[1]}"
    with pytest.raises(ConfigError, match=message):
        RunFolder(now.output_dir).check_same_training(now)


def test_settings_that_an_older_run_did_not_know_had_their_defaults(tmp_path):
    settings = json.loads(Config(lr=0.3).to_json())
    del settings["uda_weight"]
    folder = write_hparams(tmp_path, json.dumps(settings))
    RunFolder(folder).check_same_training(Config(output_dir=folder, lr=0.3))
    with pytest.raises(ConfigError, match=r"uda_weight was 1\.0, is now 8\.0"):
        RunFolder(folder).check_same_training(
            Config(output_dir=folder, lr=0.3, uda_weight=8.0)
        )


@pytest.mark.parametrize("path", [None, ""])
def test_a_missing_output_dir_is_named(path):
    with pytest.raises(ConfigError, match="--output_dir is missing"):
        RunFolder(path).require()


def test_an_output_dir_that_is_a_file_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "run", file / "deep" / "run"):
        with pytest.raises(ConfigError, match=f"{file} is a file"):
            RunFolder(str(path)).require()


def test_an_output_dir_that_cannot_be_written_to_is_named(
    tmp_path, monkeypatch
):
    """Permissions do not bind root, who may be running this test."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match=f"may not write to {tmp_path};"):
        RunFolder(str(tmp_path / "run")).require()


@pytest.mark.parametrize("name", ["a[12]", "a*", "what?"])
def test_a_folder_named_like_a_pattern_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="for patterns of names"):
        RunFolder(str(tmp_path / name)).require()


def test_the_address_of_a_bucket_is_refused():
    with pytest.raises(ConfigError, match="gs://b/run: .* a file system"):
        RunFolder("gs://b/run").require()


def test_a_new_output_dir_is_fine_unless_it_must_exist(tmp_path):
    path = str(tmp_path / "new" / "run")
    assert RunFolder(path).require() == path
    with pytest.raises(ConfigError, match=f"{path} does not exist"):
        RunFolder(path).require(must_exist=True)
    assert list(tmp_path.iterdir()) == []


def test_settings_are_saved_whole_and_read_back(tmp_path):
    config = Config(output_dir=str(tmp_path), lr=0.3)
    RunFolder(str(tmp_path)).save_settings(config)
    assert Config(**RunFolder(str(tmp_path)).settings()) == config
    assert os.listdir(tmp_path) == ["hparams.json"]


def test_a_run_is_done_until_it_goes_on(tmp_path):
    folder = RunFolder(str(tmp_path))
    assert not folder.is_done()
    folder.mark_not_done()
    folder.mark_done(7)
    assert folder.is_done()
    assert (tmp_path / "done").read_text() == "7 steps\n"
    folder.mark_not_done()
    assert os.listdir(tmp_path) == []


def test_a_finetuned_student_is_of_a_step_and_a_checkpoint(tmp_path):
    folder = RunFolder(str(tmp_path))
    name = "finetune/from-step-7.weights.h5"
    assert folder.finetuned_path(7) == folder.path(name)
    assert folder.finetuned_path(7, "best") == folder.path(name)
    others = {folder.finetuned_path(7, path) for path in ("a/step-7", "b")}
    assert len(others) == 2 and folder.path(name) not in others


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (".git/", "is a git repository"),
        ("README.md", "holds README.md, which no run wrote"),
        ("pictures/", "holds pictures, which no run wrote"),
        # Called as ours are, yet before a run has begun.
        ("checkpoints/", "holds checkpoints, which no run wrote"),
        ("metrics.jsonl", "holds metrics.jsonl, which no run wrote"),
        ("labeled.json", "holds labeled.json, which no run wrote"),
        ("hparams.json", "holds hparams.json, which no run wrote"),
        (None, "is your home"),
    ],
)
@pytest.mark.parametrize("task_mode", ["train", "inspect"])
def test_a_run_does_not_begin_among_other_files(
    tmp_path, monkeypatch, name, words, task_mode
):
    """As --output_dir=. in a checkout would."""
    monkeypatch.chdir(tmp_path)
    if name is None:
        monkeypatch.setenv("HOME", str(tmp_path))
    elif name.endswith("/"):
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text('{"lr": 3}')
    with pytest.raises(ConfigError, match=words):
        Experiment(Config(output_dir=".", task_mode=task_mode))
    (tmp_path / "run").mkdir()
    Experiment(Config(output_dir="run", task_mode=task_mode))
    (tmp_path / "hparams.json").write_text(Config().to_json())
    Experiment(Config(output_dir=".", task_mode=task_mode))  # It is a run's.


def test_what_comes_before_a_run_may_be_there(tmp_path):
    for name in ("train.log", "nohup.out", "done.0123abcd-12.part", ".x"):
        (tmp_path / name).write_text("")
    choice = {"source": "digits", "label_subset": "first", "indices": [0]}
    (tmp_path / "labeled.json").write_text(json.dumps(choice))
    (tmp_path / "lost+found").mkdir()  # Of a disk of its own.
    Experiment(Config(output_dir=str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "kind", "task_mode"),
    [
        ("metrics.jsonl", "folder", "train"),
        ("labeled.json", "pipe", "train"),
        ("events", "file", "train"),
        ("checkpoints", "pipe", "train"),
        ("saved_model", "file", "export"),
        ("eval.json", "folder", "eval"),
        ("inference", "file", "inference"),
    ],
)
def test_what_is_of_another_kind_is_refused_before_work(
    tmp_path, name, kind, task_mode
):
    (tmp_path / "hparams.json").write_text(Config().to_json())
    path = tmp_path / name
    make = dict(folder=path.mkdir, file=path.touch)
    make.get(kind, lambda: os.mkfifo(path))()
    with pytest.raises(ConfigError, match=f"{name} is not a ") as caught:
        Experiment(Config(output_dir=str(tmp_path), task_mode=task_mode))
    assert "Move it away" in str(caught.value)


def test_a_folder_of_somebody_else_is_refused_before_work(
    tmp_path, monkeypatch
):
    """Root may write anywhere: what it would be told is put in its place."""
    for name in ("saved_model", "events"):
        (tmp_path / name).mkdir()
    theirs = str(tmp_path / "saved_model")
    monkeypatch.setattr(os, "access", lambda path, mode: path != theirs)
    run = RunFolder(str(tmp_path))
    with pytest.raises(ConfigError, match="saved_model is a folder that you"):
        run.check_kinds(STAGES["export"].files)
    run.check_kinds(STAGES["train"].files)
