"""RMSProp as TensorFlow 1 computes it."""

import keras
import tensorflow as tf

from meta_pseudo_labels.optimizers.momentum import check_momentum, new_slots
from meta_pseudo_labels.utils.compat import index_of


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class RMSProp(keras.optimizers.Optimizer):
    """RMSProp with momentum as TensorFlow 1 computes it.

    `rms = rho * rms + (1 - rho) * g**2`, then
    `slot = momentum * slot + lr * g / sqrt(rms + epsilon)` and `w -= slot`.
    The mean square starts at one; that of `keras.optimizers.RMSprop` starts at
    zero, and its first steps are up to 1 / sqrt(1 - rho) times as long.
    Unlike in `Momentum` the slot holds the rate of the steps that filled it,
    so weights keep moving when the rate falls to 0.

    Args:
      learning_rate: a float or a `LearningRateSchedule`.
      rho: decay of the mean squared gradient, in [0, 1).
      momentum: decay of the slot, in [0, 1).
      epsilon: added inside the root, at least 0.
      **kwargs: those of `keras.optimizers.Optimizer`.

    Raises:
      ValueError: for a number out of range.
    """

    def __init__(
        self,
        learning_rate=0.016,
        rho=0.9,
        momentum=0.9,
        epsilon=1e-3,
        name="rmsprop",
        **kwargs,
    ):
        if not 0 <= rho < 1:
            raise ValueError(f"rho must be in [0, 1); got {rho}.")
        check_momentum(momentum)
        if not epsilon >= 0:
            raise ValueError(f"epsilon must not be negative; got {epsilon}.")
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.rho = rho
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.mean_squares = new_slots(
            self, variables, name="rms", initializer="ones"
        )
        self.slots = new_slots(self, variables, name="momentum")

    @property
    def release_slots(self):
        """Slots by TensorFlow 1's names, in the order of the variables."""
        return {
            "RMSProp": list(self.mean_squares),
            "RMSProp_1": list(self.slots),
        }

    def update_step(self, gradient, variable, learning_rate):
        """One variable's update, by the fused kernel of TensorFlow 1."""
        index = index_of(self, variable)
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=self.mean_squares[index].handle,
            mom=self.slots[index].handle,
            lr=tf.cast(learning_rate, variable.dtype),
            # Casts that round to float32 on the way, as in `Momentum`.
            rho=tf.cast(self.rho, variable.dtype),
            momentum=tf.cast(self.momentum, variable.dtype),
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
        )

    def derivative(self, gradient, variable, learning_rate):
        """See `Momentum.derivative`.

        With r = rho * rms + epsilon and s = r + (1 - rho) * g**2, the step is
        lr * g / sqrt(s) and its slope lr * r / s**1.5, element by element.
        """
        dtype = variable.dtype
        rate, rho = tf.cast(learning_rate, dtype), tf.cast(self.rho, dtype)
        before = self.mean_squares[index_of(self, variable)]
        rest = rho * tf.convert_to_tensor(before) + tf.cast(self.epsilon, dtype)
        square = rest + (1 - rho) * tf.square(tf.cast(gradient, dtype))
        root = tf.sqrt(square)
        return (
            -rate / root,
            lambda upstream: -rate * upstream * rest / (square * root),
        )

    def get_config(self):
        return {
            **super().get_config(),
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }
