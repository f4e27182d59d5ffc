import errno
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.export.loading import ExportedModel
from meta_pseudo_labels.export.serving import models
from meta_pseudo_labels.export.serving.models import (
    Model,
    NoModel,
    RefusedInput,
    newest_version,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that halves positive numbers."""

    def halve(numbers):
        tf.debugging.assert_positive(numbers, message="only numbers above 0")
        return {"half": numbers / 2}

    module = tf.Module()
    module.halve = tf.function(
        halve, input_signature=[tf.TensorSpec([None], tf.float32, name="x")]
    )
    path = tmp_path_factory.mktemp("model")
    tf.saved_model.save(
        module,
        str(path / "12"),
        signatures=module.halve.get_concrete_function(),
    )
    (path / "9").mkdir()
    (path / "notes").mkdir()
    return path


def test_the_newest_version_counts(folder):
    assert newest_version(str(folder)) == (f"{folder}/12", "12")
    assert newest_version(f"{folder}/12") == (f"{folder}/12", "12")


def test_a_model_says_what_it_takes_and_answers(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    model = Model(f"~/{folder.name}")  # No shell reads --saved_model=~/...
    assert model.version == "12"
    (given,) = model.inputs["serving_default"].values()
    assert (given.dtype, given.shape) == (np.float32, (None,))
    outputs = model.predict(
        "serving_default", {"x": np.array([1, 3], np.float32)}
    )
    assert outputs["half"].tolist() == [0.5, 1.5]
    with pytest.raises(RefusedInput, match="^only numbers above 0"):
        model.predict("serving_default", {"x": np.array([-1], np.float32)})


@pytest.mark.parametrize(
    ("shape", "found"), [(None, None), ([], ()), ([None, 3], (None, 3))]
)
def test_a_model_has_to_say_how_many_axes_it_takes(tmp_path, shape, found):
    module = tf.Module()
    module.twice = tf.function(
        lambda numbers: {"twice": 2 * numbers},
        input_signature=[tf.TensorSpec(shape, tf.float32, name="x")],
    )
    tf.saved_model.save(
        module,
        str(tmp_path / "1"),
        signatures=module.twice.get_concrete_function(),
    )
    if found is None:
        with pytest.raises(NoModel, match="/1: x of the .*_default has an unk"):
            Model(str(tmp_path))
        return
    (given,) = Model(str(tmp_path)).inputs["serving_default"].values()
    assert given.shape == found


def _flipped(content):
    """The content with a bit in every 40 bytes turned over."""
    return bytes(
        byte ^ 4 if place % 40 == 7 else byte
        for place, byte in enumerate(content)
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        _flipped,
        None,
    ],
    ids=["half", "empty", "flipped", "absent"],
)
@pytest.mark.parametrize(
    "name",
    [
        "saved_model.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
    ],
)
def test_a_damaged_version_is_told_of_in_a_line(
    folder, tmp_path, name, damage, caplog
):
    """As one that is still being copied is; one loaded before goes on."""
    version = tmp_path / "13"
    shutil.copytree(folder / "12", version)
    before = Model(str(tmp_path))
    file = version / name
    content = file.read_bytes()
    file.unlink()
    if damage is not None:
        file.write_bytes(damage(content))
    for load in (Model, ExportedModel):
        with pytest.raises(ValueError) as caught:
            load(str(tmp_path))
        message = str(caught.value)
        assert str(tmp_path) in message and "\n" not in message
    assert caplog.records == []
    outputs = before.predict("serving_default", {"x": np.ones([1], "f")})
    assert outputs["half"].tolist() == [0.5]


def test_an_empty_path_is_not_this_folder(folder, monkeypatch):
    """Where a variable of the shell is not set."""
    monkeypatch.chdir(folder / "12")
    with pytest.raises(NoModel, match="--saved_model is empty"):
        Model("")


def test_a_folder_that_may_not_be_read_is_told_of(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(models.os, "listdir", refuse)
    with pytest.raises(NoModel, match="Permission denied"):
        Model(str(tmp_path))


def test_what_is_no_model(tmp_path):
    with pytest.raises(NoModel, match="no version of one"):
        Model(str(tmp_path / "absent"))
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"no such thing")
    with pytest.raises(NoModel, match="1 cannot be loaded"):
        Model(str(tmp_path))
