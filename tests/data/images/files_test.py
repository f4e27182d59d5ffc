"""What becomes of files that are no usable images."""

import os
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.data.images import files
from tests.tiny_folders import load, shades, write


@pytest.fixture
def broken(folders, data_dir):
    """Beside the good images stand all bad ones."""
    with tarfile.open(data_dir / "bad_inputs.tar") as archive:
        archive.extractall(folders / "unlabeled", filter="data")
    return folders


def test_bad_files_are_skipped_counted_and_named(broken, logged):
    got = load(broken, eval_dir=None)
    names = [
        "corrupt_crc.tfrecord",
        "huge_20000x20000.png",
        "no_image_encoded.tfrecord",
        "not_a_multiple_of_3073.bin",
        "text.jpg",
        "truncated.jpg",
        "zero_bytes.jpg",
    ]
    assert got.skipped == tuple(f"bad_inputs/{name}" for name in names)
    # Four good ones, and animated.gif, one_pixel, rgba and sixteen_bit.png.
    assert len(got.unlabeled_images) == 4 + 4
    assert got.unlabeled_images.shape[1:] == (8, 8, 3)
    assert len(logged) == 1
    assert "unlabeled: skipped 7 of 15 files: bad_inputs/c" in logged[0]
    assert "text.jpg (not one of JPEG, PNG" in logged[0]
    assert "truncated.jpg" not in logged[0] and "and 2 more" in logged[0]


def test_strict_stops_at_the_first_bad_file(broken):
    message = "bad_inputs/corrupt_crc.tfrecord in .*unlabeled is not an image"
    with pytest.raises(ValueError, match=message):
        load(broken, strict=True)


def test_places_and_labels_close_up_over_skipped_files(folders, logged):
    (folders / "labeled" / "ant" / "1.png").write_bytes(b"")
    write(folders / "eval" / "ant" / "1.png", 0)
    (folders / "eval" / "ant" / "0.png").write_text("no image")
    got = load(folders)
    assert shades(got.labeled_images) == [0, 10, 11, 20, 21]
    assert got.labeled_labels.tolist() == [0, 1, 1, 2, 2]
    assert got.test_labels.tolist() == [0, 2]
    assert shades(got.test_images) == [0, 102]
    assert got.skipped == ("ant/1.png", "ant/0.png")


def test_max_pixels_is_passed_on(folders, logged):
    write(folders / "unlabeled" / "large.png", 7, size=(9, 8))
    assert load(folders, max_pixels=64).skipped == ("large.png",)
    assert load(folders, max_pixels=72).skipped == ()


def test_hidden_files_are_passed_over(folders):
    for name in ("labeled/.DS_Store", "unlabeled/.git/a", "eval/cow/._0.png"):
        (folders / name).parent.mkdir(exist_ok=True)
        (folders / name).write_bytes(b"hidden")
    got = load(folders, strict=True)
    assert len(got.labeled_images) == 6 and len(got.unlabeled_images) == 4


def test_links(folders):
    inner = folders / "unlabeled" / "a"
    (inner / "up").symlink_to(folders / "unlabeled")
    (inner / "self").symlink_to(inner / "self")
    (inner / "gone").symlink_to(folders / "gone")
    shutil.move(folders / "labeled" / "bee", folders / "hive")
    (folders / "labeled" / "bee").symlink_to(folders / "hive")
    got = load(folders)
    assert shades(got.labeled_images) == [0, 1, 10, 11, 20, 21]
    assert shades(got.unlabeled_images) == [202, 201, 200, 203]
    assert got.skipped == ("a/gone", "a/self")


def test_pipes_are_not_waited_for(folders):
    os.mkfifo(folders / "unlabeled" / "pipe")
    assert load(folders).skipped == ("pipe",)


def test_names_that_are_no_text(folders):
    name = os.fsdecode(b"\xff.png")
    (folders / "unlabeled" / name).write_bytes(b"")
    (skipped,) = load(folders).skipped
    assert skipped.encode() == "\ufffd.png".encode()


def test_many_files_keep_their_order(folders, monkeypatch):
    monkeypatch.setattr(files, "_CHUNK", 3)
    for image in range(20):
        write(folders / "more" / f"{image:02d}.png", image)
    (folders / "more" / "07.png").write_bytes(b"")
    got = load(folders, unlabeled_dir=folders / "more")
    want = [shade for shade in range(20) if shade != 7]
    assert shades(got.unlabeled_images) == want


@pytest.mark.parametrize("size", [(8, 8), (9, 8), (8, 9), (16, 16)])
def test_no_more_than_the_square_stays_in_memory(size):
    """Not a whole picture with a window into it."""
    content = tf.io.encode_png(np.zeros([*size, 3], np.uint8)).numpy()
    image = files._decode(lambda: content, image_size=8, max_pixels=10_000)
    assert image.shape == (8, 8, 3) and image.base is None
