import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from meta_pseudo_labels import models
from meta_pseudo_labels.models.families import applications


def build(model_type, **settings):
    sizes = dict(input_shape=(32, 32, 3), num_classes=5)
    return models.build(model_type, **sizes | settings)


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=[2, 32, 32, 3])


@pytest.mark.fast(
    "MobileNetV3Small-32",
    "ResNet50V2-32",
    "VGG16-32",
    "MobileNet-32",
    "Xception-71",
)
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("ConvNeXtTiny", 32),
        ("DenseNet121", 32),
        ("EfficientNetB0", 32),
        ("EfficientNetV2B0", 32),
        ("InceptionV3", 75),
        ("MobileNet", 32),
        ("MobileNetV2", 32),
        ("MobileNetV3Small", 32),
        ("NASNetMobile", 32),
        ("ResNet50", 32),
        ("ResNet50V2", 32),
        ("VGG16", 32),
        ("Xception", 71),
    ],
)
def test_builds_every_family(name, size):
    # In a graph nobody runs, weights are described, not allocated.
    with tf.Graph().as_default():
        model = build(name, input_shape=(size, size, 3), dropout_rate=0.1)
    assert model.input.shape == (None, size, size, 3)
    assert model.output.shape == (None, 5)
    assert model.layers[-1].name == "head.dense"
    assert model.layers[-2].name == "head.dropout"
    assert model.name == name


@pytest.mark.fast("EfficientNetV2B0", "MobileNetV3Small")
@pytest.mark.parametrize(
    "name",
    [
        "ConvNeXtTiny",
        "EfficientNetB0",
        "EfficientNetV2B0",
        "MobileNetV3Small",
        "ResNet50V2",
    ],
)
def test_images_reach_the_first_convolution_as_they_are(images, name):
    """Keras would divide them by 255, and shift some of them."""
    model = build(name, dtype="float64")
    first = next(layer for layer in model.layers if layer.weights)
    seen = np.asarray(keras.Model(model.input, first.input)(images))
    # Some pad with zeros.
    top = (np.array(seen.shape[1:3]) - 32) // 2
    inner = seen[:, top[0] : top[0] + 32, top[1] : top[1] + 32]
    np.testing.assert_array_equal(inner, images)
    assert np.count_nonzero(seen) == np.count_nonzero(images)
    # The others can be told so, and need no second copy.
    copied = any(isinstance(x, keras.layers.Identity) for x in model.layers)
    assert copied == (name == "EfficientNetB0")


def test_keras_itself_would_shrink_them(images):
    """If this fails, Keras has changed, and less need be undone."""
    theirs = keras.applications.EfficientNetB0(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    padding = theirs.get_layer("stem_conv_pad")
    seen = np.asarray(keras.Model(theirs.input, padding.input)(images))
    np.testing.assert_allclose(seen, images / 255, rtol=1e-4, atol=1e-7)


def test_trains_and_saves(images, tmp_path):
    model = build("EfficientNetB0", name="student")
    assert model.name == "student"
    before = [v.numpy() for v in model.non_trainable_variables]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images, training=True) ** 2)
    gradients = tape.gradient(
        loss, [v.value for v in model.trainable_variables]
    )
    assert all(gradient is not None for gradient in gradients)
    assert not all(
        np.array_equal(a, b)
        for a, b in zip(before, model.non_trainable_variables, strict=True)
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), model(images))


def test_every_build_starts_afresh():
    first, second = (
        build("MobileNetV3Small").get_layer("conv").kernel.numpy()
        for _ in range(2)
    )
    assert not np.array_equal(first, second)


@pytest.mark.fast("mixed_bfloat16-float32-bfloat16-float32")
@pytest.mark.parametrize(
    ("dtype", "variables", "computes", "logits"),
    [
        ("float64", "float64", "float64", "float64"),
        ("mixed_bfloat16", "float32", "bfloat16", "float32"),
    ],
)
def test_follows_the_dtype(images, dtype, variables, computes, logits):
    before = keras.config.dtype_policy()
    model = build("EfficientNetB0", dtype=dtype)
    assert {v.dtype for v in model.weights} == {variables}
    assert model.get_layer("top_conv").compute_dtype == computes
    assert model(images).dtype == logits
    assert keras.config.dtype_policy() == before


def test_a_failure_leaves_the_global_policy_alone():
    before = keras.config.dtype_policy()
    with pytest.raises(ValueError, match="at least 75x75"):
        build("InceptionV3", dtype="float64")
    assert keras.config.dtype_policy() == before


@pytest.mark.parametrize("name", ["MobileNetV9", "resnet50", "keras_cv"])
def test_unknown_names_list_the_known_ones(name):
    with pytest.raises(ValueError, match=f"{name!r}.*DenseNet121.*Xception"):
        models.application(name, input_shape=(32, 32, 3), num_classes=5)


def test_rejects_input_that_is_no_image():
    with pytest.raises(ValueError, match=r"channels\), got \(32,\)"):
        build("MobileNetV2", input_shape=(32,))


@pytest.mark.fast("MobileNetV3Large-True")
@pytest.mark.parametrize(
    ("name", "rescales"),
    [
        ("MobileNetV3Large", True),
        ("EfficientNetB0", True),
        ("MobileNetV2", False),
    ],
)
def test_a_rescaling_that_is_left_out_is_said_once(monkeypatch, name, rescales):
    """Weights that were trained with it would meet other images."""
    said = []
    monkeypatch.setattr(logging, "warning", lambda *words: said.append(words))
    applications._tell_of_preprocessing.cache_clear()
    for _ in range(2):
        with tf.Graph().as_default():
            build(name)
    assert len(said) == rescales
    if rescales:
        words = said[0][0] % said[0][1:]
        assert words.startswith(f"{name} is built without Keras's own resc")
        assert f"keras.applications.{name}" in words
