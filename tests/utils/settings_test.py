"""Flags and addresses of buckets, where a path is meant."""

import dataclasses

import pytest

from meta_pseudo_labels.run.config.core import Config
from meta_pseudo_labels.utils.settings import (
    ConfigError,
    check_address,
    check_picture_folder,
    several_paths,
    value_type,
)

# Strings that name no files, though they may be addresses.
NO_FILES = {"data_service", "master", "worker_addresses", "plugins"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "output_dir",
            "gs://b/x",
            "copy it to the bucket .*gcsfuse",
        ),
        ("output_dir", "hdfs://h/x", "runs are written to folders"),
        (
            "labeled_dir",
            "gs://b/x",
            "from a file system only. .*gcsfuse",
        ),
        (
            "load_checkpoint",
            "s3://b/x",
            "is read from a file system only. .*mount-s3",
        ),
        ("data_dir", "s3://b/x", "at gs:// only. .*mount-s3"),
        ("data_dir", "https://h/x", "at gs:// only. .*rclone"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(name, value, words):
    with pytest.raises(ConfigError, match=f"--{name}={value}.*{words}"):
        check_address(name, value)
    with pytest.raises(ConfigError, match=words):
        Config(**{name: value})


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("gs://b/x", "Mount the bucket .gcsfuse., or copy"),
        ("s3://b/x", "Mount the bucket .mount-s3., or copy|at gs:// only"),
        ("file:///photos", "as a path, without file://"),
    ],
)
def test_pictures_to_predict_are_on_a_file_system(folder, words):
    for kind in (None, "folder"):
        with pytest.raises(ConfigError, match=words):
            Config(
                task_mode="inference",
                inference_dir=folder,
                inference_data=kind,
            )
        with pytest.raises(ConfigError, match="from a file system only"):
            check_picture_folder(folder, kind)
    for kind in ("records", "tfds:mnist"):
        check_picture_folder(folder, kind)
    check_picture_folder("/photos")
    with pytest.raises(ConfigError, match="without file://"):
        check_address("labeled_dir", "file:///photos")


@pytest.mark.parametrize("name", ["teacher_labels", "inference_ckpt_ensemble"])
def test_each_of_several_paths_is_looked_at(name):
    check_address(name, "runs/a, runs/b")
    for path, words in (("gs://b/x", "gcsfuse"), ("--seed=1", "is a flag")):
        with pytest.raises(ConfigError, match=f"--{name}={path}.*{words}"):
            check_address(name, f"runs/a, {path}")


def test_a_path_that_is_there_may_have_commas(tmp_path):
    folder = tmp_path / "lr=0.1,wd=1"
    assert several_paths("x", f"{folder}, b") == [*str(folder).split(","), "b"]
    folder.mkdir()
    assert several_paths("x", str(folder)) == [str(folder)]
    with pytest.raises(ConfigError, match="--x=a,,b names an empty path"):
        several_paths("x", "a,,b")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("output_dir", "--recipe=digits_mpl/seed_2"),
        ("output_dir", "-recipe=digits_mpl"),
        ("data_dir", "--seed=1"),
        ("saved_model", "--port=9000"),
    ],
)
def test_a_flag_in_the_place_of_a_path_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"--{name}={value}: this is a flag"):
        check_address(name, value)


def test_what_can_be_used_is_not():
    for name, value in (
        ("output_dir", "./--recipe=digits_mpl"),
        ("worker_addresses", "--no_path"),
        ("data_dir", "gs://b/x"),
        ("data_dir", "ram://b/x"),
        ("data_dir", "a:/b"),
        ("output_dir", "runs/a:b"),
        ("data_service", "grpc://host:5050"),
        ("address_of_a_plugin", "s3://b/x"),
        ("output_dir", None),
    ):
        check_address(name, value)


def test_every_setting_that_names_files_is_known():
    """By its name: one that is added has to say where its files are."""
    for field in dataclasses.fields(Config):
        last = field.name.rsplit("_")[-1]
        if value_type(field) is str and field.name not in NO_FILES:
            if last in (
                *("dir", "csv", "checkpoint", "ckpt", "weights", "ensemble"),
            ):
                with pytest.raises(ConfigError):
                    check_address(field.name, "s3://b/x")
