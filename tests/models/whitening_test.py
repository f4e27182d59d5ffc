import keras
import numpy as np
import pytest

from meta_pseudo_labels import models
from meta_pseudo_labels.models.whitening import Whitening


def pictures(count=300, side=8, channels=3):
    """Neighbors and channels that depend on one another, not of mean 0."""
    random = np.random.default_rng(0)
    x = random.normal(size=(count, side + 1, side, channels))
    x = (x[:, 1:] + 0.6 * x[:, :-1]) @ (np.eye(channels) + 0.4)
    return (2.0 * x + 0.5).astype("float32")


def layer(images, dtype="float64", **settings):
    made = Whitening(dtype=dtype, **settings)
    made.build(images.shape)
    return made


def covariance(whitening, images):
    x = np.asarray(whitening(images))
    return np.cov(x.reshape(-1, x.shape[-1]), rowvar=False, bias=True)


@pytest.mark.parametrize(("size", "channels"), [(2, 3), (2, 1), (3, 2)])
def test_whitened_patches_have_unit_covariance(size, channels):
    images = pictures(channels=channels)
    whitening = layer(images, size=size, epsilon=0.0)
    whitening.adapt(images)
    values = size**2 * channels
    found = covariance(whitening, images)
    assert found.shape == (2 * values, 2 * values)
    unit = np.eye(values)
    wanted = np.block([[unit, -unit], [-unit, unit]])
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_epsilon_is_added_to_the_variances():
    images = pictures()
    whitening = layer(images, epsilon=0.5)
    whitening.adapt(images)
    found = np.diag(covariance(whitening, images))[:12]
    pixels = layer(images)  # Not adapted: its filters are the pixels.
    variances = np.linalg.eigvalsh(covariance(pixels, images)[:12, :12])
    np.testing.assert_allclose(found, variances / (variances + 0.5), rtol=1e-4)


def test_an_axis_without_variance_stays_finite():
    gray = np.repeat(pictures(channels=1), 3, axis=-1)
    whitening = layer(gray, dtype="float32")
    whitening.adapt(gray)
    assert np.isfinite(whitening(gray)).all()


def test_the_filters_are_a_function_of_the_images_alone():
    images = pictures()
    kernels = []
    for _ in range(2):
        whitening = layer(images)
        whitening.adapt(images)
        kernels.append(whitening.kernel.numpy())
    np.testing.assert_array_equal(*kernels)
    whitening.adapt(images[::-1])  # In other parts.
    np.testing.assert_allclose(whitening.kernel, kernels[0], atol=1e-5)


def test_only_the_bias_is_trained():
    whitening = layer(pictures())
    assert whitening.trainable_variables == [whitening.bias]
    whitening.bias.assign(np.arange(24))
    before = layer(pictures())(pictures())
    np.testing.assert_allclose(
        np.asarray(whitening(pictures())) - before,
        np.broadcast_to(np.arange(24), before.shape),
        atol=1e-6,
    )


def test_a_config_makes_it_again():
    images = pictures(4)
    made = layer(images, size=3, epsilon=0.25)
    again = Whitening.from_config(made.get_config())
    assert again.get_config() == made.get_config()
    assert again.compute_output_shape(images.shape) == made(images).shape


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 8, 8, 3), np.uint8), "normalized images.*uint8"),
        (np.zeros((4, 8, 8, 1), np.float32), "height, width, 3.*8, 1"),
        (np.zeros((8, 8, 3), np.float32), r"got \[8, 8, 3\]"),
        (np.zeros((0, 8, 8, 3), np.float32), r"of shape \[0, 8"),
        (np.zeros((4, 1, 8, 3), np.float32), "at least 2x2"),
        (np.full((4, 8, 8, 3), np.nan, np.float32), "finite"),
    ],
)
def test_refuses_what_it_cannot_adapt_to(images, message):
    whitening = layer(pictures(4))
    with pytest.raises(ValueError, match=message):
        whitening.adapt(images)
    assert not whitening.is_adapted()


@pytest.mark.parametrize("settings", [dict(size=0), dict(epsilon=-1.0)])
def test_refuses_numbers_out_of_range(settings):
    with pytest.raises(ValueError, match="got size"):
        Whitening(**settings)


def test_a_network_is_adapted_wherever_the_layer_is():
    images = pictures(8)
    inner = keras.Sequential([keras.Input(images.shape[1:]), Whitening()])
    model = keras.Sequential([inner, keras.layers.Flatten()])
    assert not models.is_adapted(model)
    with pytest.raises(ValueError, match="models.adapt"):
        models.check_adapted(model)
    models.adapt(model, images)
    models.check_adapted(model)


def test_networks_without_such_layers_need_nothing():
    model = models.build("mlp", input_shape=(8, 8, 3), num_classes=3)
    models.adapt(model, pictures(4))
    models.check_adapted(model)
