"""Warnings of flags that are typed, but not read by the run."""

import pathlib

import pytest

from meta_pseudo_labels.run.config.flags import config_from_flags, flag_warnings
from tests.command_line import defined


def unread(*arguments):
    """Warnings of flags that are typed, but not read."""
    values = defined()
    values(["main.py", *arguments])
    config = config_from_flags(values)
    ours = flag_warnings(config, values, arguments=arguments)
    return [line for line in ours if line not in flag_warnings(config, values)]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "--method=uda --mpl_feedback=off",
            "--mpl_feedback has no effect: --method=uda has no student that "
            "learns a teacher's labels.",
        ),
        (
            "--method=supervised --uda_steps 9 -augment_cutout=0 --uda_data=2",
            "--uda_data, --uda_steps have no effect: --method=supervised "
            "learns from labeled images alone.",
        ),
        (
            "--nouse_augment --seed=3",
            "--use_augment has no effect: only --method=supervised reads it; "
            "see --mpl_teacher_loss for the teacher of mpl.",
        ),
        (
            "--distribution=one_device --replicas_per_worker=2",
            "--replicas_per_worker has no effect: --distribution=one_device "
            "sets the number of replicas itself.",
        ),
        (
            "--distribution=mirrored --master=local --num_cores_per_replica=2",
            "--master, --num_cores_per_replica have no effect: "
            "--distribution=mirrored uses no TPU.",
        ),
        (
            "--num_cores_per_replica=2",
            "--num_cores_per_replica has no effect: it is for TPUs only, "
            "which --use_tpu, --master or --distribution=tpu asks for.",
        ),
        (
            "--mpl_teacher_loss=rand_augment --uda_weight=8",
            "--uda_weight has no effect: with --mpl_teacher_loss=rand_augment "
            "the teacher has no consistency term.",
        ),
    ],
)
def test_typed_flags_that_the_method_does_not_read_are_named(arguments, line):
    assert line in unread(*arguments.split())


def test_each_reason_is_told_once():
    lines = unread("--lr=1", "--num_warmup_steps=2", "--ema_start=3")
    assert [line.split(" no effect")[0] for line in lines] == [
        "--ema_start has",
        "--lr, --num_warmup_steps have",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        "--method=mpl --mpl_feedback_weight=2 --uda_temp=1 --seed=4",
        "--method=uda --lr=0.1 --uda_temp=1 --augment_magnitude=2",
        "--method=supervised --use_augment --augment_magnitude=2",
        "--method=uda -- --mpl_feedback=off",
        "--replicas_per_worker=2",
        "--distribution=tpu --master=local --num_cores_per_replica=2",
        "--task_mode=inspect --method=supervised --augment_magnitude=2",
    ],
)
def test_what_is_read_or_not_typed_is_not_warned_of(arguments):
    assert unread(*arguments.split()) == []


FLAGFILES = sorted(
    path.name
    for path in pathlib.Path(__file__).parents[3].glob("flags/*.flags")
)


@pytest.mark.parametrize("name", FLAGFILES)
def test_flagfiles_may_set_what_some_methods_do_not_read(
    name, monkeypatch, request
):
    monkeypatch.chdir(request.config.rootpath)
    flags = [f"--flagfile=flags/{name}"]
    if name == "cifar10_fast_student.flags":
        flags.append("--teacher_labels=runs/teacher")
    assert unread(*flags) == []
    # But what is typed beside them is warned of.
    (line,) = unread(*flags, "--rmsprop_rho=0.5")
    assert line.startswith("--rmsprop_rho has no effect: ")


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (20, "end at step 400, after the run does: hardly anything"),
        (400, "end at step 400, which leaves 0 steps"),
        (599, "end at step 400, which leaves 199 steps"),
        (600, None),
    ],
)
@pytest.mark.parametrize(
    "rates",
    [
        ["--method=mpl", "--mpl_student_lr_wait_steps=200"]
        + ["--mpl_student_lr_warmup_steps=200"]
        + ["--mpl_teacher_lr_warmup_steps=100"],
        ["--method=supervised", "--num_warmup_steps=400"],
    ],
)
def test_a_run_that_mostly_warms_up_is_warned_of(steps, words, rates):
    values = defined()
    values(["main.py", f"--num_train_steps={steps}", *rates])
    lines = flag_warnings(config_from_flags(values), values)
    found = [line for line in lines if "warming up" in line]
    assert len(found) == (words is not None)
    assert words is None or words in found[0]
