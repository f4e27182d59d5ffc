import keras
import numpy as np
import pytest

from meta_pseudo_labels.models import initializers


def draw(initializer, shape):
    return np.asarray(initializer(shape, dtype="float32"))


def test_conv_kernel_scales_with_the_number_of_filters():
    kernel = draw(initializers.conv_kernel(), (3, 3, 64, 200))
    # 115,200 numbers: the standard error of the deviation is 0.2 %.
    assert kernel.std() == pytest.approx((2 / (3 * 3 * 200)) ** 0.5, rel=0.01)
    assert abs(kernel.mean()) < 4 * kernel.std() / kernel.size**0.5


def test_conv_kernel_is_not_truncated():
    kernel = draw(initializers.conv_kernel(), (3, 3, 64, 200))
    beyond_two_deviations = np.mean(np.abs(kernel) > 2 * kernel.std())
    assert beyond_two_deviations == pytest.approx(0.0455, abs=0.003)


def test_depthwise_kernel_has_one_output_per_channel():
    kernel = draw(initializers.conv_kernel(), (5, 5, 4000, 1))
    assert kernel.std() == pytest.approx((2 / (5 * 5)) ** 0.5, rel=0.01)


def test_dense_kernel_is_uniform_within_the_root_of_its_outputs():
    kernel = draw(initializers.dense_kernel(), (10_000, 16))
    assert np.abs(kernel).max() <= 0.25
    assert np.abs(kernel).max() == pytest.approx(0.25, rel=1e-3)
    assert kernel.std() == pytest.approx(0.25 / 3**0.5, rel=0.01)


@pytest.mark.parametrize(
    "make", [initializers.conv_kernel, initializers.dense_kernel]
)
def test_draws_differ_and_follow_the_global_seed(make):
    keras.utils.set_random_seed(1)
    first, second = draw(make(), (4, 4)), draw(make(), (4, 4))
    keras.utils.set_random_seed(1)
    again = draw(make(), (4, 4))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    "make", [initializers.conv_kernel, initializers.dense_kernel]
)
def test_serialises(make):
    config = keras.initializers.serialize(make())
    copy = keras.initializers.deserialize(config)
    assert copy.get_config() == make().get_config()


@pytest.mark.parametrize("filters", [3, 5, 12])
def test_dirac_passes_its_input_on(filters):
    kernel = draw(initializers.Dirac(seed=1), (3, 3, 5, filters))
    x = np.random.default_rng(0).normal(size=(2, 6, 7, 5)).astype("float32")
    y = np.asarray(keras.ops.conv(x, kernel, padding="same"))
    np.testing.assert_allclose(y[..., :5], x[..., :filters], atol=1e-6)
    others = kernel[..., 5:]
    if others.size:
        assert 0.1 < np.abs(others).max() <= 1 / 45**0.5


def test_dirac_is_made_again_from_its_config():
    one = initializers.Dirac(seed=3)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(one)
    )
    shape = (3, 3, 2, 4)
    np.testing.assert_array_equal(draw(one, shape), draw(again, shape))
