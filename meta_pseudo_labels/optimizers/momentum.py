"""Momentum as TensorFlow 1 computes it."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class Momentum(keras.optimizers.Optimizer):
    """Momentum as TensorFlow 1 computes it (quirk 20).

    `slot = momentum * slot + g`, then `w -= lr * slot`, or with Nesterov
    `w -= lr * (g + momentum * slot)`. `keras.optimizers.SGD` folds the
    learning rate into the slot instead, which differs whenever the rate
    changes; here the slot fills even while the rate is 0.

    Args:
      learning_rate: a float or a `LearningRateSchedule`.
      momentum: decay of the slot, in [0, 1).
      nesterov: whether to look ahead, as the release does.
      **kwargs: those of `keras.optimizers.Optimizer`.

    Raises:
      ValueError: where momentum is outside [0, 1).
    """

    def __init__(
        self,
        learning_rate=0.1,
        momentum=0.9,
        nesterov=True,
        name="momentum",
        **kwargs,
    ):
        check_momentum(momentum)
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.nesterov = nesterov

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.slots = [
            self.add_variable_from_reference(v, name="momentum")
            for v in variables
        ]

    @property
    def release_slots(self):
        """Slots by TensorFlow 1's name, in the order of the variables."""
        return {"Momentum": list(self.slots)}

    def update_step(self, gradient, variable, learning_rate):
        """One variable's update, by the fused kernel of TensorFlow 1."""
        slot = self.slots[self._get_variable_index(variable)]
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=slot.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
            # A cast, which rounds to float32 on its way to float64: so does
            # TensorFlow 1, and with it the release's float64 runs.
            momentum=tf.cast(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )

    def gradient_rate(self, gradient, variable, learning_rate):
        """See `update_rates`."""
        return linear_rate(self, variable, learning_rate)

    def pullback(self, gradient, variable, learning_rate):
        """See `update_pullback`; the update is linear, so a scalar does."""
        return linear_pullback(self, variable, learning_rate)

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "nesterov": self.nesterov,
        }


def check_momentum(momentum):
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1); got {momentum}.")


def linear_rate(optimizer, variable, learning_rate):
    """The rate of `Momentum`, and of `keras.optimizers.SGD` alike.

    A step moves the weight by -lr per unit of its gradient, and with Nesterov
    by lr * momentum more, whatever the slot holds.
    """
    slope = tf.cast(learning_rate, variable.dtype)
    if optimizer.nesterov:
        slope *= 1 + tf.cast(optimizer.momentum, variable.dtype)
    return -slope


def linear_pullback(optimizer, variable, learning_rate):
    """The pullback that belongs to `linear_rate`."""
    rate = linear_rate(optimizer, variable, learning_rate)
    return lambda upstream: rate * upstream
