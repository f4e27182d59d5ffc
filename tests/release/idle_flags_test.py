"""Every flag of the release is there, as it is there; README runs too."""

import dataclasses
import json
import re

import pytest
import tensorflow as tf
from absl import flags

from meta_pseudo_labels.release.idle_flags import IDLE_FLAGS
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.config.flags import (
    config_from_flagfile,
    config_from_flags,
    flag_warnings,
)
from tests.command_line import defined, parse

TYPES = {
    "boolean": "bool",
    "integer": "int",
    "float": "float",
    "string": "string",
}
IDLE = {flag.name: flag for flag in IDLE_FLAGS}
FIELDS = {field.name for field in dataclasses.fields(Config)}
# Of these the release has the names only; here they are settings.
INFERENCE = {
    "inference_ckpt",
    "inference_ckpt_ensemble",
    "inference_class_id",
    "inference_num_threads",
    "inference_thread_index",
}


@pytest.fixture(scope="module")
def release(reference_dir):
    return json.loads((reference_dir / "release_flags.json").read_text())


def warned(*arguments):
    values = defined()
    values(["main.py", *arguments])
    return flag_warnings(config_from_flags(values), values)


def test_names_types_and_defaults_are_the_releases(release):
    values = defined()
    assert len(release["flags"]) > 70
    for row in release["flags"]:
        flag = values[row["name"]]
        assert flag.default == row["default"], row["name"]
        assert type(flag.default) is type(row["default"]), row["name"]
        assert flag.flag_type() == TYPES[row["type"]], row["name"]


def test_help_tells_which_flags_the_release_never_read(release):
    values = defined()
    for row in release["flags"]:
        text = values[row["name"]].help
        built = row["read_by_release"] or row["name"] in INFERENCE
        assert ("(Never read by the release.)" in text) is not built, row
        assert len(text) > 20 and text[0].isupper()


# Read by the release, which does not define them; here they are settings.
BUILT_HERE = {"num_cores_per_replica", "use_xla_sharding"}


def test_flags_without_effect_are_just_those_and_no_settings(release):
    """What the release reads must reach `Config`; what it does not, not."""
    unread = {f["name"] for f in release["flags"] if not f["read_by_release"]}
    undefined = {f["name"] for f in release["undefined_in_release"]}
    assert BUILT_HERE <= undefined & FIELDS
    assert INFERENCE == {name for name in unread if "inference" in name}
    unread -= INFERENCE
    undefined -= BUILT_HERE
    assert set(IDLE) == unread | undefined
    assert {f.name for f in IDLE_FLAGS if f.undefined} == undefined
    read = {f["name"] for f in release["flags"] if f["read_by_release"]}
    assert read - FIELDS == {"dataset_name"}
    assert not FIELDS & set(IDLE)


def test_undefined_flags_are_defined_as_they_must_have_been():
    values = defined()
    for name, type_, default in (
        ("num_cores_per_replica", "int", 1),
        ("use_xla_sharding", "bool", False),
        ("use_vizier", "bool", False),
        ("tpu_platform", "string", None),
    ):
        assert (values[name].flag_type(), values[name].default) == (
            type_,
            default,
        )
        built = name in BUILT_HERE
        assert ("(Undefined in the release.)" in values[name].help) != built


@pytest.mark.parametrize("flag", IDLE_FLAGS, ids=lambda flag: flag.name)
def test_flags_without_effect_are_accepted_with_a_warning(flag):
    value = {bool: "true", int: "7", float: "0.25", str: "x"}[flag.value_type]
    argument = f"--{flag.name}={value}"
    assert parse(argument) == Config()
    (line,) = warned(argument)
    assert line.startswith(f"--{flag.name} has no effect: ")
    assert line.endswith(".") and "\n" not in line
    if flag.instead:
        assert f"use --{flag.instead}" in line
        assert flag.instead in FIELDS


def test_a_flagfile_is_warned_about_too(tmp_path):
    path = tmp_path / "run.flags"
    path.write_text("--teacher_lr=0.1\n--mpl_temp=0.75\n")
    assert [line.split()[0] for line in warned(f"--flagfile={path}")] == [
        "--teacher_lr",
        "--mpl_temp",
    ]


def test_what_was_not_said_is_not_warned_about():
    """Nor the only sensible value of a flag that must be given."""
    assert warned() == []
    assert warned("--num_cores_per_replica=1", "--nouse_xla_sharding") == []


def test_a_machine_without_tpus_is_warned_about(monkeypatch):
    for devices in ([], ["TPU:0"]):
        monkeypatch.setattr(
            tf.config, "list_physical_devices", lambda kind, d=devices: d
        )
        lines = warned("--use_tpu")
        assert bool(lines) != bool(devices)
        if lines:
            assert "--use_tpu has no effect: there is no TPU" in lines[0]
    (line,) = warned("--dataset_service_replicas=2")
    assert "--data_service names a service" in line


