"""What a picture costs, known from its header."""

import struct

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.export.serving.pictures import is_cut_off, pixels, work
from meta_pseudo_labels.export.serving.protocol import check_pictures
from meta_pseudo_labels.export.serving.reading import BadRequest

IMAGE = np.zeros([12, 34, 3], np.uint8)
JPEG = tf.io.encode_jpeg(IMAGE).numpy()
PROGRESSIVE = tf.io.encode_jpeg(IMAGE, progressive=True).numpy()
PNG = tf.io.encode_png(IMAGE).numpy()
FRAME = JPEG.index(b"\xff\xc0")
GRAY = tf.io.encode_jpeg(IMAGE[..., :1]).numpy()


def told(height, width):
    """The JPEG, with a header that tells other sizes."""
    sizes = struct.pack(">HH", height, width)
    return JPEG[: FRAME + 5] + sizes + JPEG[FRAME + 9 :]


@pytest.mark.parametrize("file", [JPEG, PROGRESSIVE, PNG, GRAY])
def test_sizes_are_those_of_tensorflow(file):
    decoded = tf.io.decode_image(file)
    assert pixels(file) == decoded.shape[0] * decoded.shape[1] == 12 * 34
    assert not is_cut_off(file)


@pytest.mark.parametrize(
    "between",
    [
        b"\xff\xfe\x00\x12"
        + b"\xff\xc0\x00\x11\x08\x00\x01\x00\x01"
        + b"1" * 7,
        b"\xff\xff\xff",
        b"garbage\x00\xff\x00",
        b"\xff\x01",
    ],
    ids=["a comment with a frame in it", "fill", "garbage", "alone"],
)
def test_what_libjpeg_passes_over_is_passed_over(between):
    file = JPEG[:FRAME] + between + JPEG[FRAME:]
    assert tf.io.decode_jpeg(file).shape[:2] == [12, 34]
    assert pixels(file) == 12 * 34


@pytest.mark.parametrize("end", range(0, len(JPEG), 7))
def test_what_lacks_its_header_has_no_pixels(end):
    assert pixels(JPEG[:end]) in (0, 12 * 34)
    assert pixels(b"\xff" * end) == pixels(b"\x89PNG\r\n\x1a\n"[:end]) == 0


def test_a_picture_of_too_few_bytes_is_cut_off():
    assert not is_cut_off(told(400, 600))  # Its bytes may be enough.
    assert is_cut_off(told(8_000, 8_000))
    assert is_cut_off(told(65_535, 65_535))
    assert not is_cut_off(PNG)  # Of that TensorFlow itself complains.


def scanned(times):
    """The progressive JPEG, which goes over its pixels so many times."""
    last, end = PROGRESSIVE.rindex(b"\xff\xda"), PROGRESSIVE.rindex(b"\xff\xd9")
    more = times - PROGRESSIVE.count(b"\xff\xda")
    scan = PROGRESSIVE[last:end]
    return PROGRESSIVE[:end] + scan * more + PROGRESSIVE[end:]


@pytest.mark.parametrize("times", [10, 31, 1_600])
def test_work_is_that_of_all_scans(times):
    """A thousand of 14 bytes each are the work of a hundred pictures."""
    file = scanned(times)
    assert tf.io.decode_jpeg(file).shape[:2] == [12, 34]
    assert pixels(file) == 12 * 34
    assert work(file) == 12 * 34 * max(1, times // 16)
    assert work(PNG) == work(JPEG) == 12 * 34 and work(b"text") == 0


def test_pixels_are_counted_over_the_files_of_a_request():
    files = np.array([JPEG, PNG, b"text", JPEG], object)
    numbers = np.zeros([8], np.uint8)
    check_pictures({"a": files, "b": numbers}, max_pixels=3 * 12 * 34)
    with pytest.raises(BadRequest, match="more than 1223 pixels together"):
        check_pictures({"a": files}, max_pixels=3 * 12 * 34 - 1)
    again = np.array([PNG, scanned(16 * 3)], object)
    check_pictures({"a": again}, max_pixels=4 * 12 * 34)
    with pytest.raises(BadRequest, match="as much work in their scans"):
        check_pictures({"a": again}, max_pixels=4 * 12 * 34 - 1)
    cut = np.array([JPEG, told(8_000, 8_000)], object)
    with pytest.raises(BadRequest, match="Picture 1 of a is cut off"):
        check_pictures({"a": cut}, max_pixels=10**9)
