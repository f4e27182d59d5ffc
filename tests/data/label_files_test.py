"""Files that say which images keep their labels."""

import json
import os

import numpy as np
import pytest

from meta_pseudo_labels import data
from meta_pseudo_labels.data.labels import labeled_positions

LABELS = np.array([0, 1, 2] * 10)


def digits(**settings):
    return data.load("digits", **dict(num_labeled=40, seed=3) | settings)


def write(tmp_path, **changes):
    content = dict(
        source="made", label_subset="first", seed=0, indices=[4, 7, 9]
    )
    content = {
        key: value
        for key, value in (content | changes).items()
        if value is not None
    }
    path = tmp_path / "labeled.json"
    path.write_text(json.dumps(content))
    return path


def choose(path, num_labeled=None, numbers=None):
    return labeled_positions(
        LABELS,
        num_labeled=num_labeled,
        num_classes=3,
        seed=0,
        label_subset=path,
        source="made",
        numbers=numbers,
    )


def test_what_a_file_holds(tmp_path):
    chosen = digits()
    path = tmp_path / "labeled.json"
    data.save_labeled_indices(chosen, path)
    assert json.loads(path.read_text()) == {
        "source": "digits",
        "label_subset": "balanced",
        "seed": 3,
        "indices": chosen.labeled_indices.tolist(),
        "labels": chosen.labeled_labels.tolist(),
    }
    assert os.listdir(tmp_path) == ["labeled.json"]


@pytest.mark.parametrize("num_labeled", [None, 40])
def test_a_file_repeats_a_choice(tmp_path, num_labeled):
    chosen, path = digits(), str(tmp_path / "labeled.json")
    data.save_labeled_indices(chosen, path)
    assert set(digits(seed=4).labeled_indices) != set(chosen.labeled_indices)
    got = digits(seed=4, label_subset=path, num_labeled=num_labeled)
    for name in ("labeled_images", "labeled_labels", "labeled_indices"):
        np.testing.assert_array_equal(getattr(got, name), getattr(chosen, name))
    np.testing.assert_array_equal(got.unlabeled_images, chosen.unlabeled_images)
    assert (got.label_subset, got.seed) == (path, 4)
    # The repetition can be repeated.
    again = tmp_path / "again.json"
    data.save_labeled_indices(got, again)
    third = digits(num_labeled=None, label_subset=again)
    assert set(third.labeled_indices) == set(chosen.labeled_indices)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "labeled.json"
    data.save_labeled_indices(digits(), path)
    before = path.read_text()

    def fail(*paths):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            data.save_labeled_indices(digits(seed=4), path)
    assert path.read_text() == before
    data.save_labeled_indices(digits(seed=4), path)
    assert path.read_text() != before


def test_positions_are_increasing(tmp_path):
    path = write(tmp_path, indices=[9, 4, 7], labels=[0, 1, 1])
    assert choose(path).tolist() == [4, 7, 9]
    assert choose(path).dtype == np.int64


def test_images_may_have_numbers_of_their_own(tmp_path):
    path = write(tmp_path, indices=[40, 90])
    numbers = np.arange(30) * 10
    assert choose(path, numbers=numbers).tolist() == [4, 9]
    with pytest.raises(ValueError, match="names image 45, .*numbered 0 to 290"):
        choose(write(tmp_path, indices=[40, 45]), numbers=numbers)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(source="cifar10"), "images of 'cifar10', not of 'made'"),
        (dict(source=None), "holds no labeled indices .*no source"),
        (dict(indices=None), "holds no labeled indices"),
        (dict(indices=[]), "no list of whole numbers"),
        (dict(indices=[1, 2.5]), "no list of whole numbers"),
        (dict(indices=[True]), "no list of whole numbers"),
        (dict(indices=3), "holds no labeled indices"),
        (dict(indices=[4, 7, 7, 4]), "names 2 of its images twice"),
        (dict(indices=[4, 30]), "names image 30, .*not one of the 30 training"),
        (dict(indices=[-1]), "names image -1"),
        (dict(labels=[1, 1, 1]), "has other labels for its images"),
        (dict(labels=[1, 1]), "has other labels for its images"),
    ],
)
def test_files_that_do_not_fit(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        choose(write(tmp_path, **changes))


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "4", '"text"'])
def test_files_that_are_something_else(tmp_path, text):
    path = tmp_path / "labeled.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="labeled.json holds no labeled ind"):
        choose(path)


def test_binary_files_are_something_else(tmp_path):
    path = tmp_path / "labeled.json"
    path.write_bytes(b"\xff\xfe\0")
    with pytest.raises(ValueError, match="labeled.json holds no labeled ind"):
        choose(path)


def test_another_number_of_labels_is_refused(tmp_path):
    path = write(tmp_path)
    assert len(choose(path, num_labeled=3)) == 3
    with pytest.raises(ValueError, match="is 4, but .* names 3 .*give 3, or"):
        choose(path, num_labeled=4)


def test_an_absent_file_names_the_other_choices(tmp_path):
    message = "absent.json'; choose one of balanced, first, or .* No such file"
    with pytest.raises(ValueError, match=message):
        choose(tmp_path / "absent.json")
    with pytest.raises(ValueError, match="No such file|Is a directory"):
        choose(str(tmp_path))


# Sets in files label their first records only, and their files hold no labels.


def imagenet(data_dir, **settings):
    return data.load(
        "imagenet2012_subset",
        data_dir=str(data_dir / "imagenet_mini"),
        image_size=16,
        seed=0,
        **dict(num_labeled=None) | settings,
    )


def imagenet_file(data_dir, tmp_path, **changes):
    """The file of a run on the first three records."""
    chosen = imagenet(data_dir, num_labeled=3, label_subset="first")
    path = tmp_path / "labeled.json"
    path.write_text(json.dumps(data.labeled_choice(chosen) | changes))
    return str(path)


@pytest.mark.long
@pytest.mark.parametrize("num_labeled", [None, 3])
def test_a_file_repeats_the_choice_of_records(data_dir, tmp_path, num_labeled):
    path = imagenet_file(data_dir, tmp_path)
    got = imagenet(data_dir, num_labeled=num_labeled, label_subset=path)
    assert got.labeled_indices.tolist() == [0, 1, 2]
    assert len(got.labeled_images) == 3 and len(got.unlabeled_images) == 80


@pytest.mark.long
@pytest.mark.parametrize(
    ("changes", "num_labeled", "message"),
    [
        (dict(source="digits"), None, "names images of 'digits', not of 'im"),
        (dict(indices=[0, 8]), None, "names image 8, which is not one of the"),
        (dict(indices=[0, 2]), None, "names record 2, but not all before it"),
        ({}, 2, "num_labeled is 2, but .* names 3 images"),
    ],
)
def test_a_file_of_other_records_is_refused(
    data_dir, tmp_path, changes, num_labeled, message
):
    path = imagenet_file(data_dir, tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        imagenet(data_dir, num_labeled=num_labeled, label_subset=path)
