"""Pictures are turned as Pillow turns them, in Python and in graphs."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from meta_pseudo_labels.data.images import orientation as orientations
from meta_pseudo_labels.data.images.decoding import decode_image
from meta_pseudo_labels.data.images.headers import read_header
from meta_pseudo_labels.data.images.orientation import (
    upright_in_graph,
)
from tests.pictures import as_big_endian, colors, encoded, turned

_found = tf.function(
    lambda encoded: orientations._by_orientation(
        encoded, tf.identity, lambda: tf.constant(1)
    ),
    input_signature=[tf.TensorSpec([], tf.string)],
)


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _upright(data):
    image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
    return upright_in_graph(image, data)


def as_pillow(data):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    return np.array(image.convert("RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "MPO"])
def test_all_orientations(kind, orientation):
    data = turned(orientation, kind)
    want = as_pillow(data)
    assert want.shape == ((20, 30, 3) if orientation < 5 else (30, 20, 3))
    np.testing.assert_array_equal(decode_image(data), want)
    if kind != "WEBP":  # What graphs do not decode.
        assert int(_found(data)) == orientation
        np.testing.assert_array_equal(_upright(data), want)


def late_png():
    """A PNG with its Exif data behind the pixels, where it may stand."""
    data = turned(6, "PNG")
    start = data.index(b"eXIf") - 4
    length = int.from_bytes(data[start : start + 4], "big") + 12
    end = data.index(b"IEND") - 4
    chunk = data[start : start + length]
    return data[:start] + data[start + length : end] + chunk + data[end:]


def behind_other_segments():
    """Exif data after a comment and XMP, and stray bytes before."""
    data = turned(8)
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + b"x" * 300
    segment = b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp
    comment = b"\xff\xfe\0\x07hello"
    return data[:2] + comment + b"\0\x01\xff\xff" + segment + data[2:]


@pytest.mark.parametrize(
    ("data", "want"),
    [
        (as_big_endian(turned(3)), 3),
        (as_big_endian(turned(6)), 6),
        (late_png(), 6),
        (behind_other_segments(), 8),
        (encoded(colors(), "JPEG"), 1),
        (encoded(colors()), 1),
        (turned(0), 1),
        (turned(9), 1),
        (turned(5, mode="L"), 5),
        (turned(7, mode="CMYK"), 7),
        (turned(2, "PNG", mode="LA"), 2),
    ],
)
def test_where_and_how_it_is_written(data, want):
    assert read_header(data).orientation == want
    assert int(_found(data)) == want


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_python_and_graph_agree_on_damaged_data(kind):
    """And neither fails, nor goes on without end."""
    whole = turned(6, kind)
    start = whole.index(b"Exif\0\0" if kind == "JPEG" else b"eXIf")
    random = np.random.RandomState(0)
    seen = set()
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(2):  # Of the directory and its head.
            data[start + random.randint(4, 50)] = random.randint(256)
        got = int(_found(bytes(data)))
        assert got == read_header(bytes(data)).orientation
        seen.add(got)
    assert {1, 6} <= seen


def test_endless_parts_end():
    """A file of nothing but small parts takes no time."""
    many = encoded(colors())[:8] + bytes(12) * 100_000
    assert int(_found(many)) == 1
    assert int(_found(b"\xff\xd8\xff" + bytes(300_000))) == 1
