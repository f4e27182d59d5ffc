import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import models
from tests.models.helpers import HandWritten, randomize


def tiny(**settings):
    sizes = dict(
        blocks_per_stage=(2, 1),
        filters=8,
        input_shape=(16, 16, 3),
        num_classes=4,
    )
    return models.resnet(**sizes | settings)


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=[6, 16, 16, 3])


class Release(HandWritten):
    """The release's network in TensorFlow's own ops."""

    def __call__(self, images):
        x = tf.nn.relu(self.conv_norm(images, "stem", 2))
        x = tf.nn.max_pool2d(x, 3, 2, "SAME")
        x = self.block(x, "block_1", project=True)
        x = self.block(x, "block_2")
        x = self.block(x, "block_3", strides=2, project=True)
        return self.logits(x)

    def block(self, x, scope, strides=1, project=False):
        shortcut = x
        x = tf.nn.relu(self.conv_norm(x, f"{scope}/conv_1x1_1"))
        x = tf.nn.relu(self.conv_norm(x, f"{scope}/conv_3x3", strides))
        x = self.conv_norm(x, f"{scope}/conv_1x1_2")
        if project:
            shortcut = self.conv_norm(shortcut, f"{scope}/residual", strides)
        return tf.nn.relu(x + shortcut)


@pytest.mark.parametrize("training", [False, True])
def test_computes_what_the_release_computes(images, training):
    model = tiny(dtype="float64")
    randomize(model)
    want = Release(model, training=training)(images)
    np.testing.assert_allclose(
        model(images, training=training), want, rtol=1e-8, atol=1e-8
    )


@pytest.mark.long
def test_starts_as_the_release_does():
    model = models.build("resnet-50", input_shape=(32, 32, 3), num_classes=10)
    stem = model.get_layer("stem.conv2d").kernel.numpy()
    # 9,408 numbers: the standard error of the deviation is 0.7 %.
    assert stem.std() == pytest.approx((2 / (7 * 7 * 64)) ** 0.5, rel=0.03)
    # gamma is 1 at the end of a block as well.
    for layer in model.layers:
        if isinstance(layer, models.BatchNorm):
            assert np.all(layer.gamma == 1) and np.all(layer.beta == 0)
    first, second = (
        model.get_layer(f"block_{block}.conv_3x3.conv2d").kernel.numpy()
        for block in (2, 3)
    )
    assert not np.array_equal(first, second)


def test_small_images_pass():
    model = tiny(blocks_per_stage=(1, 1, 1, 1), input_shape=(8, 8, 3))
    assert model(np.zeros([2, 8, 8, 3])).shape == (2, 4)


def test_mixed_bfloat16_keeps_variables_and_logits_in_float32(images):
    model = tiny(dtype="mixed_bfloat16")
    assert {variable.dtype for variable in model.weights} == {"float32"}
    assert model.get_layer("block_1.residual.relu").compute_dtype == "bfloat16"
    logits = model(images, training=True)
    assert logits.dtype == "float32"
    exact = tiny(dtype="float64")
    exact.set_weights(model.get_weights())
    np.testing.assert_allclose(
        logits, exact(images, training=True), atol=0.1, rtol=0.1
    )


def test_keras_file_round_trip(images, tmp_path):
    model = tiny(dropout_rate=0.2)
    randomize(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), model(images))


@pytest.mark.parametrize("blocks", [(), (3, 0), (-1,)])
def test_rejects_stages_without_blocks(blocks):
    with pytest.raises(ValueError, match="1 or more") as error:
        tiny(blocks_per_stage=blocks)
    assert str(blocks) in str(error.value)


@pytest.mark.parametrize("filters", [0, 6, -4])
def test_rejects_filters_that_make_no_bottleneck(filters):
    with pytest.raises(ValueError, match=rf"\(4\), got {filters}"):
        tiny(filters=filters)
