import numpy as np
import pytest

from meta_pseudo_labels.data.pixel_statistics import channel_statistics


def test_statistics_of_many_images_are_exact():
    images = np.random.RandomState(0).randint(0, 256, [3_000, 32, 32, 3])
    images = images.astype(np.uint8)
    images[..., 2] = 51
    mean, std = channel_statistics(images[:7], images[:0], images[7:])
    flat = images.reshape(-1, 3) / 255
    np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std[:2], flat.std(axis=0)[:2], rtol=1e-9)
    assert (mean[2], std[2]) == (pytest.approx(0.2), 1 / 255)
    with pytest.raises(ValueError, match="no images to take the mean of"):
        channel_statistics(images[:0])
