import keras
import numpy as np
import pytest

from meta_pseudo_labels.models import mlp


def test_computes_dense_layers_by_hand():
    model = mlp(input_shape=(2,), num_classes=2, hidden_sizes=(2,))
    model.set_weights(
        [
            np.array([[1.0, -1.0], [2.0, 1.0]]),
            np.array([0.0, -1.0]),
            np.array([[1.0, 0.0], [3.0, 1.0]]),
            np.array([0.5, 0.0]),
        ]
    )
    # Hidden: relu([1 + 4, -1 + 2 - 1]) = [5, 0] and relu([-2, 2 - 1]) = [0, 1].
    logits = model(np.array([[1.0, 2.0], [-2.0, 0.0]]))
    np.testing.assert_allclose(logits, [[5.5, 0.0], [3.5, 1.0]])


def test_flattens_images():
    model = mlp(input_shape=(4, 4, 3), num_classes=5, hidden_sizes=(7,))
    assert model(np.zeros([2, 4, 4, 3])).shape == (2, 5)
    assert model.count_params() == (48 * 7 + 7) + (7 * 5 + 5)


def test_no_hidden_layers_is_logistic_regression():
    model = mlp(input_shape=(3,), num_classes=2, hidden_sizes=())
    assert model.count_params() == 3 * 2 + 2


def test_layers_of_equal_shape_start_differently():
    initializer = keras.initializers.RandomUniform(-0.1, 0.1)
    model = mlp(
        input_shape=(8,),
        num_classes=8,
        hidden_sizes=(8, 8),
        kernel_initializer=initializer,
    )
    kernels = [layer.kernel.numpy() for layer in model.layers[2:]]
    assert all(np.abs(kernel).max() <= 0.1 for kernel in kernels)
    assert not np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[1], kernels[2])


def test_computes_in_float64():
    model = mlp(input_shape=(2,), num_classes=2, dtype="float64")
    images = np.array([[1.0, 1.0], [1.0, 1.0 + 1e-12]])
    logits = np.asarray(model(images))
    assert logits.dtype == np.float64
    assert 0 < np.abs(logits[0] - logits[1]).max() < 1e-10


def test_rejects_an_empty_hidden_layer():
    with pytest.raises(ValueError, match=r"positive, got \(8, 0\)"):
        mlp(input_shape=(2,), num_classes=2, hidden_sizes=(8, 0))
