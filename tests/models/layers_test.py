import doctest

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.models import layers

FACTORY = layers.LayerFactory(policy=keras.dtype_policies.get("float64"))


def apply(make, inputs):
    """Values of a layer of the factory, and the layer."""
    images = keras.Input(inputs.shape[1:], dtype="float64")
    model = keras.Model(images, make(images))
    return np.asarray(model(inputs)), model.layers[-1]


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=[2, 6, 6, 3])


def test_release_variable_name():
    name = models.release_variable_name
    assert (
        name("block_1.conv_3x3_2.batch_norm", "gamma")
        == "block_1/conv_3x3_2/batch_norm/gamma"
    )
    assert (
        name("block_0.depthwise.dw_conv_2d", "kernel")
        == "block_0/depthwise/dw_conv_2d/depthwise_kernel"
    )
    assert doctest.testmod(layers).failed == 0


def test_even_images_are_padded_below_and_right(images):
    got, conv = apply(
        lambda x: FACTORY.conv(x, 4, strides=2, scope="stem"), images
    )
    padded = np.pad(images, [(0, 0), (0, 1), (0, 1), (0, 0)])
    kernel = conv.kernel.numpy()
    corner = np.einsum("bhwi,hwio->bo", padded[:, 4:7, 4:7], kernel)
    np.testing.assert_allclose(got[:, 2, 2], corner)
    assert got.shape == (2, 3, 3, 4)


def test_depthwise_conv_filters_each_channel_by_itself(images):
    got, conv = apply(
        lambda x: FACTORY.depthwise_conv(
            x, kernel_size=3, strides=1, scope="block_0.depthwise"
        ),
        images,
    )
    assert conv.kernel.shape == (3, 3, 3, 1)
    kernel = conv.kernel.numpy()[..., 0]
    middle = np.einsum("bhwc,hwc->bc", images[:, 1:4, 2:5], kernel)
    np.testing.assert_allclose(got[:, 2, 3], middle)


def test_only_convolutions_that_ask_for_it_have_a_bias(images):
    _, plain = apply(lambda x: FACTORY.conv(x, 4, scope="a"), images)
    _, biased = apply(
        lambda x: FACTORY.conv(x, 4, use_bias=True, scope="a", layer="b"),
        images,
    )
    assert (plain.name, biased.name) == ("a.conv2d", "a.b")
    assert [v.name for v in plain.weights] == ["kernel"]
    assert [v.name for v in biased.weights] == ["kernel", "bias"]
    np.testing.assert_array_equal(biased.bias, np.zeros(4))


def test_activations(images):
    swish, _ = apply(lambda x: FACTORY.swish(x, scope="a"), images)
    relu, _ = apply(lambda x: FACTORY.relu(x, scope="a"), images)
    np.testing.assert_allclose(swish, images / (1 + np.exp(-images)))
    np.testing.assert_array_equal(relu, np.maximum(images, 0))


def test_swish_has_a_second_derivative():
    """The `exact` feedback differentiates a gradient once more."""
    x = tf.constant([0.7], tf.float64)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = keras.layers.Activation("silu", dtype="float64")(x)
        slope = inner.gradient(y, x)
    s = 1 / (1 + np.exp(-0.7))
    first = s + 0.7 * s * (1 - s)
    second = s * (1 - s) * (2 + 0.7 * (1 - 2 * s))
    np.testing.assert_allclose(slope, [first])
    np.testing.assert_allclose(outer.gradient(slope, x), [second])


def test_batch_norm_takes_the_settings_of_the_network(images):
    factory = layers.LayerFactory(
        policy=FACTORY.policy,
        norm=models.NormSettings(decay=0.9, epsilon=1e-5, batch_size=64),
    )
    _, layer = apply(lambda x: factory.batch_norm(x, scope="a"), images)
    assert layer.name == "a.batch_norm"
    assert isinstance(layer, models.BatchNorm)
    assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
    assert layer.group_batch_size == 64


@pytest.mark.parametrize("shape", [(32,), (32, 32), (1, 32, 32, 3)])
def test_rejects_input_that_is_no_image(shape):
    with pytest.raises(ValueError, match="height, width, channels") as error:
        layers.image_input(shape, policy=FACTORY.policy)
    assert str(shape) in str(error.value)


def test_images_come_in_the_precision_of_the_variables():
    for dtype, want in (("float64", "float64"), ("mixed_bfloat16", "float32")):
        policy = keras.dtype_policies.get(dtype)
        assert layers.image_input((8, 8, 3), policy=policy).dtype == want
