import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.data.resizing import resize_images


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
