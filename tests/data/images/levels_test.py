"""Pictures of 16 bits that use a small part of them are not black."""

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.data import DatasetSpec
from meta_pseudo_labels.data.images.decoding import decode_image
from meta_pseudo_labels.data.images.headers import ImageError
from meta_pseudo_labels.data.images.levels import WHOLE_RANGE, to_8_bits
from meta_pseudo_labels.data.preparation import prepare_encoded
from tests.pictures import colors, deep, encoded
from tests.tiny_folders import load

RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def spread(low, high):
    """A picture from one level to another, and what 8 bits show of it."""
    levels = np.rint(low + (high - low) * RAMP).astype(np.uint16)
    shown = np.rint((levels - low) * (255 / (high - low))).astype(np.uint8)
    return levels, np.repeat(shown[..., np.newaxis], 3, axis=-1)


def fill(folders, *ends):
    """Labeled pictures of 16 bits with these levels, in each class one."""
    for name, (low, high) in zip(("ant", "bee", "cow"), ends, strict=True):
        path = folders / "labeled" / name / "0.png"
        path.write_bytes(deep(spread(low, high)[0]))


# 10, 12 and 14 bits, a CT with an offset, and an eye's dynamic range.
@pytest.mark.parametrize(
    "ends", [(0, 1023), (0, 4095), (3, 16000), (31744, 35840), (0, 40)]
)
def test_a_small_range_is_spread(folders, logged, ends):
    low, high = ends
    middle = (low + high) // 2
    fill(folders, ends, (low, middle), (middle, high))
    (folders / "eval" / "ant" / "0.png").write_bytes(deep(spread(*ends)[0]))
    got = load(folders)
    assert got.spec.deep_levels == ends
    np.testing.assert_array_equal(got.labeled_images[0], spread(*ends)[1])
    np.testing.assert_array_equal(got.test_images[0], spread(*ends)[1])
    # All by the same range: one that is half as bright stays so.
    half = 255 * (middle - low) / (high - low)
    assert abs(got.labeled_images[2].max() - half) <= 1
    assert abs(got.labeled_images[4].min() - half) <= 1
    (line,) = (line for line in logged if "16 bits" in line)
    assert f"3 pictures have 16 bits, but levels from {low} to {high}" in line


def test_the_whole_range_keeps_its_upper_bits(folders, logged):
    fill(folders, (0, 65535), (0, 65535), (256, 40000))
    got = load(folders)
    assert got.spec.deep_levels == WHOLE_RANGE
    want = spread(0, 65535)[0] >> 8
    np.testing.assert_array_equal(got.labeled_images[0, ..., 0], want)
    assert not [line for line in logged if "16 bits" in line]


def test_dark_ones_among_bright_ones_are_counted(folders, logged):
    """One hot pixel makes the range, or pictures of two cameras are mixed."""
    fill(folders, (0, 65535), (0, 1000), (100, 400))
    load(folders)
    (line,) = (line for line in logged if "16 bits" in line)
    assert line.startswith("2 of 3 pictures of 16 bits use less than 1/16")


def test_without_such_pictures_there_is_no_range(folders):
    assert load(folders).spec.deep_levels is None


def spec(levels):
    return DatasetSpec(
        name="folders",
        num_classes=2,
        image_size=8,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        flip=True,
        deep_levels=levels,
    )


@pytest.mark.fast("levels8-ends8-False")
@pytest.mark.parametrize(
    ("levels", "ends", "fits"),
    [
        (None, (0, 65535), True),
        (None, (0, 4095), False),
        (None, (0, 16000), False),
        (None, (30000, 34000), False),
        (None, (0, 30000), True),
        ((0, 4095), (0, 4095), True),
        ((0, 4095), (10, 900), True),
        ((0, 4095), (0, 5000), True),
        ((0, 4095), (0, 65535), False),
        ((20000, 40000), (15000, 21000), True),
        ((20000, 40000), (0, 999), False),
        ((20000, 40000), (40500, 45000), False),
        (WHOLE_RANGE, (0, 4095), True),
    ],
)
def test_training_and_serving_see_the_same(levels, ends, fits):
    data = deep(spread(*ends)[0])
    serve = tf.function(
        lambda data: prepare_encoded(data, spec(levels)), autograph=False
    )
    if fits:
        want = decode_image(data, deep_levels=levels)
        np.testing.assert_array_equal(serve(tf.constant(data)), want)
        return
    message = f"16 bits with levels from {ends[0]} to {ends[1]}, but "
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        serve(tf.constant(data))
    with pytest.raises(ImageError, match=f"^PNG of {message}"):
        decode_image(data, deep_levels=levels)


def test_black_is_black():
    black = deep(np.zeros([8, 8]))
    assert decode_image(black).max() == 0
    assert decode_image(black, deep_levels=(200, 30_000)).max() == 0


def test_colors_and_alpha():
    """Each channel alike; alpha does not count."""
    levels = colors(8, 8).astype(np.uint16) * 16
    want = np.asarray(to_8_bits(levels, (0, 4080)))
    np.testing.assert_array_equal(want, colors(8, 8))
    alpha = np.full([8, 8, 1], 65535)
    with_alpha = deep(np.concatenate([levels, alpha], axis=-1))
    got = decode_image(with_alpha, deep_levels=(0, 4080))
    np.testing.assert_array_equal(got, colors(8, 8))


def test_dark_pictures_of_8_bits_are_said_to_be(folders, logged):
    """Nothing is changed: nobody knows that they are no night."""
    for path in folders.rglob("*.*"):
        path.write_bytes(encoded(colors(8, 8) // 32))
    load(folders)
    (line,) = (line for line in logged if "levels" in line)
    assert "levels from 0 to 7 of 0 to 255" in line


def test_dark_ones_of_8_bits_among_bright_ones_are_counted(folders, logged):
    """Masks of a few classes, say."""
    (folders / "labeled/bee/0.png").write_bytes(encoded(colors(8, 8) // 32))
    (folders / "unlabeled/b.png").write_bytes(encoded(colors(8, 8) // 64))
    (folders / "labeled/ant/0.png").write_bytes(encoded(colors(8, 8) // 8))
    load(folders)
    (line,) = (line for line in logged if "levels" in line)
    assert "2 of 10 images look black: levels from 0 to 15" in line
