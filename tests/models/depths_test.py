"""How deep the layers of a network are, as --layer_lr_decay counts them."""

import keras
import numpy as np
import pytest
from keras import Input
from keras.layers import BatchNormalization, Conv2D, Dense

from meta_pseudo_labels import models
from meta_pseudo_labels.models.depths import backbone_depths


def convolution(x, name):
    return keras.layers.ReLU()(
        BatchNormalization()(Conv2D(4, 3, padding="same", name=name)(x))
    )


def branched():
    """A stem, a residual block, one without a shortcut, a last batch norm."""
    pixels = Input([8, 8, 3])
    x = convolution(BatchNormalization()(pixels), "stem")
    x = keras.layers.Add()([x, convolution(convolution(x, "a"), "b")])
    x = convolution(convolution(x, "c"), "d")
    x = keras.layers.GlobalAveragePooling2D()(BatchNormalization()(x))
    return keras.Model(pixels, Dense(3, name="head")(x))


def test_what_everything_passes_is_a_layer():
    model = branched()
    found = zip(
        models.backbone_weights(model), backbone_depths(model), strict=True
    )
    kernels = {
        weight.path.split("/")[0]: depth
        for weight, depth in found
        if weight.name == "kernel"
    }
    assert kernels == {"stem": 4, "a": 3, "b": 3, "c": 2, "d": 1}
    # Batch norm with what is below it, but for the first.
    depths = backbone_depths(model)
    assert depths == [4] * 6 + [3] * 8 + [2] * 4 + [1] * 6


def by_order():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.norm = Dense(4), keras.layers.LayerNormalization()
            self.second, self.last = Dense(4), Dense(3)

        def call(self, x):
            return self.last(self.second(self.norm(self.first(x))))

    model = Own()
    model(np.zeros([1, 5], "float32"))
    return model


def nested():
    x = Input([5])
    inner = keras.Model(x, Dense(4)(Dense(4)(x)))
    return keras.Sequential([Input([5]), inner, Dense(4), Dense(3)])


def called_twice():
    x, twice = Input([4]), Dense(4)
    return keras.Model(x, Dense(3)(twice(Dense(4)(twice(x)))))


def two_inputs():
    one, two = Input([4]), Input([4])
    met = keras.layers.Add()([Dense(4)(Dense(4)(one)), Dense(4)(two)])
    return keras.Model([one, two], Dense(3)(Dense(4)(met)))


@pytest.mark.parametrize(
    ("build", "want"),
    [
        (by_order, [2, 2, 2, 2, 1, 1]),
        (nested, [3, 3, 2, 2, 1, 1]),
        (called_twice, [2, 2, 1, 1]),
        (two_inputs, [2] * 6 + [1] * 2),
    ],
)
def test_other_models(build, want):
    assert sorted(backbone_depths(build()), reverse=True) == want


@pytest.mark.parametrize(("name", "deepest"), [("mlp-3-8", 2), ("wrn-10-1", 4)])
def test_our_networks_count_their_stem_and_blocks(name, deepest):
    model = models.build(name, input_shape=(16, 16, 3), num_classes=5)
    depths = backbone_depths(model)
    assert set(depths) == set(range(1, deepest + 1))
    assert depths[0] == deepest
    if models.has_blocks(name):  # And so they do where these are recomputed.
        assert backbone_depths(models.rematerialized(model)) == depths


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "deepest"),
    [
        ("resnet-50", 17),
        ("ResNet50", 17),
        ("VGG16", 13),
        ("ConvNeXtTiny", 22),
        ("EfficientNetB0", 38),
        ("MobileNetV2", 32),
        ("InceptionV3", 16),
    ],
)
def test_networks_of_keras_applications(name, deepest):
    model = models.build(name, input_shape=(96, 96, 3), num_classes=5)
    assert max(backbone_depths(model)) == deepest
