import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.models.activations import gelu

VALUES = np.linspace(-8, 8, 201)
# x Phi(x), Phi(x) + x phi(x) and (2 - x^2) phi(x), from Python's own library.
BELOW = np.array([math.erfc(-x / math.sqrt(2)) / 2 for x in VALUES])
DENSITY = np.exp(-(VALUES**2) / 2) / math.sqrt(2 * math.pi)
WORKED = (
    VALUES * BELOW,
    BELOW + VALUES * DENSITY,
    (2 - VALUES**2) * DENSITY,
)


def derivatives(function, x, order):
    """The function's values and its first derivatives."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        found = [function(x)]
        for _ in range(order):
            found.append(tape.gradient(found[-1], x))
    return found


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float64", dict(rtol=1e-12)), ("float32", dict(rtol=1e-6, atol=1e-6))],
)
def test_gelu_and_two_derivatives_are_those_worked_out(dtype, tolerance):
    found = derivatives(gelu, tf.constant(VALUES, dtype), order=2)
    np.testing.assert_allclose(found, WORKED, **tolerance)


def test_gelu_is_that_of_keras():
    x = tf.constant(VALUES, "float32")
    expected = derivatives(keras.activations.gelu, x, order=2)
    np.testing.assert_allclose(
        derivatives(gelu, x, order=2), expected, atol=1e-6
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gelu_of_16_bits_is_rounded_once(dtype):
    """That of Keras is rounded after each operation, and off by several."""
    x = tf.constant(VALUES, dtype)
    precise = derivatives(gelu, tf.cast(x, "float32"), order=1)
    for found, exact in zip(
        derivatives(gelu, x, order=1), precise, strict=True
    ):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, tf.cast(exact, dtype))


def test_16_bits_are_computed_with_in_float32():
    """In bfloat16 TensorFlow takes twice as long for it."""

    @tf.function
    def gradient(x):
        return derivatives(gelu, x, order=1)

    graph = gradient.get_concrete_function(
        tf.TensorSpec([4, 2], "bfloat16")
    ).graph
    costly = [
        op for op in graph.get_operations() if op.type in ("Erf", "Exp", "Mul")
    ]
    assert {op.type for op in costly} == {"Erf", "Exp", "Mul"}
    assert {op.outputs[0].dtype for op in costly} == {tf.float32}


def test_a_model_with_it_is_saved_and_loaded(tmp_path):
    model = models.build("speednet-2", input_shape=(9, 9, 3), num_classes=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images = np.random.default_rng(0).normal(size=(4, 9, 9, 3))
    np.testing.assert_array_equal(loaded(images), model(images))
    assert loaded.get_layer("whitening.gelu").activation is gelu


def test_integers_are_refused():
    with pytest.raises(ValueError, match="floats; got int32"):
        gelu([1, 2])


def test_litert_knows_it():
    """It has no erf of its own, and knows this activation by its form."""

    @tf.function(input_signature=[tf.TensorSpec([4, 2])])
    def activation(x):
        return gelu(x)

    function = activation.get_concrete_function()
    module = tf.Module()
    module.activation = activation
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function], module
    )
    assert converter.convert()
