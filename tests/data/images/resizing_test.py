import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.data.images.resizing import (
    resize_images,
    square_image,
    square_images,
)


def noise(count, height=8, width=8):
    return np.random.RandomState(0).randint(
        0, 256, [count, height, width, 3], np.uint8
    )


@pytest.mark.parametrize("size", [5, 12, 32])
def test_equals_the_release_s_call(size):
    """TensorFlow 1's function, which the release calls on each image."""
    images = noise(4)
    want = tf.compat.v1.image.resize_bicubic(images, [size, size]).numpy()
    assert want.max() > 255 and want.min() < 0  # The release lets it be.
    got = resize_images(images, size)
    assert (got.dtype, got.shape) == (np.uint8, (4, size, size, 3))
    np.testing.assert_array_equal(got, np.clip(np.rint(want), 0, 255))


def test_many_images_are_resized_in_parts():
    images = noise(2_003, 4, 4)
    got = resize_images(images, 6)
    for place in (0, 999, 1_000, 2_002):
        np.testing.assert_array_equal(
            got[place : place + 1], resize_images(images[place : place + 1], 6)
        )


def test_own_size_is_left_alone():
    images = noise(2)
    assert resize_images(images, None) is images
    assert resize_images(images, 8) is images


def test_images_that_are_not_square_become_so():
    assert resize_images(noise(2, 8, 4), 8).shape == (2, 8, 8, 3)
    assert resize_images(noise(0), 4).shape == (0, 4, 4, 3)


def test_no_size_is_refused():
    with pytest.raises(ValueError, match="image_size is 0"):
        resize_images(noise(1), 0)


def test_squares_of_the_right_size_are_not_touched():
    image = noise(1)[0]
    np.testing.assert_array_equal(square_image(image, 8), image)


@pytest.mark.parametrize("height, width", [(8, 13), (13, 8)])
def test_the_centre_is_cropped(height, width):
    image = noise(1, height, width)[0]
    # Five pixels too many: two go at the front, three at the end.
    want = image[:, 2:10] if width > height else image[2:10]
    np.testing.assert_array_equal(square_image(image, 8), want)


def test_the_short_side_is_scaled_first():
    """The same as resizing the picture and then cropping it."""
    image = noise(1, 24, 40)[0]
    whole = tf.image.resize(image, [6, 10], method="bicubic", antialias=True)
    want = np.clip(np.rint(whole), 0, 255)[:, 2:8]
    got = square_image(image, 6)
    assert got.dtype == np.uint8
    # Away from the cut, where the bicubic window sees other pixels.
    np.testing.assert_array_equal(got[:, 2:4], want[:, 2:4])


@pytest.mark.parametrize("side, size", [(20, 7), (7, 20), (64, 32)])
def test_equals_tensorflow_s_function(side, size):
    image = noise(1, side, side)[0]
    want = tf.image.resize(image, [size] * 2, method="bicubic", antialias=True)
    np.testing.assert_array_equal(
        square_image(image, size), np.clip(np.rint(want), 0, 255)
    )


def test_fine_stripes_become_gray():
    image = np.zeros([64, 64, 3], np.uint8)
    image[:, ::2] = 255
    got = square_image(image, 8)
    assert got.shape == (8, 8, 3)
    np.testing.assert_allclose(got, 127.5, atol=8)


def test_one_pixel_fills_a_square():
    got = square_image(np.full([1, 1, 3], 77, np.uint8), 4)
    np.testing.assert_array_equal(got, np.full([4, 4, 3], 77))


def test_padding_keeps_all_of_a_picture_and_its_shape():
    image = noise(1, 8, 5)[0]
    got = square_image(image, 8, "pad", background=7)
    # Three columns too few: one is added at the front, two at the end.
    np.testing.assert_array_equal(got[:, 1:6], image)
    assert (got[:, :1] == 7).all() and (got[:, 6:] == 7).all()
    gray = square_image(np.full([2, 9, 3], 50, np.uint8), 6, "pad")
    assert (gray[2:3] == 50).all()  # 2 * 6 / 9 rows, rounded.
    assert (np.delete(gray, 2, axis=0) == 128).all()


@pytest.mark.parametrize("size", [4, 16])
def test_squashing_is_tensorflow_s_resize(size):
    image = noise(1, 9, 14)[0]
    want = tf.image.resize(image, [size] * 2, method="bicubic", antialias=True)
    np.testing.assert_array_equal(
        square_image(image, size, "squash"), np.clip(np.rint(want), 0, 255)
    )


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_a_graph_makes_the_same_of_any_shape(fit):
    in_graph = tf.function(
        lambda images: square_images(images, 6, fit),
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)],
    )
    for height, width in ((9, 5), (5, 9), (6, 6), (1, 50), (3, 4)):
        image = noise(1, height, width)
        want = square_image(image[0], 6, fit)
        assert want.shape == (6, 6, 3)
        np.testing.assert_array_equal(in_graph(image)[0], want)
