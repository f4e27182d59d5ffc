import keras
import numpy as np
import pytest

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
