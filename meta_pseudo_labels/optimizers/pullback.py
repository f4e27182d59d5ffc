"""The derivative of an optimizer's update, for feedback through it."""

import keras
import tensorflow as tf

from meta_pseudo_labels.optimizers.lars import LARS
from meta_pseudo_labels.optimizers.momentum import Momentum, linear_pullback
from meta_pseudo_labels.optimizers.rmsprop import RMSProp

_WHO = (
    "Feedback through the student's update (exact, reinforce_dot_product, "
    "reinforce_per_example; a diagnosis computes all of them)"
)


def check_differentiable(optimizer):
    """Refuses an optimizer that `update_pullback` cannot differentiate.

    Args:
      optimizer: a built Keras optimizer.

    Raises:
      ValueError: for one of a kind that is not known, or one that does more to
        gradients or weights than its kind's update.
    """
    problem = _problem(optimizer)
    if problem:
        raise ValueError(problem)


def update_pullback(optimizer, gradients, variables):
    """How the new weights of one update depend on its gradients.

    Call this before `optimizer.apply`, which changes what the derivative
    depends on.

    Args:
      optimizer: a built Keras optimizer.
      gradients: what will be applied, a tensor per variable.
      variables: the optimizer's trainable variables.

    Returns:
      A function from a list of tensors, the derivatives of some scalar with
      respect to the new weights, to a list of its derivatives with respect to
      the gradients, of the same shapes. It raises ValueError where
      `check_differentiable` does, so that who never calls it may use any
      optimizer.
    """
    if _problem(optimizer):
        return lambda upstream: check_differentiable(optimizer)
    rate = tf.convert_to_tensor(optimizer.learning_rate)
    pulls = [
        _pullback(optimizer, gradient, variable.value, rate)
        for gradient, variable in zip(gradients, variables, strict=True)
    ]

    def pullback(upstream):
        return [
            tf.cast(pull(tf.cast(u, variable.dtype)), gradient.dtype)
            for pull, u, gradient, variable in zip(
                pulls, upstream, gradients, variables, strict=True
            )
        ]

    return pullback


def _pullback(optimizer, gradient, variable, learning_rate):
    """The pullback of one variable, a function of a tensor."""
    if isinstance(optimizer, keras.optimizers.SGD):
        return linear_pullback(optimizer, variable, learning_rate)
    return optimizer.pullback(gradient, variable, learning_rate)


def _problem(optimizer):
    """Why the update cannot be differentiated and what to do; or None."""
    if not isinstance(
        optimizer, Momentum | RMSProp | LARS | keras.optimizers.SGD
    ):
        return (
            f"{_WHO} knows those of Momentum, RMSProp, LARS and "
            f"keras.optimizers.SGD; got {type(optimizer).__name__}. Use one of "
            'these for the student, or feedback="reinforce".'
        )
    if optimizer.clipnorm or optimizer.global_clipnorm or optimizer.clipvalue:
        return (
            f"{_WHO} cannot see clipping inside the optimizer. Give "
            "grad_bound to compile() and none of clipnorm, global_clipnorm "
            "and clipvalue to the student's optimizer."
        )
    if optimizer.loss_scale_factor or optimizer.gradient_accumulation_steps:
        return (
            f"{_WHO} needs an optimizer that applies each gradient as it is. "
            "Give the student's neither loss_scale_factor nor "
            "gradient_accumulation_steps."
        )
    if optimizer.use_ema and optimizer.ema_overwrite_frequency:
        return (
            f"{_WHO} needs the weights that the update made, but the "
            "optimizer replaces them by averages. Leave its "
            "ema_overwrite_frequency out; ema_decay averages beside it."
        )
    constrained = [
        v.path for v in optimizer._trainable_variables if v.constraint
    ]
    if constrained:
        return (
            f"{_WHO} cannot see constraints on weights; got one on "
            f"{constrained[0]}. Build the student without, or use "
            'feedback="reinforce".'
        )
    return None
