"""Where an export goes: the next version, whole or not at all."""

import os
import pathlib

import keras
import pytest
import tensorflow as tf

from meta_pseudo_labels.export import saved_model
from meta_pseudo_labels.export.saved_model import (
    export_saved_model,
    newest_version,
)
from meta_pseudo_labels.export.serving import models
from meta_pseudo_labels.run.pages.run_files import RunFiles
from tests.export.saved_model_test import dataset_spec


@pytest.fixture(scope="module")
def model():
    return keras.Sequential(
        [keras.Input([8, 8, 3]), keras.layers.Flatten(), keras.layers.Dense(3)]
    )


def test_versions_count_up_and_follow_the_umask(model, tmp_path):
    base = tmp_path / "new" / "model"
    (base / "7").mkdir(parents=True)
    (base / "notes").mkdir()
    previous = os.umask(0o022)
    try:
        path = export_saved_model(
            model,
            base,
            spec=dataset_spec(),
            add=lambda folder: pathlib.Path(folder, "more").touch(),
        )
    finally:
        os.umask(previous)
    assert path == f"{base}/8" == newest_version(base) == newest_version(path)
    assert os.stat(path).st_mode & 0o777 == 0o755
    assert sorted(os.listdir(base)) == ["7", "8", "notes"]
    assert sorted(os.listdir(f"{path}/assets.extra")) == [
        "more",
        "tf_serving_warmup_requests",
    ]


@pytest.fixture
def fast_save(monkeypatch):
    """A SavedModel of nothing, for tests of where it goes."""
    monkeypatch.setattr(
        tf.saved_model,
        "save",
        lambda module, directory, **settings: os.mkdir(directory),
    )


def test_another_export_may_take_the_number(
    model, tmp_path, monkeypatch, fast_save
):
    rename, taken = os.rename, []

    def late(source, target):
        if not taken:
            pathlib.Path(target, "inside").mkdir(parents=True)
            taken.append(target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    path = export_saved_model(model, tmp_path, spec=dataset_spec())
    assert taken == [f"{tmp_path}/1"] and path == f"{tmp_path}/2"


def test_all_is_on_the_disk_before_it_has_its_name(
    model, tmp_path, monkeypatch, fast_save
):
    """Else the loss of the machine might leave a version of empty files."""
    calls, rename = [], os.rename
    monkeypatch.setattr(saved_model, "sync", lambda path: calls.append(path))
    monkeypatch.setattr(
        os, "rename", lambda *paths: calls.append("rename") or rename(*paths)
    )
    export_saved_model(model, tmp_path, spec=dataset_spec())
    *before, named, folder = calls
    assert (named, str(folder)) == ("rename", str(tmp_path))
    names = {os.path.basename(os.path.normpath(path)) for path in before}
    assert names == {
        "saved_model",
        "assets.extra",
        "tf_serving_warmup_requests",
    }


def test_what_is_no_folder_of_versions_is_left_alone(model, tmp_path):
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ValueError, match="itself a SavedModel.*/1, or name"):
        export_saved_model(model, tmp_path, spec=dataset_spec())
    with pytest.raises(ValueError, match="is a file"):
        export_saved_model(
            model, tmp_path / "saved_model.pb", spec=dataset_spec()
        )
    assert os.listdir(tmp_path) == ["saved_model.pb"]
    with pytest.raises(ValueError, match="no SavedModel and no version"):
        newest_version(tmp_path / "absent")


@pytest.mark.long
def test_failure_leaves_nothing_behind(model, tmp_path, monkeypatch, fast_save):
    def fail(folder):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        export_saved_model(
            model, tmp_path / "model", spec=dataset_spec(), add=fail
        )
    assert os.listdir(tmp_path) == []

    def save_half(module, directory, **settings):
        pathlib.Path(directory).mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(tf.saved_model, "save", save_half)
    with pytest.raises(OSError, match="disk full"):
        export_saved_model(model, tmp_path / "model", spec=dataset_spec())
    assert os.listdir(tmp_path) == []


def test_all_readers_of_versions_agree_on_their_names(tmp_path):
    """What `mpl serve` finds, `mpl eval` and `mpl report` find too."""
    for name in ("3", "007", "²", "12a", "assets"):
        (tmp_path / "saved_model" / name / "assets.extra").mkdir(parents=True)
    card = tmp_path / "saved_model/007/assets.extra/model_card.json"
    card.write_text('{"network": "student"}')
    path = str(tmp_path / "saved_model")
    assert newest_version(path) == f"{path}/007"
    assert models.newest_version(path) == (f"{path}/007", "007")
    assert RunFiles(tmp_path).card["version"] == "saved_model/007"
