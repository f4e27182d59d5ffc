"""Adam's derivative, and AdamW with a decay that spares normalization."""

import keras
import tensorflow as tf
from keras import ops

from meta_pseudo_labels.utils.compat import adam_moments, index_of


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class AdamW(keras.optimizers.Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    `w -= lr * weight_decay * w`, then Adam's step: the same as
    `keras.optimizers.AdamW` to the last bit. Here the decay is part of each
    variable's update, so that it follows the rate of that variable, and leaves
    out those given to `spare`.

    Args:
      learning_rate: a float or a `LearningRateSchedule`.
      weight_decay: of a step, times its rate, at least 0. If it is used, leave
        the learner's own `weight_decay` at 0: that one goes through Adam's
        moments.
      beta_1, beta_2, epsilon, amsgrad: see `keras.optimizers.Adam`.
      **kwargs: those of `keras.optimizers.Optimizer`.

    Raises:
      ValueError: if weight_decay is negative.
    """

    def __init__(
        self,
        learning_rate=0.001,
        weight_decay=0.004,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        amsgrad=False,
        name="adamw",
        **kwargs,
    ):
        # Not Keras's weight_decay, which would shrink the weights once more.
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, amsgrad, name=name, **kwargs
        )
        if not weight_decay >= 0:
            raise ValueError(
                f"weight_decay must not be negative; got {weight_decay}."
            )
        self.decay = weight_decay
        self._spared = frozenset()

    def spare(self, variables):
        """Excludes some of the variables it was built with from the decay."""
        self._spared = frozenset(index_of(self, v) for v in variables)

    def update_step(self, gradient, variable, learning_rate):
        """One variable's decay and step."""
        if self.decay and index_of(self, variable) not in self._spared:
            rate = tf.cast(learning_rate, variable.dtype)
            decay = tf.cast(self.decay, variable.dtype)
            self.assign(variable, variable - variable * decay * rate)
        super().update_step(gradient, variable, learning_rate)

    def derivative(self, gradient, variable, learning_rate):
        """See `adam_derivative`; the decay does not depend on the gradient."""
        return adam_derivative(self, gradient, variable, learning_rate)

    def get_config(self):
        return {**super().get_config(), "weight_decay": self.decay}


def adam_derivative(optimizer, gradient, variable, learning_rate):
    """See `Momentum.derivative`; for `keras.optimizers.Adam` and its kinds.

    With a the rate after bias correction, m and v the moments after the step
    and s = sqrt(v), the step is a * m / (s + epsilon), and its slope

        a / (s + epsilon) * (1 - beta_1 - m / (s + epsilon) * ds/dg)

    where ds/dg = (1 - beta_2) * g / s, or 0 where AMSGrad keeps an earlier v.
    The rate holds s fixed.
    """

    def number(value):  # Casts as Keras does, which rounds Python floats.
        return ops.cast(value, variable.dtype)

    gradient = tf.cast(gradient, variable.dtype)
    beta_1, beta_2 = optimizer.beta_1, optimizer.beta_2
    taken = number(optimizer.iterations + 1)
    size = number(learning_rate) * tf.sqrt(1 - number(beta_2) ** taken)
    size /= 1 - number(beta_1) ** taken
    mean, square, most = adam_moments(optimizer, variable)
    mean += (gradient - mean) * (1 - beta_1)
    square += (tf.square(gradient) - square) * (1 - beta_2)
    root = tf.sqrt(square)
    bend = tf.math.divide_no_nan((1 - beta_2) * gradient, root)
    if most is not None:
        bend = tf.where(square > most, bend, tf.zeros_like(bend))
        root = tf.sqrt(tf.maximum(square, most))
    divisor = root + optimizer.epsilon
    slope = size * (1 - beta_1 - mean / divisor * bend) / divisor
    return (
        -size * (1 - beta_1) / divisor,
        lambda upstream: -slope * upstream,
    )
