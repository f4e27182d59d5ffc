"""What the tests of several networks need."""

import keras
import numpy as np
import tensorflow as tf

from meta_pseudo_labels import models


def variables_by_release_name(model):
    """{name: variable}, in the order of layers and their weights."""
    return {
        models.release_variable_name(layer.name, variable.name): variable
        for layer in model.layers
        for variable in layer.weights
    }


def randomize(model, seed=0):
    """Gives every weight numbers that no initializer would give."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        values = generator.normal(scale=0.3, size=variable.shape)
        if "variance" in variable.name or "gamma" in variable.name:
            values = np.abs(values) + 0.5
        variable.assign(values)


def output_of(model, *layer_names):
    """The part of a network that ends at some of its layers."""
    return keras.Model(
        model.input, [model.get_layer(name).output for name in layer_names]
    )


class HandWritten:
    """The release's layers in TensorFlow's own ops, on a network's weights.

    Scopes are the release's, with a slash.
    """

    def __init__(self, model, *, training):
        self.weights = {
            name: variable.numpy()
            for name, variable in variables_by_release_name(model).items()
        }
        self.training = training

    def conv(self, x, scope, strides=1):
        return tf.nn.conv2d(x, self.weights[f"{scope}/kernel"], strides, "SAME")

    def conv_norm(self, x, scope, strides=1):
        return self.norm(self.conv(x, f"{scope}/conv2d", strides), scope)

    def norm(self, x, scope):
        def weight(name):
            return self.weights[f"{scope}/batch_norm/{name}"]

        if self.training:
            mean, variance = tf.nn.moments(x, [0, 1, 2])
        else:
            mean, variance = weight("moving_mean"), weight("moving_variance")
        scaled = (x - mean) / tf.sqrt(variance + 1e-3)
        return weight("gamma") * scaled + weight("beta")

    def logits(self, x):
        mean = tf.reduce_mean(x, [1, 2])
        return (
            mean @ self.weights["head/dense/kernel"]
            + self.weights["head/dense/bias"]
        )
