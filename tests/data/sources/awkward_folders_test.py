"""Folders as they come: what is read, skipped, passed over and refused."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data import inspection
from meta_pseudo_labels.data.images.decoding import decode_image
from meta_pseudo_labels.data.images.headers import ImageError
from meta_pseudo_labels.data.preparation import prepare_encoded
from tests import awkward_folders
from tests.awkward_folders import SIZE, kinds, link, make

SORTS = list(kinds(np.random.RandomState(0)))
FEW, MANY = range(25), range(25, 150)


def load(made, **settings):
    return data.load(
        "folders",
        image_size=SIZE,
        num_labeled=None,
        seed=0,
        **made.settings() | settings,
    )


@pytest.fixture(scope="module")
def served():
    """What an exported model sees of a file, of a run without 16 bits."""
    spec = data.DatasetSpec(
        name="folders",
        num_classes=2,
        image_size=SIZE,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        flip=True,
    )
    return tf.function(
        lambda file: prepare_encoded(file, spec),
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
    )


@pytest.mark.parametrize("sort", SORTS)
def test_each_sort_of_picture_by_itself(served, sort):
    """Python and graph make of it what Pillow makes of it."""
    for seed in range(3):
        picture = kinds(np.random.RandomState(seed))[sort]()
        if picture.image is None:
            with pytest.raises(ImageError):
                decode_image(picture.data)
            with pytest.raises(tf.errors.InvalidArgumentError):
                served(picture.data)
            continue
        want = picture.image.astype(int)
        # Of CMYK and chroma Pillow rounds another way.
        most = 2 if picture.data.startswith(b"\xff\xd8") else 0
        most = 2 if sort.startswith("WEBP") else most
        found = decode_image(picture.data).astype(int)
        assert np.abs(found - want).max() <= most
        if picture.data[:2] in (b"\xff\xd8", b"\x89P"):
            np.testing.assert_array_equal(served(picture.data), found)
        else:
            with pytest.raises(tf.errors.InvalidArgumentError, match="not a J"):
                served(picture.data)


def check(made):
    """Everything that is said of a folder, and everything read from it."""
    found = load(made)
    assert list(found.spec.class_names) == made.classes
    for part in ("labeled", "unlabeled", "test"):
        images = getattr(found, f"{part}_images").astype(int)
        want = made.images(part)
        assert images.shape == want.shape, part
        assert np.abs(images - want).max(initial=0) <= 2, part
    assert found.labeled_labels.tolist() == made.labels("labeled")
    assert found.test_labels.tolist() == made.labels("test")
    assert len(found.skipped) == made.skipped()
    assert len(found.passed_over) == made.passed_over
    summary = inspection.inspect(found)
    want = {what: count for what, count in made.copies().items() if count}
    assert {e["what"]: e["count"] for e in summary["copies"]} == want
    text = inspection.as_text(json.loads(json.dumps(summary)))
    text.encode()
    if made.skipped():
        plural = "files were" if made.skipped() > 1 else "file was"
        assert f"{made.skipped()} {plural} skipped: " in text
        with pytest.raises(ValueError, match="is not an image that can be"):
            load(made, strict=True)
    return found


@pytest.mark.parametrize("seed", FEW)
def test_folders_as_they_come(tmp_path, seed):
    check(make(tmp_path, seed))


@pytest.mark.long
def test_many_folders_as_they_come(tmp_path):
    for seed in MANY:
        made = make(tmp_path / "made", seed)
        check(made)
        awkward_folders.remove(made)


@pytest.mark.parametrize("seed", range(4))
def test_links_into_the_test_or_another_class_are_refused(tmp_path, seed):
    made = make(tmp_path, seed)
    for part, folder in (("labeled", "labeled"), ("unlabeled", "unlabeled")):
        name = getattr(made, part)[0][0]
        target = f"eval/{made.classes[0]}/linked"
        link(made, f"{folder}/{name}", target, hard=seed % 2)
        with pytest.raises(ValueError, match="are one file, by a link"):
            load(made)
        os.remove(os.path.join(made.root, target))
    name, label, _ = made.labeled[0]
    other = next(one for one in made.classes if one != label)
    link(made, f"labeled/{name}", f"labeled/{other}/linked", hard=seed % 2)
    with pytest.raises(ValueError, match="would have two classes"):
        load(made)


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[1m", "\u2028"])
def test_classes_whose_names_are_no_line_are_refused(tmp_path, name):
    made = make(tmp_path, 0)
    os.rename(f"{tmp_path}/eval", f"{tmp_path}/labeled/{name}")
    with pytest.raises(ValueError, match="whose name is not a line of text"):
        load(made, eval_dir=None)


def test_files_that_may_not_be_read_are_skipped(tmp_path):
    made = make(tmp_path, 0)
    path = os.path.join(made.root, "unlabeled", "secret.png")
    with open(path, "wb") as file:
        file.write(kinds(np.random.RandomState(9))["PNG"]().data)
    os.chmod(path, 0)
    readable = os.access(path, os.R_OK)  # Root reads everything.
    assert ("secret.png" in load(made).skipped) != readable
