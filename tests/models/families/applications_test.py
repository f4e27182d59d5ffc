import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from meta_pseudo_labels import models
from meta_pseudo_labels.models.families import applications
from tests.models.helpers import randomize


def build(model_type, **settings):
    sizes = dict(input_shape=(32, 32, 3), num_classes=5)
    return models.build(model_type, **sizes | settings)


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=[2, 32, 32, 3])


@pytest.mark.fast("MobileNet-32", "VGG16-32")
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


@pytest.mark.fast("MobileNetV3Small")
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


@pytest.mark.long
def test_keras_itself_would_shrink_them(images):
    """If this fails, Keras has changed, and less need be undone."""
    theirs = keras.applications.EfficientNetB0(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    padding = theirs.get_layer("stem_conv_pad")
    seen = np.asarray(keras.Model(theirs.input, padding.input)(images))
    np.testing.assert_allclose(seen, images / 255, rtol=1e-4, atol=1e-7)


@pytest.mark.long
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


@pytest.mark.long
def test_every_build_starts_afresh():
    first, second = (
        build("MobileNetV3Small").get_layer("conv").kernel.numpy()
        for _ in range(2)
    )
    assert not np.array_equal(first, second)


@pytest.mark.long
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


@pytest.mark.long
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


# Of three sets that are normalized otherwise.
MEAN, STD = (0.31, 0.48, 0.45), (0.25, 0.24, 0.37)


def normalized(levels):
    return (levels / 255 - np.array(MEAN)) / np.array(STD)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("DenseNet121", 32),
        ("InceptionResNetV2", 75),
        ("InceptionV3", 75),
        ("MobileNet", 32),
        ("MobileNetV2", 32),
        ("NASNetMobile", 32),
        ("ResNet50", 32),
        ("ResNet50V2", 32),
        ("VGG16", 32),
        ("VGG19", 32),
        ("Xception", 71),
    ],
)
def test_pretrained_ones_see_what_keras_preprocesses(name, size):
    """Whatever set our images are of; without a single layer's weights."""
    levels = np.random.default_rng(0).integers(0, 256, [2, 8, 8, 3])
    images = keras.Input((8, 8, 3), dtype="float64")
    seen = keras.Model(
        images, applications._as_trained_on(name, images, MEAN, STD)
    )
    module = inspect.getmodule(getattr(keras.applications, name))
    wanted = module.preprocess_input(levels.astype("float64"))
    np.testing.assert_allclose(seen(normalized(levels)), wanted, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "MobileNet",
        pytest.param("MobileNetV3Small", marks=pytest.mark.long),
    ],
)
def test_logits_are_those_of_keras_on_the_same_picture(name, tmp_path):
    """Weights by `load_weights`, levels in, up to the last pooling."""
    builder = getattr(keras.applications, name)
    theirs = builder(
        weights=None,
        include_top=False,
        pooling="avg",
        input_shape=(32, 32, 3),
    )
    randomize(theirs)
    levels = np.random.default_rng(0).integers(0, 256, [2, 32, 32, 3])
    preprocess = inspect.getmodule(builder).preprocess_input
    wanted = theirs(preprocess(levels.astype("float32")), training=False)

    ours = build(name, pixels=(MEAN, STD), num_classes=5)
    theirs.save(tmp_path / "theirs.keras")
    models.load_weights(ours, tmp_path / "theirs.keras")
    ours.save(tmp_path / "ours.keras")  # It goes with the network.
    ours = keras.models.load_model(tmp_path / "ours.keras")
    features = keras.Model(ours.input, ours.layers[-1].input)
    images = normalized(levels).astype("float32")
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(
        features(images) / scale, wanted / scale, atol=1e-5
    )
    # And it matters: without it they are far off.
    plain = build(name)
    models.load_weights(plain, theirs)
    features = keras.Model(plain.input, plain.layers[-1].input)
    assert np.abs(features(images) - wanted).max() > 1e-3 * scale


def test_networks_that_are_not_of_keras_take_no_pixels():
    with pytest.raises(ValueError, match="mlp takes images as they are"):
        models.build(
            "mlp", input_shape=(8, 8, 3), num_classes=5, pixels=(MEAN, STD)
        )


def test_a_download_that_fails_says_which_file_to_give(monkeypatch):
    def offline(**_):
        raise Exception(  # As Keras does it.
            "URL fetch failure on https://a.org/net_no_top.h5: None -- offline"
        )

    monkeypatch.setattr(keras.applications, "MobileNet", offline)
    with pytest.raises(ValueError, match=r"a.org/net_no_top.h5\. Fetch it"):
        models.pretrained_network(
            "MobileNet", "imagenet", input_shape=(32, 32, 3)
        )


@pytest.mark.long
def test_a_file_as_keras_downloads_them_is_read(tmp_path):
    donor = keras.applications.MobileNet(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    donor.save(tmp_path / "net.h5")
    sizes = dict(input_shape=(32, 32, 3))
    loaded = models.pretrained_network(
        "MobileNet", f"{tmp_path}/net.h5", **sizes
    )
    model = build("MobileNet")
    assert not models.load_weights(model, loaded).missing
    np.testing.assert_array_equal(
        model.get_layer("conv_pw_5").kernel, donor.get_layer("conv_pw_5").kernel
    )
    with pytest.raises(ValueError, match="has no weights for Xception"):
        models.pretrained_network(
            "Xception", f"{tmp_path}/net.h5", input_shape=(71, 71, 3)
        )
