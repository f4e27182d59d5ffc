"""Random dropping in training, the same for any number of replicas."""

import keras
import tensorflow as tf

from meta_pseudo_labels.distribute import replicas


class _Dropping(keras.layers.Layer):
    """Sets what it drops to 0 in training, and scales up what it keeps.

    In inference the input is returned unchanged.
    """

    setting = ""  # The rate's name in messages.

    def __init__(self, rate, *, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.rate = check_rate(self.setting, rate)
        self.seed = seed
        # Its state is a variable of the layer, and so part of checkpoints.
        self.seed_generator = replicas.SeedGenerator(seed)
        self.supports_masking = True

    def dropped_together(self, inputs):
        """The static shape of an example's draws; broadcast to the inputs."""
        raise NotImplementedError

    def call(self, inputs, training=False):
        if not training or not self.rate:
            return inputs
        shape = self.dropped_together(inputs)
        kept = keep(inputs, self.rate, self.seed_generator, shape)
        return inputs / (1.0 - self.rate) * kept

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class Dropout(_Dropping):
    """Sets features to 0 in training, and scales up those that it keeps.

    Like `keras.layers.Dropout`, but there all replicas would draw the same
    mask. Here an image has the same mask on any replica, and under XLA too.

    Args:
      rate: share of the features that is dropped, in [0, 1).
      seed: of the draws; None takes one from the global random seed.
      **kwargs: those of `keras.layers.Layer`.

    Raises:
      ValueError: for a rate out of range.
    """

    setting = "dropout_rate"

    def dropped_together(self, inputs):
        return inputs.shape[1:]


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class StochasticDepth(_Dropping):
    """Drops whole examples in training, and scales up those that it keeps.

    Each example of a batch is set to 0 with probability `rate`, and divided
    by 1 - rate otherwise, so that its expectation stays the same (Huang et al.,
    arXiv 1603.09382; release `stochastic_depth`). The release draws in the
    network's own type, this layer in float32, see `keep`.

    Args:
      rate: probability that an example is dropped, in [0, 1).
      seed: of the draws; None takes one from the global random seed.
      **kwargs: those of `keras.layers.Layer`.

    Raises:
      ValueError: for a rate out of range.
    """

    setting = "stochastic_depth_drop_rate"

    def dropped_together(self, inputs):
        return [1] * (len(inputs.shape) - 1)


def check_rate(name, rate):
    """Returns a drop rate; raises ValueError outside [0, 1)."""
    if not 0 <= rate < 1:
        raise ValueError(f"{name} must be in [0, 1), got {rate}.")
    return rate


def keep(inputs, rate, seed_generator, shape):
    """1 where something is kept and 0 where it is dropped.

    The numbers are drawn in float32 under every policy: in bfloat16 steps of
    1/256 would distort the rate.

    Args:
      inputs: [batch, ...] of a layer.
      rate: probability that something is dropped.
      seed_generator: `replicas.SeedGenerator` of the layer.
      shape: static shape of the draws for one example; broadcast to the
        inputs.

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
