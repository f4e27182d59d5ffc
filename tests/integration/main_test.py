"""main.py as users start it: whole runs, and whatever they may mistype."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.run.command import run
from meta_pseudo_labels.run.config import Config
from tests.command_line import parse, refusal_of

TINY = (
    "--method=mpl",
    "--model_type=mlp",
    "--num_train_steps=4",
    "--mpl_student_lr_wait_steps=1",
    "--mpl_student_lr_warmup_steps=1",
    "--mpl_teacher_lr_warmup_steps=1",
    "--save_every=2",
    "--log_every=1",
    "--train_batch_size=4",
    "--uda_data=2",
    "--ema_decay=0.9",
    "--finetune_steps=2",
)

# What TensorFlow and its libraries say as they start, with no way to stop it.
_STARTUP = re.compile(r"WARNING: All log messages before absl|[IWE]\d{4} ")


def start(checkout, *arguments):
    return subprocess.Popen(
        [sys.executable, "main.py", *arguments],
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def finish(process):
    """Status, output, and the lines on stderr that are not TensorFlow's."""
    output, errors = process.communicate(timeout=300)
    lines = [line for line in errors.splitlines() if not _STARTUP.match(line)]
    return process.returncode, output, lines


@pytest.mark.parametrize(
    "apart", [False, pytest.param(True, marks=pytest.mark.long)]
)
def test_a_run_from_training_to_a_served_model(
    tmp_path, request, capsys, apart
):
    """Each stage from the folder alone, and in a process of its own.

    A process takes ten seconds to begin: the fast one trains in another, and
    goes on within this.
    """
    checkout, folder = request.config.rootpath, tmp_path / "run"

    def stage(task_mode, *settings):
        typed = (f"--task_mode={task_mode}", f"--output_dir={folder}")
        if apart or task_mode == "train":
            return start(checkout, *typed, *settings)
        run(parse(*typed, *settings))
        return capsys.readouterr().out

    def output_of(process):
        if isinstance(process, str):
            return process
        status, output, errors = finish(process)
        assert (status, errors) == (0, [])
        return output

    said = output_of(stage("train", *TINY)).split("\n")
    for line, words in zip(
        said,
        [
            "Devices: 1 CPU replica; TensorFlow sees no GPU",
            "Peak learning rate at a batch of 4: student 0.00156 (0.1 per 256 ",
            "train: step 0 of 4, compiling the first step takes",
            "train: step 2 of 4, evaluated, ",
            "train: step 4 of 4, evaluated, ",
            "train: step 4 of 4, ended after ",
            f"Trained: {folder}",
        ],
        strict=False,
    ):
        assert line.startswith(words)
    output = output_of(stage("finetune", "--noprogress"))
    assert output.startswith(f"Finetuned: {folder}")
    evaluating, exporting = stage("eval"), stage("export")
    table = output_of(evaluating)
    assert output_of(exporting) == (
        f"Exported: {folder}/saved_model/1 (finetuned)\n"
    )

    accuracies = json.loads((folder / "eval.json").read_text())
    printed = [line.split() for line in table.splitlines()[1:7]]
    assert printed[0] == ["network", "top-1", "top-5", "ECE", "nll", "images/s"]
    assert [row[0] for row in printed[2:]] == list(accuracies)
    for network, top_1, *_ in printed[2:]:
        assert top_1 == f"{accuracies[network]:.4f}"
    served = tf.saved_model.load(str(folder / "saved_model" / "1"))
    answers = served.signatures["serving_default"](
        images=tf.zeros([3, 8, 8, 3], tf.uint8)
    )
    assert answers["labels"].shape == [3]
    np.testing.assert_allclose(
        np.sum(answers["probabilities"], axis=-1), np.ones(3), rtol=1e-5
    )


