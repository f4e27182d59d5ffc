"""Settings: what is accepted, what is refused and in which words."""

import dataclasses
import json

import pytest

from meta_pseudo_labels.data import DATASETS
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.utils.settings import ConfigError, value_type

FIELDS = dataclasses.fields(Config)

# Defaults that are not the release's, and why. The flags show the release's.
OTHER_DEFAULTS = {
    "task_mode": "the release has none and fails without; training is meant",
    "image_size": "the data set knows it",
    "num_classes": "the data set knows it",
    "inference_class_id": "0 is a class; it counts only where it is given",
}


def test_defaults_are_valid():
    assert Config().task_mode == "train"


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_setting_explains_itself(field):
    """A sentence, and a default that is in the field's own range."""
    text = field.metadata["help"]
    assert text[0].isupper()
    assert text.endswith(".") and len(text) > 12
    Config(**{field.name: field.default})


def test_defaults_are_those_of_the_release(reference_dir):
    flags = json.loads((reference_dir / "release_flags.json").read_text())
    release = {flag["name"]: flag for flag in flags["flags"]}
    types = {"integer": int, "float": float, "boolean": bool, "string": str}
    shared = [f for f in FIELDS if f.name in release]
    assert len(shared) > 45
    differing = set()
    for field in shared:
        flag = release[field.name]
        assert value_type(field) is types[flag["type"]], field.name
        assert field.metadata["flag_default"] == flag["default"], field.name
        if field.default != flag["default"]:
            differing.add(field.name)
    assert differing == set(OTHER_DEFAULTS)


BOUNDS = [
    (field, side)
    for field in FIELDS
    for side in ("low", "high")
    if field.metadata[side] is not None
]


# What a setting cannot be given without.
NEEDED = {"worker_index": {"worker_addresses": "here:1,there:1"}}


@pytest.mark.parametrize(
    ("field", "side"), BOUNDS, ids=lambda v: getattr(v, "name", v)
)
def test_bounds_are_inclusive_and_named(field, side):
    bound = field.metadata[side]
    Config(**{field.name: bound}, **NEEDED.get(field.name, {}))
    step = 1 if value_type(field) is int else abs(bound) * 1e-3 or 1e-3
    outside = bound + (step if side == "high" else -step)
    with pytest.raises(ConfigError) as caught:
        Config(**{field.name: outside})
    message = str(caught.value)
    assert message.startswith(f"--{field.name}={outside} is too ")
    assert message.endswith(f"{bound}.")


@pytest.mark.parametrize(
    "field",
    [f for f in FIELDS if value_type(f) is float],
    ids=lambda field: field.name,
)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_are_finite(field, value):
    with pytest.raises(ConfigError, match=rf"--{field.name}={value} "):
        Config(**{field.name: float(value)})


@pytest.mark.parametrize(
    ("name", "value", "known"),
    [
        (
            "task_mode",
            "predict",
            "cache_labels, diagnose, eval, export, finetune, evals, "
            "eval_forever, inspect, inference, report, review, train",
        ),
        (
            "method",
            "comic",
            "adamatch, fixmatch, flexmatch, freematch, mpl, "
            "pseudo_labels, supervised, uda",
        ),
        ("optim_type", "ftrl", "sgd, momentum, rmsprop, lars, adam, adamw"),
        ("lr_decay_type", "linear", "constant, exponential, cosine"),
        (
            "mpl_feedback",
            "exakt",
            "exact, reinforce, reinforce_dot_product, reinforce_cosine, "
            "reinforce_per_example, release, off",
        ),
        ("mpl_pseudo_labels", "firm", "soft, hard, sampled"),
    ],
)
def test_unknown_choices_are_named_with_the_known_ones(name, value, known):
    with pytest.raises(ConfigError) as caught:
        Config(**{name: value})
    near = " (did you mean exact?)" if value == "exakt" else ""
    assert str(caught.value) == (
        f"--{name}={value} is unknown{near}; use one of: {known}."
    )


def test_unknown_data_sets_are_named_with_the_known_ones():
    with pytest.raises(ConfigError, match="--dataset=mnist: .*cifar10, "):
        Config(dataset="mnist")
    for name in (*DATASETS, "folders", "tfds:mnist"):
        Config(dataset=name)


def test_a_subset_of_labels_is_a_word_or_a_file(tmp_path):
    with pytest.raises(ConfigError, match="--label_subset=last is not a file"):
        Config(label_subset="last")
    path = tmp_path / "labeled.json"
    path.write_text("{}")
    Config(label_subset=str(path))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("train_batch_size", 4.0, "int"),
        ("train_batch_size", "4", "int"),
        ("train_batch_size", True, "int"),
        ("train_batch_size", None, "int"),
        ("lr", "0.1", "float"),
        ("lr", False, "float"),
        ("progress", 1, "bool"),
        ("output_dir", 3, "str"),
        ("model_type", None, "str"),
        ("image_size", "32", "int"),
        ("batch_norm_batch_size", 2.0, "int"),
        ("use_tpu", None, "bool"),
    ],
)
def test_values_of_another_type_are_named(name, value, expected):
    with pytest.raises(ConfigError) as caught:
        Config(**{name: value})
    assert f"--{name}={value} must be of type {expected}" in str(caught.value)