def test_help_lists_every_flag_of_the_release_with_its_default(release):
    """Once per flag, between its name and the next one's."""
    text = " ".join(defined().main_module_help().split())
    for row in release["flags"]:
        name = "[no]" * (row["type"] == "boolean") + row["name"]
        _, _, entry = text.partition(f" --{name}: ")
        entry = re.split(r" --[\w\[\]]+: ", entry)[0]
        default = row["default"]
        if isinstance(default, bool):
            default = str(default).lower()
        _, _, shown = entry.rpartition("(default: ")
        expected = "none" if default is None else repr(str(default))
        assert shown.split(")")[0] == expected, row["name"]


# The runs of the release's README.

_IMAGENET = "imagenet_10_percent_mpl"


@pytest.mark.parametrize("name", ["cifar10_4000_mpl", _IMAGENET])
def test_the_flagfiles_are_the_readmes_runs(release, name, request):
    """Flag by flag, but for that which would begin anew each time."""
    (run,) = [
        settings
        for title, settings in release["readme_runs"].items()
        if title.split()[0] == name
    ]
    values = defined()
    path = request.config.rootpath / "flags" / f"{name}.flags"
    values(["main.py", f"--flagfile={path}"])
    given = {n: values[n].value for n in values if values[n].present}
    assert given == {k: v for k, v in run.items() if k != "reset_output_dir"}


def test_the_flagfiles_give_settings(request):
    folder = request.config.rootpath / "flags"
    config = config_from_flagfile(folder / "cifar10_4000_mpl.flags")
    assert (config.dataset, config.method) == ("cifar10", "mpl")
    assert (config.num_labeled, config.uda_weight) == (4000, 8.0)
    assert config.mpl_student_lr_warmup_steps == 5000
    config = config_from_flagfile(folder / f"{_IMAGENET}.flags")
    assert config.dataset == "imagenet2012_subset"
    assert (config.model_type, config.image_size) == ("resnet-50", 224)
    assert (config.train_batch_size, config.grad_bound) == (1024, 5.0)


# As printed: what both have, then what each has of its own.
_SHARED = """
    --task_mode=train --dataset_name=cifar10_4000_mpl --log_every=100
    --image_size=32 --num_classes=10 --optim_type=momentum
    --lr_decay_type=cosine --use_bfloat16 --use_tpu --nouse_augment
    --reset_output_dir --eval_batch_size=64 --alsologtostderr
    --running_local_dev --train_batch_size=128 --output_dir=runs/x
    --tpu_platform=your_tpu_platform --tpu_topology=your_tpu_topology
"""
_OWN = {
    "cifar": """
        --model_type=wrn-28-2 --save_every=1000 --uda_data=7
        --weight_decay=5e-4 --num_train_steps=300000 --augment_magnitude=16
        --batch_norm_batch_size=256 --dense_dropout_rate=0.2
        --ema_decay=0.995 --label_smoothing=0.15
        --mpl_student_lr_wait_steps=3000 --uda_steps=5000 --uda_temp=0.7
        --uda_threshold=0.6 --uda_weight=8
    """,
    "imagenet": """
        --model_type=resnet-50 --label_smoothing=0.1 --grad_bound=5.
        --uda_data=15 --uda_steps=50000 --uda_temp=0.5 --uda_threshold=0.6
        --uda_weight=20. --tpu_platform=tpu_platform
        --tpu_topology=tpu_topology --train_batch_size=1024
        --num_train_steps=700000 --num_warmup_steps=10000
        --use_augment=False --augment_magnitude=17
        --batch_norm_batch_size=1024 --mpl_student_lr=0.1
        --mpl_student_lr_wait_steps=20000
        --mpl_student_lr_warmup_steps=5000 --mpl_teacher_lr=0.15
        --mpl_teacher_lr_warmup_steps=5000 --ema_decay=0.999
        --dense_dropout_rate=0.1 --weight_decay=1e-4 --save_every=1000
    """,
}


@pytest.mark.parametrize("name", _OWN)
def test_the_readmes_command_lines_parse_as_printed(release, name):
    values = defined()
    # One of absl's own, which main.py has from absl.logging.
    assert "alsologtostderr" in flags.FLAGS
    flags.DEFINE_bool("alsologtostderr", False, "", flag_values=values)
    values(["main.py", *_SHARED.split(), *_OWN[name].split()])
    config = config_from_flags(values)
    assert config.dataset == "cifar10" and config.method == "mpl"
    assert config.train_batch_size == (128 if name == "cifar" else 1024)
    assert config.use_augment is False
    warnings = " ".join(flag_warnings(config, values))
    assert "--tpu_platform" in warnings and "--tpu_topology" in warnings
