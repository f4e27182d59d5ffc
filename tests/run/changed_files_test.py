"""What a run does once labeled files were removed or added."""

import dataclasses
import json

import numpy as np
import pytest

from meta_pseudo_labels.run.data import load_data
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.folder import RunFolder
from meta_pseudo_labels.run.labeled_choice import save_choice_of_labels
from meta_pseudo_labels.utils.settings import ConfigError
from tests.tiny_folders import run_settings, shades, write, write_folders
from tests.tiny_run import tiny


def begun(root, **settings):
    """A run on six labeled files that has chosen its labels."""
    write_folders(root)
    config = tiny(
        root / "run",
        **run_settings(root, tested=True) | dict(num_labeled=6) | settings,
    )
    images = load_data(config)
    (root / "run").mkdir()
    save_choice_of_labels(config, images)
    RunFolder(config.output_dir).save_settings(config)
    return config, images


def data_of(config, mode):
    return Experiment(dataclasses.replace(config, task_mode=mode)).data


def file_of(root):
    """A choice of the last file of each class."""
    path = root / "subset.json"
    choice = {"source": "folders", "indices": [1, 3, 5], "labels": [0, 1, 2]}
    path.write_text(json.dumps(choice))
    return dict(label_subset=str(path), num_labeled=0)


@pytest.mark.parametrize(
    ("subset", "before", "gone", "after"),
    [
        (None, [0, 1, 10, 11, 20, 21], "ant/0", [1, 10, 11, 20, 21]),
        (file_of, [1, 11, 21], "cow/1", [0, 1, 10, 11, 20]),
    ],
)
def test_a_review_looks_at_the_labeled_files_that_are_there(
    tmp_path, logged, subset, before, gone, after
):
    config, images = begun(tmp_path, **(subset(tmp_path) if subset else {}))
    assert shades(images.labeled_images) == before
    path = tmp_path / "labeled" / f"{gone}.png"
    path.unlink()
    looked = data_of(config, "review")
    assert shades(looked.labeled_images) == after
    assert looked.spec.mean == images.spec.mean  # As in training.
    assert any("its choice cannot be repeated" in line for line in logged)
    assert any(f"no longer {path}" in line for line in logged)
    # What evaluates says which file it is about, not how many to give.
    with pytest.raises(ConfigError, match=f"no longer {path}.*Restore it"):
        data_of(config, "eval")


def test_an_added_file_is_looked_at_too(tmp_path, logged):
    config, _ = begun(tmp_path, num_labeled=0)
    write(tmp_path / "labeled" / "bee" / "9.png", 19)
    looked = data_of(config, "review")
    assert shades(looked.labeled_images) == [0, 1, 10, 11, 19, 20, 21]
    assert any("7 for 6; not before" in line for line in logged)


def test_what_else_is_wrong_is_said_as_it_is(tmp_path):
    config, _ = begun(tmp_path)
    (tmp_path / "unlabeled").rename(tmp_path / "elsewhere")
    for mode in ("review", "eval"):
        with pytest.raises(ConfigError, match="unlabeled cannot be read"):
            data_of(config, mode)
    # Before a run has chosen, the number is what is wrong.
    begin = dataclasses.replace(
        config, output_dir=str(tmp_path / "new"), unlabeled_dir=None
    )
    (tmp_path / "labeled" / "ant" / "0.png").unlink()
    anew = dataclasses.replace(begin, output_dir=config.output_dir)
    anew = dataclasses.replace(anew, reset_output_dir=True)
    for mode in ("train", "inspect"):
        for run in (begin, anew):
            with pytest.raises(ConfigError, match="give at most 3, or 5 for"):
                data_of(run, mode)


def repeated(root, **settings):
    """The images that a new run chooses by the labeled.json of the first."""
    choice = dict(label_subset=str(root / "run" / "labeled.json"))
    config = tiny(
        root / "other",
        **run_settings(root, tested=True) | dict(num_labeled=0) | choice,
        **settings,
    )
    return load_data(config)


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("came", ["ant/-.png", "bee/0/x.png", "cow/9.png"])
def test_a_choice_is_repeated_by_the_names_of_files(tmp_path, came, moved):
    """An added file moves those after it to other numbers."""
    _, images = begun(tmp_path, num_labeled=3, num_validation=0)
    write(tmp_path / "labeled" / came, 99)
    if moved:
        (tmp_path / "elsewhere").mkdir()
        for name in ("labeled", "unlabeled", "eval"):
            (tmp_path / name).rename(tmp_path / "elsewhere" / name)
        (tmp_path / "run").rename(tmp_path / "elsewhere" / "run")
        tmp_path /= "elsewhere"
    again = repeated(tmp_path)
    assert shades(again.labeled_images) == shades(images.labeled_images)
    np.testing.assert_array_equal(again.labeled_labels, images.labeled_labels)


def test_a_choice_of_files_that_are_gone_is_refused(tmp_path):
    begun(tmp_path)
    (tmp_path / "labeled/ant/0.png").rename(tmp_path / "labeled/ant/7.png")
    with pytest.raises(ConfigError, match="'ant/0.png', which is not among"):
        repeated(tmp_path)


def test_copies_of_a_labeled_picture_do_not_change_the_choice(tmp_path):
    """Neither among labeled files nor, under a like name, among others."""
    write(tmp_path / "labeled" / "ant" / "1 = copy.png", 1)
    write(tmp_path / "unlabeled" / "ant" / "0.png", 1)
    _, images = begun(tmp_path, num_labeled=3)
    assert 1 in shades(images.labeled_images)
    write(tmp_path / "labeled" / "ant" / "-.png", 99)
    again = repeated(tmp_path)
    assert shades(again.labeled_images) == shades(images.labeled_images)
    np.testing.assert_array_equal(
        again.labeled_indices, images.labeled_indices + [1, 1, 1]
    )


def test_a_choice_among_some_classes_is_repeated(tmp_path):
    _, images = begun(tmp_path, known_classes=2)
    again = repeated(tmp_path, known_classes=2)
    assert shades(again.labeled_images) == shades(images.labeled_images)


def test_a_choice_without_files_goes_by_numbers(tmp_path):
    """As runs of earlier versions wrote it."""
    _, images = begun(tmp_path, num_labeled=3)
    path = tmp_path / "run" / "labeled.json"
    content = json.loads(path.read_text())
    assert len(content.pop("files")) == 3
    path.write_text(json.dumps(content))
    again = repeated(tmp_path)
    assert again.labeled_indices.tolist() == images.labeled_indices.tolist()