def test_integers_are_fine_as_floats():
    assert Config(lr=1, weight_decay=0).lr == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(model_type="vgg"), "'vgg'"),
        (dict(model_type=""), "model_type ''"),
        (dict(model_type="wrn-11-1"), "got 11"),
        (dict(model_type="wrn-10-0"), "got 0"),
        (dict(teacher_model_type="wrn-28"), "'wrn-28'"),
        (
            dict(mpl_feedback="exact", mpl_pseudo_labels="hard"),
            "feedback='exact' works with pseudo_labels in ('soft',)",
        ),
        (
            dict(mpl_feedback="reinforce", mpl_pseudo_labels="soft"),
            "got 'soft'",
        ),
    ],
)
def test_settings_of_the_library_are_refused_as_the_users(settings, words):
    with pytest.raises(ConfigError) as caught:
        Config(**settings)
    assert words in str(caught.value)


def test_classes_must_be_those_of_the_data_set():
    assert Config(num_classes=10).num_classes == 10
    with pytest.raises(ConfigError) as caught:
        Config(dataset="cifar100", num_classes=10)
    assert "--num_classes=10, but --dataset=cifar100 has 100 classes" in str(
        caught.value
    )


def test_a_step_is_restarted_only_after_a_checkpoint():
    restart = dict(load_checkpoint_and_restart_global_step=True)
    Config(load_checkpoint="ckpt", **restart)
    with pytest.raises(ConfigError, match="needs the path of a checkpoint"):
        Config(**restart)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        (dict(method="supervised", num_warmup_steps=30), 30),
        (dict(method="uda", num_warmup_steps=30), 30),
        (dict(method="supervised", mpl_teacher_lr_warmup_steps=99), 0),
        (
            dict(
                num_warmup_steps=99,
                mpl_student_lr_wait_steps=10,
                mpl_student_lr_warmup_steps=20,
                mpl_teacher_lr_warmup_steps=7,
            ),
            30,
        ),
        (
            dict(
                mpl_student_lr_wait_steps=1,
                mpl_student_lr_warmup_steps=2,
                mpl_teacher_lr_warmup_steps=40,
            ),
            40,
        ),
    ],
)
def test_steps_to_the_peak_of_all_rates(settings, steps):
    assert Config(**settings).steps_to_peak == steps


def test_a_run_may_end_while_it_warms_up():
    """As in the release: the README's runs cut down to a few steps."""
    Config(lr_decay_type="cosine", num_train_steps=20)


def test_settings_cannot_be_changed_or_misspelled():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().lr = 1.0
    with pytest.raises(TypeError):
        Config(learning_rate=1.0)


@pytest.mark.parametrize(
    "settings",
    [
        dict(model_type="mlp"),
        dict(model_type="wrn-10-1", teacher_model_type="MobileNetV2"),
    ],
)
def test_remat_needs_networks_with_blocks(settings):
    with pytest.raises(ConfigError, match="^--remat: --.*has no blocks"):
        Config(remat=True, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        dict(model_type="efficientnet-b0", teacher_model_type="resnet-50"),
        # There the teacher is another one, and small.
        dict(
            model_type="wrn-10-1",
            teacher_model_type="mlp-5-128",
            teacher_labels="folder",
        ),
        dict(model_type="wrn-10-1", teacher_model_type="mlp", method="uda"),
    ],
)
def test_remat_asks_no_more_than_it_needs(settings):
    assert Config(remat=True, **settings).remat


def test_slices_divide_the_batch():
    Config(train_batch_size=12, batch_slices=4)
    with pytest.raises(ConfigError, match="batch_slices=5 does not divide"):
        Config(train_batch_size=12, batch_slices=5)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("image_size", 1_000_000, "at most 8192"),
        ("train_batch_size", 10**9, "at most 1000000"),
        ("eval_batch_size", 10**9, "at most 1000000"),
        ("finetune_batch_size", 10**9, "at most 1000000"),
        ("inference_block", 10**9, "at most 1000000"),
        ("uda_data", 10**6, "at most 1000"),
        ("replicas_per_worker", 10**6, "at most 1000"),
        ("num_train_steps", 2**31, "at most 2147483647"),
        ("num_labeled", 10**30, "at most 2147483647"),
        ("max_to_keep", 10**30, "at most 2147483647"),
        ("diagnose_draws", 10**3_000, "at most 2147483647"),
        ("model_type", "wrn-10-99999999", "at most 1000"),
        ("model_type", "wrn-99999994-1", "1000"),
        ("model_type", "mlp-2-" + "9" * 5_000, "fewer than 1000000 units"),
        ("teacher_model_type", "mlp-2-99999999", "fewer than 1000000 units"),
    ],
)
def test_every_size_has_an_upper_bound(name, value, words):
    with pytest.raises(ConfigError, match=words) as caught:
        Config(**{name: value})
    assert len(str(caught.value)) < 250
