"""Optimizers run for some steps: ours, and those of TensorFlow 1."""

import keras
import numpy as np
import tensorflow as tf

RATES = [0.1, 0.0, 0.3, 0.05, 0.2, 0.0, 0.0, 1.0, 0.5, 0.01, 0.0, 0.2]


class Rate(keras.optimizers.schedules.LearningRateSchedule):
    """A rate for each step, from a list."""

    def __init__(self, *rates):
        self.rates = rates

    def __call__(self, step):
        return tf.gather(tf.constant(self.rates), tf.cast(step, "int32"))


def random_gradients(dtype, steps=12, size=5):
    """Gradients over four orders of magnitude, a zero among them."""
    random = np.random.default_rng(0)
    gradients = random.normal(size=(steps, size)) * np.logspace(-3, 1, size)
    gradients[steps // 2] = 0.0
    return gradients.astype(dtype)


def trajectory(optimizer, gradients, dtype="float64"):
    """The weights after each step, from all ones, [steps, size]."""
    weights = keras.Variable(np.ones(len(gradients[0])), dtype=dtype)
    optimizer.build([weights])
    path = []
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient, dtype)], [weights])
        path.append(weights.numpy().copy())
    return np.array(path)


def tensorflow_1(make_optimizer, gradients, rates, dtype):
    """As `trajectory`, by an optimizer of TensorFlow 1 in a graph.

    Args:
      make_optimizer: from a scalar rate to a `tf.compat.v1.train.Optimizer`.
      gradients: [steps, size].
      rates: one for each step.
      dtype: of the weights.

    Returns:
      The weights after each step, and a dict of the slots at the end under the
      names that checkpoints have them by.
    """
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        weights = v1.get_variable(
            "w",
            initializer=np.ones(len(gradients[0]), dtype),
            use_resource=True,
        )
        gradient = v1.placeholder(dtype, weights.shape)
        rate = v1.placeholder(tf.float32, [])
        step = make_optimizer(rate).apply_gradients([(gradient, weights)])
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            path = []
            for g, r in zip(gradients, rates, strict=True):
                session.run(step, {gradient: g, rate: r})
                path.append(session.run(weights))
            slots = {
                v.op.name.removeprefix("w/"): session.run(v)
                for v in v1.global_variables()
                if v is not weights
            }
    return np.array(path), slots


def same_slots(optimizer, slots):
    """Compares `release_slots` with those of `tensorflow_1`, to the bit."""
    assert set(optimizer.release_slots) == set(slots)
    for name, (slot,) in optimizer.release_slots.items():
        np.testing.assert_array_equal(slot, slots[name], err_msg=name)
