"""What is computed again: by hand, in any order of derivative."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.models import recompute
from meta_pseudo_labels.models.recompute import call_again


class Power(keras.layers.Layer):
    """w * x^3, and a count of its calls in a state."""

    def build(self, shape):
        self.w = self.add_weight(shape=(), initializer="ones", dtype="float64")
        self.calls = self.add_weight(
            shape=(), initializer="zeros", dtype="float64", trainable=False
        )

    def call(self, x, training=False):
        self.calls.assign(self.calls + 1.0)
        return self.w * x**3


def power():
    inputs = keras.Input((), dtype="float64")
    return keras.Model(inputs, Power(dtype="float64")(inputs))


SLICES = ([2.0, 3.0], [5.0])


@pytest.mark.parametrize("eager", [True, False])
def test_derivatives_by_hand(eager):
    """y = w x^3 at w = 1: dy/dx = 3x^2, d2y/dx2 = 6x, dy/dw = x^3."""
    model = power()
    weight = model.trainable_variables[0].value

    def run():
        slices = [tf.constant(x, tf.float64) for x in SLICES]
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(slices)
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(slices)
                outputs, _ = call_again(model, slices)
                loss = tf.add_n([tf.reduce_sum(y) for y in outputs])
            by_weight = tape.gradient(loss, weight)
            first = tape.gradient(loss, slices)
            total = tf.add_n([tf.reduce_sum(g) for g in first])
        mixed = outer.gradient(by_weight, slices)  # 3x^2 again.
        return outputs, by_weight, first, outer.gradient(total, slices), mixed

    run = run if eager else tf.function(run, autograph=False)
    outputs, by_weight, first, second, mixed = run()
    for number, x in enumerate(map(np.array, SLICES)):
        np.testing.assert_allclose(outputs[number], x**3)
        np.testing.assert_allclose(first[number], 3 * x**2)
        np.testing.assert_allclose(second[number], 6 * x)
        np.testing.assert_allclose(mixed[number], 3 * x**2)
    np.testing.assert_allclose(by_weight, 8 + 27 + 125)


def test_states_are_handed_back_and_not_moved():
    model = power()
    slices = [tf.constant(x, tf.float64) for x in SLICES]
    before = model.non_trainable_variables[0].numpy()
    with tf.GradientTape() as tape:
        tape.watch(slices)
        outputs, states = call_again(model, slices)
    tape.gradient(outputs, slices)
    assert [float(state) for (state,) in states] == [before + 1, before + 1]
    assert model.non_trainable_variables[0].numpy() == before


def test_waiting_changes_no_number():
    """Whatever it waits for, be it infinite or not a number."""

    @tf.function(autograph=False)
    def run(other):
        return recompute._wait(
            [tf.constant([1.5, -2.0]), tf.constant(3)], [other]
        )

    for other in (0.0, 1.0, -np.inf, np.nan):
        waited, integer = run(tf.constant([[other]]))
        np.testing.assert_array_equal(waited, [1.5, -2.0])
        assert integer == 3
