"""What learners must know about an optimizer: the derivative of its update.

Also its parts, if it wraps others. An optimizer that can be differentiated has
a method `derivative`, as `Momentum` does; a user's own may have one too.
"""

import functools

import keras
import tensorflow as tf

from meta_pseudo_labels.optimizers.adam import adam_derivative
from meta_pseudo_labels.optimizers.momentum import Momentum
from meta_pseudo_labels.optimizers.schedules import paced_rate
from meta_pseudo_labels.utils.compat import unscaled, variables_of

_UPDATES = ("update_step", "apply", "apply_gradients")  # They move the weights.
_WHO = "Feedback through the student's update"


def parts_of(optimizer):
    """A built optimizer and all that it wraps, at any depth, each once."""
    parts = [optimizer]
    for part in parts:  # The list grows.
        for value in vars(part).values():
            if isinstance(value, dict):
                value = list(value.values())
            for inner in value if isinstance(value, list) else [value]:
                is_new = all(inner is not one for one in parts)
                if isinstance(inner, keras.optimizers.Optimizer) and is_new:
                    parts.append(inner)
    return parts


def learning_rate_of(optimizer):
    """The present learning rate, a scalar; the largest of several."""
    parts = parts_of(optimizer)
    rates = [
        tf.convert_to_tensor(part.learning_rate)
        for part in parts
        if len(parts_of(part)) == 1
    ]
    return rates[0] if len(rates) == 1 else tf.reduce_max(tf.stack(rates))


def check_differentiable(optimizer, asked_by=_WHO):
    """Refuses an optimizer that `update_pullback` cannot differentiate.

    Args:
      optimizer: a built Keras optimizer; for a `LossScaleOptimizer`, here and
        below, the one it wraps.
      asked_by: what needs the derivative, for the message.

    Raises:
      ValueError: for one of an unknown kind, or one that does more to gradients
        or weights than its kind's update.
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
      gradients: those that will be applied, of the unscaled loss, one tensor
        per variable.
      variables: the optimizer's trainable variables.

    Returns:
      A function from a list of tensors, the derivatives of some scalar with
      respect to the new weights, to a list of its derivatives with respect to
      the gradients, of the same shapes. It raises ValueError if
      `check_differentiable` does, so that code that never calls it may use any
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

    Not the derivative: what an update divides by is held fixed at its value for
    these gradients, the trust ratio of LARS, the mean square of RMSProp and
    Adam. So rate * gradient is the part of the step that the gradient makes;
    the weight decay of LARS and AdamW is left out. For Momentum and SGD both
    are the same.

    Args:
      optimizer, gradients, variables: see `update_pullback`.

    Returns:
      A function without arguments that returns a list of tensors, each a scalar
      or of its variable's shape, negative. It raises ValueError like that of
      `update_pullback`.
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
    optimizer = unscaled(optimizer)
    rate = tf.convert_to_tensor(optimizer.learning_rate)
    derivative = _derivative_of(optimizer)
    return [
        derivative(
            gradient, variable.value, paced_rate(optimizer, variable, rate)
        )
        for gradient, variable in zip(gradients, variables, strict=True)
    ]


def _derivative_of(optimizer):
    """An optimizer's own derivative of its update; None if there is none.

    A class's derivative does not hold for a subclass that updates differently.
    """
    for kind in type(optimizer).__mro__:
        if kind is keras.optimizers.SGD:  # Like Momentum's.
            return functools.partial(Momentum.derivative, optimizer)
        if kind is keras.optimizers.Adam:
            return functools.partial(adam_derivative, optimizer)
        if "derivative" in vars(kind):
            return optimizer.derivative
        if not vars(kind).keys().isdisjoint(_UPDATES):
            return None
    return None


def _problem(optimizer):
    """Why the update cannot be differentiated and what to do; or None."""
    optimizer = unscaled(optimizer)
    if _derivative_of(optimizer) is None:
        return (
            "supports Momentum, RMSProp, LARS, and SGD, Adam and AdamW of "
            f"keras.optimizers; got {type(optimizer).__name__}. Use one of "
            'these for the student, or feedback="reinforce".'
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
            "optimizer replaces them with averages. Leave out its "
            "ema_overwrite_frequency; ema_decay keeps averages apart."
        )
    constrained = [v.path for v in variables_of(optimizer) if v.constraint]
    if constrained:
        return (
            "cannot see constraints on weights; got one on "
            f"{constrained[0]}. Build the student without any, or use "
            'feedback="reinforce".'
        )
    return None
