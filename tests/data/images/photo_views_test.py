import io

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data.images import photo_views, views
from meta_pseudo_labels.data.images.view_settings import ViewSettings
from meta_pseudo_labels.data.streams import keyed

HEIGHT, WIDTH = 120, 200


@pytest.fixture(scope="module")
def gradient():
    """A JPEG whose red is its column and whose green is its row."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8)
    encoded = tf.io.encode_jpeg(pixels, quality=100, chroma_downsampling=False)
    # What the encoder made of it is what the crops are compared with.
    return encoded, tf.io.decode_jpeg(encoded).numpy()


@pytest.fixture(scope="module")
def crops(gradient):
    """The windows of 2,000 crops: top, left, height and width, in pixels.

    Read off the resized gradient, whose rows and columns are its colors.
    """
    encoded, _ = gradient
    size, low, high = 192, 16, 176

    def window(number):
        image = photo_views.decode_random_crop(
            encoded, image_size=size, seed=keyed.key(0, number)
        )
        column = tf.cast(image[:, low, 1], tf.float32)
        row = tf.cast(image[low, :, 0], tf.float32)
        # Output pixel x shows x * old / new.
        down = (column[high] - column[low]) / (high - low)
        right = (row[high] - row[low]) / (high - low)
        top, left = column[low] - low * down, row[low] - low * right
        return tf.stack([top, left, down * size, right * size])

    windows = tf.data.Dataset.range(2_000).map(window, num_parallel_calls=2)
    return np.array(list(windows.as_numpy_iterator()))


def test_center_crop_by_hand(gradient):
    """120 x 200: the square has 105 pixels, from row 8 and column 48."""
    encoded, pixels = gradient
    got = photo_views.decode_center_crop(encoded, image_size=105).numpy()
    np.testing.assert_array_equal(got, pixels[8:113, 48:153])


@pytest.mark.parametrize("size", [224, 35])
def test_center_crop_is_resized_as_by_the_release(gradient, size):
    encoded, pixels = gradient
    got = photo_views.decode_center_crop(encoded, image_size=size).numpy()
    want = tf.compat.v1.image.resize_bicubic(
        pixels[np.newaxis, 8:113, 48:153], [size, size]
    )
    want = np.clip(np.rint(want[0]), 0, 255)
    np.testing.assert_array_equal(got, want)
    assert got.dtype == np.uint8


@pytest.mark.long
def test_crops_lie_in_the_image_and_have_the_release_s_shapes(crops):
    top, left, height, width = crops.T
    assert min(top.min(), left.min()) > -4
    assert (top + height).max() < HEIGHT + 4
    assert (left + width).max() < WIDTH + 4
    area = height * width / (HEIGHT * WIDTH)
    aspect = width / height
    # With what reading the gradient leaves uncertain.
    assert 0.06 < area.min() < 0.12 and area.max() <= 1
    assert 0.68 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.45


def test_crops_are_spread(crops):
    """Areas that fit are equally likely; so are the places of a crop."""
    top, left, height, width = crops.T
    area = height * width / (HEIGHT * WIDTH)
    # No crop of aspect <= 4/3 has more than 160 x 120 = 80 %.
    assert 0.3 < area.mean() < 0.5
    assert np.mean(area < 0.2) > 0.1 and np.mean(area > 0.6) > 0.05
    center = (left + width / 2) / WIDTH, (top + height / 2) / HEIGHT
    np.testing.assert_allclose(np.mean(center, axis=1), 0.5, atol=0.02)
    assert np.std(center[0]) > 0.1


def test_crop_is_fixed_by_its_seed(gradient):
    encoded, _ = gradient
    one, again, other = (
        photo_views.decode_random_crop(
            encoded, image_size=16, seed=keyed.key(1, number)
        ).numpy()
        for number in (5, 5, 6)
    )
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)


def test_impossible_crop_becomes_the_center():
    """A line of 400 x 1 pixels has no crop of aspect 3/4 to 4/3."""
    columns = np.arange(400, dtype=np.uint8)[np.newaxis, :, np.newaxis]
    encoded = tf.io.encode_jpeg(np.tile(columns, [1, 1, 3]), quality=100)
    center = photo_views.decode_center_crop(encoded, image_size=8).numpy()
    for number in range(5):
        got = photo_views.decode_random_crop(
            encoded, image_size=8, seed=keyed.key(0, number)
        ).numpy()
        whole = got.std() > 20
        assert not whole
        if got.tobytes() == center.tobytes():
            break
    else:
        pytest.fail("No crop is the center.")


def test_gray_image_becomes_rgb(data_dir):
    (path,) = (data_dir / "imagenet_mini" / "odd").glob("grey*")
    encoded = path.read_bytes()
    assert tf.io.extract_jpeg_shape(encoded)[2] == 1
    for image in (
        photo_views.decode_center_crop(encoded, image_size=32),
        photo_views.decode_random_crop(
            encoded, image_size=32, seed=tf.constant([0, 1])
        ),
    ):
        assert image.shape == (32, 32, 3)
        np.testing.assert_array_equal(image[..., 0], image[..., 2])
        assert np.std(image) > 1


def test_cmyk_image_is_refused():
    pillow = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    pillow.new("CMYK", (20, 20), (9, 8, 7, 6)).save(file, "JPEG")
    try:
        image = photo_views.decode_center_crop(file.getvalue(), image_size=8)
    except tf.errors.InvalidArgumentError:
        return
    assert image.shape == (8, 8, 3)


def test_large_image_is_refused_before_it_is_decoded(gradient):
    encoded, _ = gradient
    pixels = HEIGHT * WIDTH
    photo_views.decode_center_crop(encoded, image_size=8, max_pixels=pixels)
    for decode in (
        photo_views.decode_center_crop,
        lambda *args, **settings: photo_views.decode_random_crop(
            *args, seed=tf.constant([0, 0]), **settings
        ),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
            decode(encoded, image_size=8, max_pixels=pixels - 1)


def test_strong_view_is_flip_and_rand_augment_alone():
    """No cutout of its own; the constants are those of quirk 26."""
    spec, settings = data.DATASETS["imagenet2012"], ViewSettings(magnitude=9)
    images = np.random.default_rng(0).integers(
        256, size=[6, 64, 64, 3], dtype=np.uint8
    )
    seed = tf.constant([3, 4], tf.int64)
    got = photo_views.strong(spec, settings)(images, seed)
    first, second = tf.unstack(tf.random.split(seed, 2))
    flipped = views.flip()(images, first)
    want = views.rand_augment(
        magnitude=9, translate_const=100, cutout_const=40, fill=128
    )(flipped, second)
    np.testing.assert_array_equal(got, want)
    labeled = photo_views.labeled_strong(spec, settings)
    np.testing.assert_array_equal(labeled(flipped, second), want)


def test_data_without_mirror_images():
    spec = data.DatasetSpec(
        name="text",
        num_classes=2,
        image_size=8,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        flip=False,
    )
    images = np.random.default_rng(0).integers(
        256, size=[20, 8, 8, 3], dtype=np.uint8
    )
    got = photo_views.weak(spec, ViewSettings(magnitude=0))(
        images, tf.constant([0, 0])
    )
    np.testing.assert_array_equal(got, images)
