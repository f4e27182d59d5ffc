"""The derivative of an optimizer's update, for feedback through it.

An optimizer that can be differentiated has a method `derivative`, as `Momentum`
has; a user's own optimizer may have one too.
"""

import functools

import keras
import tensorflow as tf

from meta_pseudo_labels.optimizers.momentum import Momentum
from meta_pseudo_labels.utils.compat import variables_of

_WHO = "Feedback through the student's update (part of every diagnosis)"


def check_differentiable(optimizer, asked_by=_WHO):
    """Refuses an optimizer that `update_pullback` cannot differentiate.

    Args:
      optimizer: a built Keras optimizer.
      asked_by: what needs the derivative, for the message.

    Raises:
      ValueError: for one of a kind that is not known, or one that does more to
        gradients or weights than its kind's update.
    """
    problem = _problem(optimizer)
    if problem:
        raise ValueError(f"{asked_by} {problem}")


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
    pulls = [pull for _, pull in _derivatives(optimizer, gradients, variables)]

    def pullback(upstream):
        return [
            tf.cast(pull(tf.cast(u, variable.dtype)), gradient.dtype)
            for pull, u, gradient, variable in zip(
                pulls, upstream, gradients, variables, strict=True
            )
        ]

    return pullback


def update_rates(optimizer, gradients, variables):
    """How far one update moves each weight per unit of its gradient.

    Not the derivative: what an update divides by is held as it is with these
    gradients, the trust ratio of LARS and the mean square of RMSProp. So
    rate * gradient is the part of the step that the gradient makes; LARS's own
    weight decay is left out. For Momentum and SGD both are one.

    Args:
      optimizer, gradients, variables: see `update_pullback`.

    Returns:
      A function of nothing to a list of tensors, each a scalar or of its
      variable's shape, negative. It raises ValueError as that of
      `update_pullback` does.
    """
    if _problem(optimizer):
        return lambda: check_differentiable(optimizer)
    derivatives = _derivatives(optimizer, gradients, variables)
    rates = [
        tf.cast(rate, gradient.dtype)
        for (rate, _), gradient in zip(derivatives, gradients, strict=True)
    ]
    return lambda: rates


def _derivatives(optimizer, gradients, variables):
    """(rate, pullback) of each variable, see `Momentum.derivative`."""
    rate = tf.convert_to_tensor(optimizer.learning_rate)
    derivative = _derivative_of(optimizer)
    return [
        derivative(gradient, variable.value, rate)
        for gradient, variable in zip(gradients, variables, strict=True)
    ]


def _derivative_of(optimizer):
    """What an optimizer says of its update; None where it says nothing."""
    if isinstance(optimizer, keras.optimizers.SGD):  # As Momentum's.
        return functools.partial(Momentum.derivative, optimizer)
    return getattr(optimizer, "derivative", None)


def _problem(optimizer):
    """Why the update cannot be differentiated and what to do; or None."""
    if _derivative_of(optimizer) is None:
        return (
            "knows Momentum, RMSProp, LARS and keras.optimizers.SGD; got "
            f"{type(optimizer).__name__}. Use one of these for the student, or "
            'feedback="reinforce".'
        )
    if optimizer.clipnorm or optimizer.global_clipnorm or optimizer.clipvalue:
        return (
            "cannot see clipping inside the optimizer. Give "
            "grad_bound to compile() and none of clipnorm, global_clipnorm "
            "and clipvalue to the student's optimizer."
        )
    if optimizer.loss_scale_factor or optimizer.gradient_accumulation_steps:
        return (
            "needs an optimizer that applies each gradient as it is. "
            "Give the student's neither loss_scale_factor nor "
            "gradient_accumulation_steps."
        )
    if optimizer.use_ema and optimizer.ema_overwrite_frequency:
        return (
            "needs the weights that the update made, but the "
            "optimizer replaces them by averages. Leave its "
            "ema_overwrite_frequency out; ema_decay averages beside it."
        )
    constrained = [v.path for v in variables_of(optimizer) if v.constraint]
    if constrained:
        return (
            "cannot see constraints on weights; got one on "
            f"{constrained[0]}. Build the student without, or use "
            'feedback="reinforce".'
        )
    return None
