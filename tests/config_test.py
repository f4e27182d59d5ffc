"""Settings: what is accepted, what is refused and in which words."""

import dataclasses
import json
import os

import pytest

from meta_pseudo_labels.config import (
    FREE_SETTINGS,
    Config,
    ConfigError,
    check_same_training,
    require_output_dir,
    saved_settings,
    value_type,
)

FIELDS = dataclasses.fields(Config)

# Defaults that are not the release's, and why.
OTHER_DEFAULTS = {
    "task_mode": "the release has none and fails without; training is meant",
}


def write_hparams(folder, text):
    (folder / "hparams.json").write_text(text)
    return str(folder)


def test_defaults_are_valid():
    assert Config().task_mode == "train"


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_setting_explains_itself(field):
    """A sentence, and a default that is in the field's own range."""
    text = field.metadata["help"]
    assert text[0].isupper() or text.startswith("supervised")
    assert text.endswith(".") and len(text) > 12
    Config(**{field.name: field.default})


def test_defaults_are_those_of_the_release(reference_dir):
    flags = json.loads((reference_dir / "release_flags.json").read_text())
    release = {flag["name"]: flag for flag in flags["flags"]}
    types = {"integer": int, "float": float, "boolean": bool, "string": str}
    shared = [f for f in FIELDS if f.name in release]
    assert len(shared) > 25
    differing = set()
    for field in shared:
        flag = release[field.name]
        assert value_type(field) is types[flag["type"]], field.name
        if field.default != flag["default"]:
            differing.add(field.name)
    assert differing == set(OTHER_DEFAULTS)


BOUNDS = [
    (field, side)
    for field in FIELDS
    for side in ("low", "high")
    if field.metadata[side] is not None
]


@pytest.mark.parametrize(
    ("field", "side"), BOUNDS, ids=lambda v: getattr(v, "name", v)
)
def test_bounds_are_inclusive_and_named(field, side):
    bound = field.metadata[side]
    Config(**{field.name: bound})
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
        ("task_mode", "predict", "train, finetune, eval, export"),
        ("method", "fixmatch", "supervised, uda, mpl"),
        ("dataset", "mnist", "digits"),
        ("lr_decay_type", "linear", "constant, exponential, cosine"),
        ("mpl_feedback", "exakt", "exact, reinforce, release, off"),
        ("mpl_pseudo_labels", "firm", "soft, hard, sampled"),
    ],
)
def test_unknown_choices_are_named_with_the_known_ones(name, value, known):
    with pytest.raises(ConfigError) as caught:
        Config(**{name: value})
    assert str(caught.value) == (
        f"--{name}={value} is unknown; use one of: {known}."
    )


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


COSINE = dict(lr_decay_type="cosine", num_train_steps=30)


@pytest.mark.parametrize(
    "settings",
    [
        dict(method="supervised", num_warmup_steps=30),
        dict(method="uda", num_warmup_steps=30),
        dict(
            mpl_student_lr_wait_steps=10,
            mpl_student_lr_warmup_steps=20,
            mpl_teacher_lr_warmup_steps=0,
        ),
        dict(
            mpl_student_lr_wait_steps=0,
            mpl_student_lr_warmup_steps=0,
            mpl_teacher_lr_warmup_steps=30,
        ),
    ],
)
def test_a_cosine_needs_steps_after_the_warmup(settings):
    with pytest.raises(ConfigError) as caught:
        Config(**COSINE, **settings)
    assert "--num_train_steps=30" in str(caught.value)
    assert "at step 30" in str(caught.value)
    Config(**COSINE | settings | dict(num_train_steps=31))
    Config(**settings | dict(num_train_steps=30))  # Other decays do not end.


def test_warmups_of_other_methods_do_not_count():
    Config(**COSINE, method="supervised", mpl_teacher_lr_warmup_steps=99)
    Config(
        **COSINE,
        num_warmup_steps=99,
        mpl_student_lr_wait_steps=0,
        mpl_student_lr_warmup_steps=0,
        mpl_teacher_lr_warmup_steps=0,
    )


def test_settings_cannot_be_changed_or_misspelled():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().lr = 1.0
    with pytest.raises(TypeError):
        Config(learning_rate=1.0)


def test_json_gives_the_same_settings_back(tmp_path):
    config = Config(output_dir=str(tmp_path), lr=0.3, mpl_feedback="off")
    folder = write_hparams(tmp_path, config.to_json())
    assert Config(**saved_settings(folder)) == config


def test_no_folder_has_no_settings(tmp_path):
    assert saved_settings(None) == {}
    assert saved_settings("") == {}
    assert saved_settings(str(tmp_path)) == {}
    assert saved_settings(str(tmp_path / "absent")) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "[1, 2]", "3", "null"])
def test_unreadable_settings_are_named(tmp_path, text):
    folder = write_hparams(tmp_path, text)
    with pytest.raises(ConfigError, match="hparams.json cannot be read"):
        saved_settings(folder)


def test_every_changed_setting_of_a_run_is_named(tmp_path):
    folder = str(tmp_path)
    write_hparams(tmp_path, Config(output_dir=folder, lr=0.3).to_json())
    check_same_training(Config(output_dir=folder, lr=0.3))
    with pytest.raises(ConfigError) as caught:
        check_same_training(Config(output_dir=folder, lr=0.4, seed=7))
    message = str(caught.value)
    assert "lr was 0.3, is now 0.4" in message
    assert "seed was 0, is now 7" in message
    assert folder in message and "--output_dir" in message


def test_free_settings_may_change(tmp_path):
    folder = str(tmp_path)
    write_hparams(tmp_path, Config(output_dir="elsewhere").to_json())
    changed = Config(
        output_dir=folder,
        task_mode="eval",
        eval_batch_size=7,
        finetune_lr=1.0,
        finetune_steps=3,
        finetune_batch_size=9,
        save_every=11,
        progress=False,
    )
    names = {f.name for f in FIELDS}
    assert FREE_SETTINGS <= names
    assert all(
        getattr(changed, name) != getattr(Config(), name)
        for name in FREE_SETTINGS
    )
    check_same_training(changed)


def test_settings_that_an_older_run_did_not_know_may_have_any_value(tmp_path):
    settings = json.loads(Config(lr=0.3).to_json())
    del settings["uda_weight"]
    folder = write_hparams(tmp_path, json.dumps(settings))
    check_same_training(Config(output_dir=folder, lr=0.3, uda_weight=8.0))


@pytest.mark.parametrize("path", [None, ""])
def test_a_missing_output_dir_is_named(path):
    with pytest.raises(ConfigError, match="--output_dir is missing"):
        require_output_dir(Config(output_dir=path))


def test_an_output_dir_that_is_a_file_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "run", file / "deep" / "run"):
        with pytest.raises(ConfigError, match=f"{file} is a file"):
            require_output_dir(Config(output_dir=str(path)))


def test_an_output_dir_that_cannot_be_written_to_is_named(
    tmp_path, monkeypatch
):
    """Permissions do not bind root, who may be running this test."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    config = Config(output_dir=str(tmp_path / "run"))
    with pytest.raises(ConfigError, match=f"may not write to {tmp_path};"):
        require_output_dir(config)


def test_a_new_output_dir_is_fine_unless_it_must_exist(tmp_path):
    path = str(tmp_path / "new" / "run")
    config = Config(output_dir=path)
    assert require_output_dir(config) == path
    with pytest.raises(ConfigError, match=f"{path} does not exist"):
        require_output_dir(config, must_exist=True)
    assert list(tmp_path.iterdir()) == []
