"""Which labels a run began with, and that it goes on with the same ones."""

import dataclasses
import json

import pytest

from meta_pseudo_labels import data
from meta_pseudo_labels.config import Config, ConfigError
from meta_pseudo_labels.run_data import (
    check_choice_of_labels,
    save_choice_of_labels,
)


@pytest.fixture
def run(tmp_path):
    """A run's settings and images; its folder holds its labeled.json."""
    config = Config(output_dir=str(tmp_path))
    images = data.load("digits", num_labeled=40, seed=0)
    save_choice_of_labels(config, images)
    return config, images


def test_the_file_names_the_images_and_stays(run, tmp_path):
    config, images = run
    path = tmp_path / "labeled.json"
    content = path.read_text()
    assert json.loads(content)["indices"] == images.labeled_indices.tolist()
    check_choice_of_labels(config, images)
    assert path.read_text() == content
    assert [file.name for file in tmp_path.iterdir()] == ["labeled.json"]


def test_a_run_without_the_file_is_not_refused(run, tmp_path):
    """As one that was trained before there was such a file."""
    (tmp_path / "labeled.json").unlink()
    check_choice_of_labels(*run)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("field", ["labeled_indices", "labeled_labels"])
def test_other_images_are_refused(run, tmp_path, field):
    """Also other labels of the same numbers."""
    config, images = run
    path = tmp_path / "labeled.json"
    content = path.read_text()
    other = getattr(images, field).copy()
    other[0] += 1
    changed = dataclasses.replace(images, **{field: other})
    with pytest.raises(ConfigError, match="names other labeled images"):
        check_choice_of_labels(config, changed)
    assert path.read_text() == content


@pytest.mark.parametrize("text", ["", "{", "\0"])
def test_a_file_that_cannot_be_read_is_named(run, tmp_path, text):
    config, images = run
    path = tmp_path / "labeled.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"{path} cannot be read as"):
        check_choice_of_labels(config, images)
    assert path.read_text() == text
