"""Momentum as TensorFlow 1 computes it."""

import keras
import tensorflow as tf

from meta_pseudo_labels.utils.compat import index_of


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
      ValueError: if momentum is outside [0, 1).
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
        self.slots = new_slots(self, variables, name="momentum")

    @property
    def release_slots(self):
        """Slots by TensorFlow 1's name, in the order of the variables."""
        return {"Momentum": list(self.slots)}

    def update_step(self, gradient, variable, learning_rate):
        """One variable's update, by the fused kernel of TensorFlow 1."""
        # These casts round to float32 on the way to float64. So does
        # TensorFlow 1, and with it the release's float64 runs.
        self.move(
            variable,
            tf.cast(gradient, variable.dtype),
            rate=tf.cast(learning_rate, variable.dtype),
            momentum=tf.cast(self.momentum, variable.dtype),
        )

    def move(self, variable, gradient, *, rate, momentum):
        """Moves a variable and its slot; all have the variable's type."""
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=self.slots[index_of(self, variable)].handle,
            lr=rate,
            grad=gradient,
            momentum=momentum,
            use_nesterov=self.nesterov,
        )

    def derivative(self, gradient, variable, learning_rate):
        """How one step depends on its gradient.

        A step moves the weight by -lr per unit of its gradient, and with
        Nesterov by lr * momentum more, whatever the slot holds. So does a step
        of `keras.optimizers.SGD`.

        Returns:
          The variable's entry of `update_rates`, and the function that
          `update_pullback` applies to its entry.
        """
        slope = tf.cast(learning_rate, variable.dtype)
        if self.nesterov:
            slope *= 1 + tf.cast(self.momentum, variable.dtype)
        return -slope, lambda upstream: -slope * upstream

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "nesterov": self.nesterov,
        }


def check_momentum(momentum):
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1); got {momentum}.")


def new_slots(optimizer, variables, *, name, initializer="zeros"):
    """An optimizer variable for each variable, of the same shape."""
    return [
        optimizer.add_variable_from_reference(
            v, name=name, initializer=initializer
        )
        for v in variables
    ]
