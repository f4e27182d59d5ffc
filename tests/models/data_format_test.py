"""Networks whose images have their channels last, whatever Keras is set to."""

import keras
import numpy as np
import pytest

from meta_pseudo_labels import models
from tests import tiny_presets

OURS = ("wrn-10-1", "resnet-50", "efficientnet-b0", "speednet-4", "mlp")
SHAPE = (32, 32, 3)


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


def build(name, **settings):
    keras.utils.set_random_seed(3)
    keras.backend.clear_session()
    return models.build(name, input_shape=SHAPE, num_classes=2, **settings)


@pytest.mark.fast("wrn-10-1", "speednet-4", "mlp")
@pytest.mark.parametrize("name", OURS)
def test_our_networks_are_the_same(name, channels_first):
    model = build(name)
    keras.config.set_image_data_format("channels_last")
    other = build(name)
    assert model.count_params() == other.count_params()
    other.set_weights(model.get_weights())
    images = np.random.default_rng(0).normal(size=(2, *SHAPE))
    np.testing.assert_array_equal(
        *(np.asarray(one(images.astype("float32"))) for one in (model, other))
    )


@pytest.mark.parametrize("library", ["keras.applications", "KerasHub"])
def test_those_of_libraries_are_refused(tmp_path, channels_first, library):
    name = "MobileNetV2"
    if library == "KerasHub":
        pytest.importorskip("keras_hub")
        keras.config.set_image_data_format("channels_last")
        tiny_presets.write(tmp_path)
        keras.config.set_image_data_format("channels_first")
        name = f"keras_hub:{tmp_path}"
    with pytest.raises(ValueError, match=f"{library}.*channels_first"):
        build(name)
