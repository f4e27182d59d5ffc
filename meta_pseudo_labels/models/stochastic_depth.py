"""Residual branches that are left out at random in training."""

import keras

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.models.dropout import keep


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class StochasticDepth(keras.layers.Layer):
    """Drops whole examples in training, and scales up those that it keeps.

    Each example of a batch is set to 0 with probability `rate`, and divided
    by 1 - rate otherwise, so that its expectation stays what it was (Huang et
    al., arXiv 1603.09382; release `stochastic_depth`). In inference the input
    is returned as it is. The release draws in the network's own type, here it
    is float32, see `dropout.keep`; the draws do not depend on the number of
    replicas.

    Args:
      rate: probability that an example is dropped, in [0, 1).
      seed: of the draws; None takes one from the global random seed.
      **kwargs: those of `keras.layers.Layer`.

    Raises:
      ValueError: for a rate out of range.
    """

    def __init__(self, rate, *, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.rate = check_rate(rate)
        self.seed = seed
        # Its state is a variable of the layer, and so part of checkpoints.
        self.seed_generator = replicas.SeedGenerator(seed)
        self.supports_masking = True

    def call(self, inputs, training=False):
        if not training:
            return inputs
        shape = [1] * (len(inputs.shape) - 1)
        kept = keep(inputs, self.rate, self.seed_generator, shape)
        return inputs / (1.0 - self.rate) * kept

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def check_rate(rate):
    """Returns a rate of stochastic depth; ValueError outside [0, 1)."""
    if not 0 <= rate < 1:
        raise ValueError(
            f"stochastic_depth_drop_rate must be in [0, 1), got {rate}."
        )
    return rate
