"""The release's optimizer, and what the feedback must know of an optimizer."""

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
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1); got {momentum}.")
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

    def update_step(self, gradient, variable, learning_rate):
        """One variable's update, by the fused kernel of TensorFlow 1."""
        slot = self.slots[self._get_variable_index(variable)]
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=slot.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
            momentum=tf.cast(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "nesterov": self.nesterov,
        }


def update_slope(optimizer, *, learning_rate):
    """How far a weight moves per unit of gradient: -d(new weight)/d(gradient).

    The `exact` feedback differentiates through the student's update. For SGD
    with momentum the update is linear in the newest gradient, with slope lr,
    or lr * (1 + momentum) with Nesterov (spec, "The feedback, derived").

    Args:
      optimizer: ours or `keras.optimizers.SGD`, that applies each
        gradient as it is: no clipping, scaling or accumulation of its own.
      learning_rate: the rate of the update.

    Returns:
      The slope, a scalar.

    Raises:
      ValueError: where the update is not linear in the gradient.
    """
    if not isinstance(optimizer, Momentum | keras.optimizers.SGD):
        raise ValueError(
            'feedback="exact" differentiates through the student\'s update and '
            "knows those of Momentum and keras.optimizers.SGD; got "
            f"{type(optimizer).__name__}. Use one of these for the student, or "
            'feedback="reinforce".'
        )
    if optimizer.clipnorm or optimizer.global_clipnorm or optimizer.clipvalue:
        raise ValueError(
            'feedback="exact" cannot see clipping inside the optimizer. Give '
            "grad_bound to compile() and none of clipnorm, global_clipnorm "
            "and clipvalue to the student's optimizer."
        )
    if optimizer.loss_scale_factor or optimizer.gradient_accumulation_steps:
        raise ValueError(
            'feedback="exact" needs an optimizer that applies each gradient as '
            "it is. Give the student's neither loss_scale_factor nor "
            "gradient_accumulation_steps."
        )
    ahead = optimizer.momentum if optimizer.nesterov else 0.0
    return learning_rate * (1.0 + ahead)
