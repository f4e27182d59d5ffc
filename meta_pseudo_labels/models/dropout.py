"""Dropout that does not depend on the number of replicas."""

import keras
import tensorflow as tf

from meta_pseudo_labels.distribute import replicas


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class Dropout(keras.layers.Layer):
    """Sets features to 0 in training, and scales up those that it keeps.

    As `keras.layers.Dropout`, whose replicas would all draw the same mask. Here
    an image has the same mask whichever replica has it, and under XLA too.

    Args:
      rate: share of the features that is dropped, in [0, 1).
      seed: of the draws; None takes one from the global random seed.
      **kwargs: those of `keras.layers.Layer`.

    Raises:
      ValueError: for a rate out of range.
    """

    def __init__(self, rate, *, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"dropout_rate must be in [0, 1), got {rate}.")
        self.rate = rate
        self.seed = seed
        self.seed_generator = replicas.SeedGenerator(seed)
        self.supports_masking = True

    def call(self, inputs, training=False):
        if not training or not self.rate:
            return inputs
        kept = keep(inputs, self.rate, self.seed_generator, inputs.shape[1:])
        return inputs / (1.0 - self.rate) * kept

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def keep(inputs, rate, seed_generator, shape):
    """1 where something is kept and 0 where it is dropped.

    The numbers are drawn in float32 under every policy: in bfloat16 the steps
    of 1/256 would bend the rate.

    Args:
      inputs: [batch, ...] of a layer.
      rate: probability that something is dropped.
      seed_generator: `replicas.SeedGenerator` of the layer.
      shape: static, of the draws for one example; broadcast to the inputs.

    Returns:
      [batch, *shape], of the type of the inputs.
    """
    rows = inputs.shape[0] or tf.shape(inputs)[0]
    draws = replicas.uniform(
        seed_generator.next(),
        rows=rows,
        width=tf.TensorShape(shape).num_elements(),
    )
    return tf.cast(tf.reshape(draws >= rate, [rows, *shape]), inputs.dtype)
