import keras
import numpy as np
import pytest

from meta_pseudo_labels import models
from meta_pseudo_labels.models.dense import classification_head


def head_model(**settings):
    features = keras.Input((8,))
    return keras.Model(features, classification_head(features, **settings))


@pytest.mark.parametrize(
    ("dtype", "logits_dtype"),
    [
        ("float32", "float32"),
        ("mixed_bfloat16", "float32"),
        ("bfloat16", "float32"),
        ("float64", "float64"),
    ],
)
def test_logits_are_float32_at_least(dtype, logits_dtype):
    model = head_model(num_classes=3, dtype=dtype)
    assert model(np.ones([2, 8])).dtype == logits_dtype


def test_dropout_acts_in_training_only():
    model = head_model(num_classes=3, dropout_rate=0.5)
    features = np.ones([64, 8], "float32")
    still = np.asarray(model(features, training=False))
    moved = np.asarray(model(features, training=True))
    np.testing.assert_array_equal(still, np.broadcast_to(still[0], still.shape))
    assert len(np.unique(moved[:, 0])) > 10


def test_no_dropout_layer_without_dropout():
    names = [layer.name for layer in head_model(num_classes=3).layers[1:]]
    assert names == ["head.dense"]


@pytest.mark.parametrize("num_classes", [1, 0, -3])
def test_rejects_too_few_classes(num_classes):
    with pytest.raises(ValueError, match=f"2 or more, got {num_classes}"):
        head_model(num_classes=num_classes)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_rejects_dropout_rates_out_of_range(rate):
    with pytest.raises(ValueError, match=rf"in \[0, 1\), got {rate}"):
        head_model(num_classes=2, dropout_rate=rate)


Dense, Input = keras.layers.Dense, keras.Input


class Subclassed(keras.Model):
    """No graph, and its layers by attribute alone."""

    def __init__(self, last):
        super().__init__()
        self.first, self.middle = Dense(4), keras.layers.LayerNormalization()
        self.last, self.drop = last, keras.layers.Dropout(0.5)

    def call(self, x):
        return self.drop(self.last(self.middle(self.first(x))))


def graph():
    x = Input([5])
    hidden = keras.layers.BatchNormalization()(Dense(4)(x))
    logits = keras.layers.Add()([Dense(3, name="a")(hidden), x[:, :3]])
    logits += Dense(3, name="b")(hidden)
    return keras.Model(x, keras.layers.Activation("linear")(logits))


def subclassed(last):
    model = Subclassed(last)
    model(np.zeros([1, 5], "float32"))
    return model


def nested():
    head = keras.Sequential([keras.layers.Flatten(), Dense(3)])
    body = keras.Sequential([Input([5]), Dense(4), Dense(4)])
    return keras.Sequential([body, head, keras.layers.ReLU()])


@pytest.mark.parametrize(
    ("build", "backbone", "head"),
    [
        (graph, ["kernel", "bias", "gamma", "beta"], 4),
        (nested, ["kernel", "bias"] * 2, 2),
        (
            lambda: subclassed(Dense(3)),
            ["kernel", "bias", "gamma", "beta"],
            2,
        ),
        (
            lambda: keras.Sequential(
                [
                    Input([4, 4, 1]),
                    keras.layers.Conv2D(2, 3),
                    keras.layers.Conv2D(3, 1, use_bias=False),
                    keras.layers.GlobalAveragePooling2D(),
                ]
            ),
            ["kernel", "bias"],
            1,
        ),
    ],
    ids=["graph with two", "nested", "subclassed", "convolution"],
)
def test_the_backbone_is_all_but_what_makes_the_logits(build, backbone, head):
    model = build()
    found = models.backbone_weights(model)
    assert [weight.name for weight in found] == backbone
    assert len(model.trainable_variables) == len(backbone) + head


@pytest.mark.parametrize(
    ("name", "size"), [("wrn-10-1", 8), ("efficientnet-b0", 32)]
)
def test_our_networks_have_one_dense_layer_as_head(name, size):
    model = models.build(name, input_shape=(size, size, 3), num_classes=7)
    weights = {id(w) for w in models.backbone_weights(model)}
    head = [w.path for w in model.trainable_variables if id(w) not in weights]
    assert head == ["head.dense/kernel", "head.dense/bias"]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: keras.Sequential([Input([5]), Dense(3)]), "all its weights"),
        (
            lambda: keras.Sequential(
                [
                    Input([5]),
                    Dense(4),
                    Dense(6),
                    keras.layers.Reshape([2, 3]),
                    keras.layers.GlobalAveragePooling1D(),
                ]
            ),
            "it cannot be told which layer",
        ),
    ],
)
def test_a_network_without_either_is_refused(build, words):
    with pytest.raises(ValueError, match=words):
        models.backbone_weights(build())