@pytest.mark.long
def test_errors_reach_the_shell(tmp_path, request):
    """A message on stderr, a status other than 0, and no folder."""
    folder = tmp_path / "run"
    cases = {
        (
            "--dataset=mnist",
        ): "Error: --dataset=mnist: unknown data set 'mnist'; choose",
        ("--num_train_step=4",): "Error: Unknown command line flag",
        ("--uda_data=four",): "Error: flag --uda_data=four:",
    }
    processes = [
        start(request.config.rootpath, f"--output_dir={folder}", *arguments)
        for arguments in cases
    ]
    for process, words in zip(processes, cases.values(), strict=True):
        status, output, errors = finish(process)
        assert status == 1
        assert output == ""
        assert words in errors[0]
        assert "Traceback" not in "".join(errors)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (
            "--dataset=mnist",
            "--dataset=mnist: unknown data set 'mnist'; choose",
        ),
        ("--dataset=", "--dataset=: unknown data set ''; choose one of"),
        (
            "--model_type=vgg",
            "'vgg'. Did you mean one of: VGG19, VGG16? Known: wrn-",
        ),
        ("--model_type=wrn-11-1", "6n + 4"),
        ("--teacher_model_type=vgg", "Unknown model_type 'vgg'"),
        ("--task_mode=predict", "--task_mode=predict is unknown"),
        ("--task_mode=inference", "does not exist: train there first"),
        ("--dataset_name=svhn", "--dataset_name=svhn is unknown"),
        ("--dataset_name=cifar10", "means --method=supervised, but"),
        (
            "--optim_type=ftrl",
            "one of: sgd, momentum, rmsprop, lars, adam, adamw.",
        ),
        ("--num_classes=7", "--dataset=digits has 10 classes"),
        ("--distribution=tpu", "No TPU can be reached as --master=local"),
        (
            "--method=comic",
            "use one of: adamatch, fixmatch, flexmatch, freematch,",
        ),
        ("--method=pseudo_labels", "pseudo_labels needs --teacher_labels="),
        ("--teacher_labels=absent", "There is no absent; make it with `mpl"),
        ("--mpl_feedback=both", "--mpl_feedback=both is unknown"),
        ("--mpl_pseudo_labels=hard", "works with pseudo_labels in ('soft',)"),
        ("--lr_decay_type=linear", "--lr_decay_type=linear is unknown"),
        ("--train_batch_size=-4", "-4 is too small; at least 1."),
        ("--train_batch_size=0", "--train_batch_size=0 is too small"),
        ("--eval_batch_size=-1", "--eval_batch_size=-1 is too small"),
        ("--uda_data=0", "--uda_data=0 is too small; at least 1."),
        ("--num_train_steps=-1", "--num_train_steps=-1 is too small"),
        ("--save_every=0", "--save_every=0 is too small"),
        ("--augment_magnitude=31", "is too large; at most 30."),
        ("--seed=-1", "--seed=-1 is too small; at least 0."),
        ("--seed=4294967296", "is too large; at most 4294967295."),
        ("--mpl_student_lr=nan", "must be a finite number."),
        ("--grad_bound=inf", "--grad_bound=inf must be a finite number."),
        ("--dense_dropout_rate=1", "is too large; at most 0.99."),
        ("--ema_decay=1.5", "is too large; at most 1."),
        ("--model_type=MobileNetV2", "Input size must be at least 32x32"),
        ("--num_labeled=41", "num_labeled is 41; give a positive multiple"),
        ("--num_labeled=2000", "num_labeled is 2000"),
        ("--num_labeled=1297", "--method=mpl learns from unlabeled images"),
        ("--known_classes=11", "known_classes is 11; give 2 to 10"),
        ("--label_noise=1", "--label_noise=1.0 is too large; at most 0.99."),
        ("--label_noise=0.01", "which is less than one; give at least 0.025"),
        ("--num_validation=31", "num_validation is 31; of 40 labeled images"),
        ("--num_feedback=40", "num_feedback is 40; of 40 labeled images"),
        ("mpl", "Unexpected argument 'mpl'; settings are flags"),
        ("--output_dir=", "--output_dir is missing"),
    ],
)
def test_what_cannot_be_meant_is_named_and_writes_nothing(
    tmp_path, monkeypatch, main, argument, words
):
    monkeypatch.chdir(tmp_path)
    assert words in refusal_of(main, "--output_dir=run", *TINY, argument)
    assert list(tmp_path.iterdir()) == []


def test_flags_without_effect_are_warned_about(main, capsys):
    refusal_of(
        main, "--teacher_lr=1", "--lr=1", "--tpu_topology=2x2", "--output_dir="
    )
    output, errors = capsys.readouterr()
    assert output == ""
    assert [
        line.split(" has no effect: ")[0] for line in errors.splitlines()
    ] == [
        "Warning: --teacher_lr",
        "Warning: --tpu_topology",
        "Warning: --lr",
    ]


def test_a_missing_output_dir_is_named(tmp_path, monkeypatch, main):
    monkeypatch.chdir(tmp_path)
    for stage in ("train", "finetune", "eval", "export", "inference"):
        message = refusal_of(main, *TINY, f"--task_mode={stage}")
        assert "--output_dir is missing: name the folder" in message
    assert list(tmp_path.iterdir()) == []


def test_an_output_dir_that_is_a_file_is_left_alone(tmp_path, main):
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (file, file / "run"):
        message = refusal_of(main, f"--output_dir={path}", *TINY)
        assert f"--output_dir={path}: {file} is a file" in message
    assert file.read_text() == "mine"


@pytest.mark.parametrize("stage", ["finetune", "eval", "export", "inference"])
def test_later_stages_need_a_trained_run(tmp_path, main, stage):
    folder, absent = tmp_path / "empty", tmp_path / "absent"
    folder.mkdir()
    for path, words in (
        (absent, "does not exist: train there first"),
        (folder, "holds no checkpoint: train there first"),
    ):
        message = refusal_of(
            main, *TINY, f"--task_mode={stage}", f"--output_dir={path}"
        )
        assert f"{path} {words}" in message
    assert not absent.exists()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("stage", ["train", "eval"])
def test_changed_settings_of_a_run_are_named(tmp_path, main, stage):
    settings = Config(output_dir=str(tmp_path), uda_data=5).to_json()
    (tmp_path / "hparams.json").write_text(settings)
    message = refusal_of(
        main,
        f"--output_dir={tmp_path}",
        f"--task_mode={stage}",
        "--uda_data=6",
        "--seed=1",
    )
    assert "seed was 0, is now 1; uda_data was 5, is now 6." in message
    assert "or another --output_dir" in message
    assert [p.name for p in tmp_path.iterdir()] == ["hparams.json"]


def test_settings_that_cannot_be_read_are_named(tmp_path, main):
    (tmp_path / "hparams.json").write_text("{")
    for stage in ("train", "eval"):
        message = refusal_of(
            main, *TINY, f"--output_dir={tmp_path}", f"--task_mode={stage}"
        )
        assert f"{tmp_path}/hparams.json cannot be read" in message


@pytest.mark.long
def test_a_checkpoint_of_another_model_is_named(tmp_path, main, capsys):
    """As when someone deletes hparams.json to get past its check."""
    folder = f"--output_dir={tmp_path}"
    main(folder, *TINY, "--num_train_steps=1")
    (tmp_path / "hparams.json").unlink()
    message = refusal_of(main, folder, *TINY, "--method=uda")
    assert f"{tmp_path}/checkpoints/step-1 is of another model" in message
    assert "Trained" in capsys.readouterr().out
