import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import models
from tests.models.helpers import variables_by_release_name


def tiny(**settings):
    sizes = dict(depth=10, width=1, input_shape=(8, 8, 3), num_classes=4)
    return models.wide_resnet(**sizes | settings)


@pytest.fixture(scope="module")
def trace(reference_dir):
    with np.load(reference_dir / "supervised_wrn28_1.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=[6, 8, 8, 3])


def test_trainable_variables_are_in_the_order_of_the_release(trace):
    model = models.build("wrn-28-1", input_shape=(16, 16, 3), num_classes=10)
    assert [
        f"model/wrn-28-1/{variable.path.replace('.', '/')}"
        for variable in model.trainable_variables
    ] == trace["trainable_names"].tolist()


@pytest.mark.fast("infer-float32", "train-float64")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_logits_equal_the_release(trace, dtype, mode):
    model = models.build(
        "wrn-28-1", input_shape=(16, 16, 3), num_classes=10, dtype=dtype
    )
    for name, variable in variables_by_release_name(model).items():
        variable.assign(trace[f"init/model/wrn-28-1/{name}"])
    logits = model(trace["eval/images"], training=mode == "train")
    assert logits.dtype == dtype
    # The trace is float32 itself; its logits reach 5.
    np.testing.assert_allclose(
        logits, trace[f"eval/initial_student_{mode}"], rtol=1e-5, atol=1e-5
    )


def test_moving_averages_take_the_biased_variance(images):
    model = tiny(norm=models.NormSettings(decay=0.75), dtype="float64")
    batch_norm = model.get_layer("block_1.conv_3x3_1.batch_norm")
    stem = np.asarray(model.get_layer("stem.conv2d")(images))
    model(images, training=True)
    np.testing.assert_allclose(
        batch_norm.moving_mean, 0.25 * stem.mean((0, 1, 2))
    )
    np.testing.assert_allclose(
        batch_norm.moving_variance, 0.75 + 0.25 * stem.var((0, 1, 2))
    )


def test_computes_in_float64_from_the_input_on(images):
    model = tiny(dtype="float64")
    moved = images + 1e-12
    difference = np.asarray(model(moved)) - np.asarray(model(images))
    assert 0 < np.abs(difference).max() < 1e-9


def test_mixed_bfloat16_keeps_variables_and_logits_in_float32(images):
    model = tiny(dtype="mixed_bfloat16")
    assert {variable.dtype for variable in model.weights} == {"float32"}
    assert model.get_layer("stem.conv2d").compute_dtype == "bfloat16"
    logits = model(images, training=True)
    assert logits.dtype == "float32"
    exact = tiny(dtype="float64")
    exact.set_weights(model.get_weights())
    np.testing.assert_allclose(
        logits, exact(images, training=True), atol=0.1, rtol=0.1
    )


def test_gradient_reaches_the_targets_through_a_gradient(images):
    """What the exact feedback needs: d/dq of a gradient over the weights.

    The gradient is linear in the targets q, so any two points give its slope.
    (Second derivatives over the weights themselves are another matter: those
    of tf.nn.moments, within batch norm, are wrong, as it stops a gradient
    that is zero in the first derivative only.)
    """
    model = tiny(dtype="float64")
    kernel = model.get_layer("block_1.conv_3x3_1.conv2d").kernel
    generator = np.random.default_rng(1)
    along_kernel = generator.normal(size=kernel.shape)
    along_targets = generator.normal(size=[len(images), 4])

    def slope(targets):
        """Derivative of the loss along `along_kernel`."""
        with tf.GradientTape() as tape:
            log_probabilities = tf.nn.log_softmax(model(images, training=True))
            loss = -tf.reduce_sum(targets * log_probabilities)
        return tf.reduce_sum(tape.gradient(loss, kernel) * along_kernel)

    targets = tf.ones_like(along_targets) / 4
    with tf.GradientTape() as tape:
        tape.watch(targets)
        value = slope(targets)
    got = tf.reduce_sum(tape.gradient(value, targets) * along_targets)
    assert abs(got) > 1e-2
    np.testing.assert_allclose(
        got, slope(targets + along_targets) - value, rtol=1e-9
    )


def test_keras_file_round_trip(images, tmp_path):
    model = tiny(dropout_rate=0.2)
    model(images, training=True)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(loaded(images), model(images))
    assert [layer.name for layer in loaded.layers] == [
        layer.name for layer in model.layers
    ]


@pytest.mark.long
def test_exports_a_saved_model(images, tmp_path):
    model = tiny()
    images = images.astype("float32")
    model.export(tmp_path / "saved_model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved_model")
    np.testing.assert_allclose(loaded.serve(images), model(images), atol=1e-6)


@pytest.mark.parametrize("depth", [4, 9, 12, 27, -2])
def test_rejects_depths_that_make_no_whole_blocks(depth):
    with pytest.raises(ValueError, match=rf"6n \+ 4.*got {depth}"):
        tiny(depth=depth)


@pytest.mark.parametrize("width", [0, -1, 0.3])
def test_rejects_widths_that_make_no_whole_filters(width):
    with pytest.raises(ValueError, match=f"whole number, got {width}"):
        tiny(width=width)
