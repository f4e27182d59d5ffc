"""The graph prepares pictures exactly as the sources do."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from meta_pseudo_labels.data import DATASETS, DatasetSpec
from meta_pseudo_labels.data.images import photo_views
from meta_pseudo_labels.data.images.decoding import decode_image
from meta_pseudo_labels.data.images.resizing import resize_images, square_image
from meta_pseudo_labels.data.preparation import (
    description,
    pixels_from_floats,
    prepare_encoded,
    prepare_images,
)
from tests.pictures import TAG, colors, turned

FOLDERS = DatasetSpec(
    name="folders",
    num_classes=2,
    image_size=8,
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    flip=True,
)
CIFAR = dataclasses.replace(DATASETS["cifar10"], image_size=12)
IMAGENET = dataclasses.replace(DATASETS["imagenet2012"], image_size=16)


def picture(height, width, *, seed=0):
    """Smooth noise, so that JPEG has something to keep."""
    noise = tf.random.stateless_uniform([1, 5, 4, 3], [seed, 1], 0, 256)
    smooth = tf.image.resize(noise, [height, width], "bicubic")[0]
    return tf.cast(tf.clip_by_value(smooth, 0, 255), tf.uint8).numpy()


@pytest.fixture(scope="module")
def graph():
    """prepare_encoded in a graph, as an exported model has it."""
    built = {}

    def run(data, spec, **settings):
        key = (spec.name, spec.image_size, *settings)
        if key not in built:
            built[key] = tf.function(
                lambda file: prepare_encoded(file, spec, **settings),
                input_signature=[tf.TensorSpec([], tf.string)],
                autograph=False,
            )
        return built[key](data).numpy()

    return run


SIZES = [(8, 8), (9, 8), (8, 31), (40, 27), (5, 5), (3, 7), (1, 1), (64, 96)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("encode", [tf.io.encode_png, tf.io.encode_jpeg])
def test_files_of_folders(graph, size, encode):
    data = encode(picture(*size)).numpy()
    want = square_image(decode_image(data), 8)
    np.testing.assert_array_equal(graph(data, FOLDERS), want)


@pytest.mark.parametrize("size", [(32, 32), (20, 40), (12, 12), (1, 1)])
def test_images_of_one_size_are_resized_as_released(graph, size):
    """What has not that size, is treated as of folders."""
    image = picture(*size)
    want = square_image(image, 12)
    if size == (32, 32):
        assert np.abs(want - resize_images(image[None], 12)[0]).max() > 0
        want = resize_images(image[None], 12)[0]
    data = tf.io.encode_png(image).numpy()
    np.testing.assert_array_equal(graph(data, CIFAR), want)
    prepared = prepare_images(tf.constant(image[None]), CIFAR)
    np.testing.assert_array_equal(prepared[0], want)


@pytest.mark.parametrize("size", [(40, 60), (16, 16), (3, 2), (1, 1)])
def test_the_crop_of_imagenet(graph, size):
    """Its JPEGs to the bit, and PNG files, which it has not, by the rule."""
    image = picture(*size)
    data = tf.io.encode_jpeg(image).numpy()
    want = photo_views.decode_center_crop(data, image_size=16)
    np.testing.assert_array_equal(graph(data, IMAGENET), want)
    png = tf.io.encode_png(image).numpy()
    top, left, height, width = photo_views.center_window(size).numpy()
    window = image[top : top + height, left : left + width]
    want = resize_images(window[None], 16)[0]
    np.testing.assert_array_equal(graph(png, IMAGENET), want)
    if size != (16, 16):
        prepared = prepare_images(tf.constant(image[None]), IMAGENET)[0]
        np.testing.assert_array_equal(prepared, want)


@pytest.mark.parametrize("spec", [FOLDERS, CIFAR, IMAGENET])
def test_images_of_the_models_size_stay(spec):
    images = np.stack([picture(*[spec.image_size] * 2, seed=i) for i in (1, 2)])
    prepared = prepare_images(tf.constant(images), spec)
    np.testing.assert_array_equal(prepared, images)


def test_other_kinds_of_png(graph):
    """Gray, alpha and 16 bits become what evaluation makes of them."""
    image = picture(11, 8)
    for odd in (
        image[..., :1],
        np.concatenate([image, image[..., :1]], axis=-1),
        image.astype(np.uint16) * 257,
    ):
        data = tf.io.encode_png(odd).numpy()
        want = square_image(decode_image(data), 8)
        np.testing.assert_array_equal(graph(data, FOLDERS), want)


def header_only(height, width):
    """A PNG file that says how large it is and holds nothing."""
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size + b"\x08\x02\0\0\0"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a JPEG or PNG"),
        (b"\x89PNG\r\n\x1a\n", "not a JPEG or PNG"),
        (b"GIF89a" + bytes(40), "not a JPEG or PNG"),
        (b"no picture at all", "not a JPEG or PNG"),
        (header_only(20_000, 20_000), "no pixels, or more"),
        (header_only(2**32 - 1, 2**32 - 1), "no pixels, or more"),
        (header_only(0, 5), "no pixels, or more"),
        (header_only(5, 5), "PNG"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "JPEG"),
    ],
)
@pytest.mark.parametrize("spec", [FOLDERS, IMAGENET])
def test_what_is_no_picture_is_refused(graph, spec, data, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        graph(data, spec)


def test_truncated_files_are_refused(graph):
    for encode in (tf.io.encode_png, tf.io.encode_jpeg):
        data = encode(picture(60, 60)).numpy()
        with pytest.raises(tf.errors.InvalidArgumentError):
            graph(data[: len(data) // 2], FOLDERS)


def test_the_limit_of_pixels_counts_before_decoding(graph):
    data = tf.io.encode_jpeg(picture(10, 10)).numpy()
    assert graph(data, FOLDERS, max_pixels=99 + 1).shape == (8, 8, 3)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="no pixels, or more"
    ):
        prepare_encoded(data, FOLDERS, max_pixels=99)


def test_pictures_without_pixels_are_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="no pixels"):
        prepare_images(tf.zeros([1, 0, 4, 3], tf.uint8), FOLDERS)


def test_floats_are_rounded():
    found = pixels_from_floats(tf.constant([0.0, 0.6, 254.4, 255.0]))
    assert found.dtype == tf.uint8 and found.numpy().tolist() == [
        0,
        1,
        254,
        255,
    ]


@pytest.mark.parametrize("scale", [1 / 255, 1 / 256, 1e-3])
def test_pictures_that_were_divided_are_refused(scale):
    """Also one among others, and one of nothing but 0 and 1."""
    good = picture(8, 8)[None].astype(np.float32)
    for bad in (good * scale, np.float32(good > 128)):
        for images in (bad, np.concatenate([good, bad])):
            with pytest.raises(
                tf.errors.InvalidArgumentError, match="divided by 255: mult"
            ):
                pixels_from_floats(tf.constant(images))
    black = np.zeros_like(good)
    assert pixels_from_floats(tf.constant(black)).numpy().max() == 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pictures_are_served_as_they_were_held(graph, kind, orientation):
    """Of all sources, as Pillow turns them."""
    data = turned(orientation, kind)
    image = Image.open(io.BytesIO(data))
    upright = np.array(ImageOps.exif_transpose(image))
    want = square_image(upright, 8)
    np.testing.assert_array_equal(graph(data, FOLDERS), want)
    np.testing.assert_array_equal(decode_image(data), upright)
    # These are decoded faster, and a little otherwise.
    found = graph(data, CIFAR).astype(int)
    assert np.abs(found - square_image(upright, 12)).max() <= 8
    # Of JPEGs the center crop is cut out, and then turned.
    first = np.array(image) if kind == "JPEG" else upright
    top, left, height, width = photo_views.center_window(first.shape[:2])
    crop = Image.fromarray(first[top : top + height, left : left + width])
    crop.getexif()[TAG] = orientation if kind == "JPEG" else 1
    crop = np.array(ImageOps.exif_transpose(crop))
    want = resize_images(crop[None], 16)[0].astype(int)
    assert np.abs(graph(data, IMAGENET) - want).max() <= 8


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_crops_to_learn_from_are_turned_too(orientation):
    """The crop is the same one, turned."""
    pixels = colors(40, 60)
    raw, found = (
        photo_views.decode_random_crop(
            turned(number, pixels=pixels), image_size=16, seed=[1, 2]
        )
        .numpy()
        .astype(int)
        for number in (1, orientation)
    )
    turns = {1: raw, 3: raw[::-1, ::-1], 6: np.rot90(raw, -1)}
    # The grid of the release's resizing is not symmetric.
    assert np.abs(found - turns[orientation]).mean() < 16
    if orientation != 1:
        assert np.abs(found - raw).mean() > 48


def test_descriptions_name_what_is_done():
    assert "224/256" in description(IMAGENET)
    assert description(FOLDERS).startswith("short side scaled")
    assert description(CIFAR).startswith("from 32 x 32 resized to 12 x 12")
