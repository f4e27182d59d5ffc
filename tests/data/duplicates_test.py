"""One picture in two parts or two classes: refused, or said."""

import os
import shutil

import numpy as np
import pytest

from meta_pseudo_labels import data
from meta_pseudo_labels.data import duplicates
from meta_pseudo_labels.data.sources import folders as folders_source
from tests.pictures import colors, encoded
from tests.tiny_folders import load, write


def copy(folders, source, *targets, how=shutil.copy):
    for target in targets:
        how(folders / source, folders / target)


@pytest.mark.parametrize("how", [os.symlink, os.link])
@pytest.mark.parametrize(
    ("source", "target", "so"),
    [
        ("unlabeled/a/z.png", "eval/ant/1.png", "be both trained on and"),
        ("labeled/bee/0.png", "eval/ant/x.dat", "be both trained on and"),
        ("eval/cow/0.png", "labeled/cow/7.png", "be both trained on and"),
        ("labeled/bee/0.png", "labeled/cow/9.png", "have two classes"),
        ("eval/cow/0.png", "eval/ant/9.png", "have two classes"),
    ],
)
def test_one_file_in_two_places_is_refused(folders, how, source, target, so):
    copy(folders, source, target, how=how)
    with pytest.raises(ValueError, match=f"are one file, .* would {so}"):
        load(folders)


def test_a_linked_folder_is_refused(folders):
    (folders / "unlabeled" / "more").symlink_to(folders / "eval" / "ant")
    with pytest.raises(ValueError, match="eval/ant/0.png are one file"):
        load(folders)


def test_labeled_images_among_the_unlabeled_ones_are_no_leak(folders, logged):
    copy(folders, "labeled/ant/0.png", "unlabeled/0.png", how=os.link)
    copy(folders, "labeled/bee/0.png", "unlabeled/1.png")
    copy(folders, "labeled/bee/1.png", "labeled/bee/2.png", how=os.symlink)
    load(folders)
    assert not [line for line in logged if "pixels" in line]


def test_copies_are_named_and_counted(folders, logged):
    copy(folders, "unlabeled/b.png", "eval/ant/copy.png")
    copy(folders, "labeled/ant/0.png", "eval/ant/x.png", "eval/ant/y.png")
    copy(folders, "labeled/bee/0.png", "labeled/cow/5.png")
    # Other bytes, the same pixels.
    write(folders / "eval" / "cow" / "same.png", 21, size=(16, 16))
    load(folders)
    found = [line for line in logged if "pixels" in line]
    root = str(folders)
    assert len(found) == 3
    assert "1 test images that are unlabeled images too" in found[0]
    assert f"{root}/unlabeled/b.png = {root}/eval/ant/copy.png" in found[0]
    assert "2 test images that are labeled images too" in found[1]
    assert f"{root}/labeled/cow/1.png = {root}/eval/cow/same.png" in found[1]
    assert "1 images with two classes" in found[2]
    assert f"{root}/labeled/bee/0.png = {root}/labeled/cow/5.png" in found[2]


def test_copies_of_labeled_images_that_are_held_out(folders, logged):
    """Of each class a copy of what validation has stays labeled."""
    for name in ("ant", "bee", "cow"):
        copy(folders, f"labeled/{name}/0.png", f"labeled/{name}/1.png")
    images = load(folders)
    logged.clear()
    held = data.hold_out(images, 3, seed=0, part="validation")
    (line,) = logged
    assert "3 validation images that are labeled images too" in line
    assert "labeled/ant/0.png = " in line
    (entry,) = duplicates.copies(held)
    assert entry["count"] == 3


def test_test_images_of_two_classes_are_counted_where_they_are_alone(
    folders, logged
):
    copy(folders, "eval/ant/0.png", "eval/cow/copy.png", "eval/ant/1.png")
    folders_source.load_test(folders / "eval", ("ant", "cow"), image_size=8)
    (line,) = logged
    assert line == (
        f"1 pictures of {folders}/eval have two classes, by equal pixels."
    )


def arrays(count=6):
    random = np.random.RandomState(0)
    return random.randint(0, 256, [count, 8, 8, 3]).astype(np.uint8)


def test_arrays_are_looked_at_too(logged):
    images = arrays()
    data.from_arrays(
        images[:4],
        np.array([0, 1, 0, 1]),
        images[3:],
        test_images=images[[0, 5]],
        test_labels=np.array([1, 0]),
    )
    assert [line.split(":")[0] for line in logged] == [
        "1 test images that are unlabeled images too, by equal pixels",
        "1 test images that are labeled images too, by equal pixels",
        "1 images with two classes, by equal pixels",
    ]
    assert "test image 0 = labeled image 0" in logged[1]


def test_wrong_labels_on_purpose_are_not_two_classes(logged):
    images = np.repeat(arrays(2), 4, axis=0)
    spoilt = data.spoil_labels(
        data.from_arrays(images, np.repeat([0, 1], 4), images[:0]), 0.5, seed=0
    )
    assert duplicates.copies(spoilt) == [] and not logged


def test_images_that_differ_in_one_level_are_told_apart():
    """Where the pixels that are compared first are equal."""
    images = np.repeat(np.resize(colors(32, 32), [1, 32, 32, 3]), 3, axis=0)
    images[1, 1, 1, 1] ^= 1
    ((_, members),) = duplicates.equal_images({"all": images})
    assert members == [("all", 0), ("all", 2)]


def test_a_picture_that_was_turned_and_turned_back(folders, logged):
    """Without a loss it is the same picture, by its pixels."""
    from tests.pictures import turned

    pixels = colors(8, 8)
    (folders / "labeled/ant/0.png").write_bytes(encoded(pixels))
    (folders / "eval/ant/0.png").write_bytes(
        turned(3, "PNG", pixels[::-1, ::-1])
    )
    load(folders)
    assert [line for line in logged if "1 test images that are l" in line]
