"""The release's optimizers, Adam, and what feedback must know about them."""

import keras

from meta_pseudo_labels.optimizers.adam import AdamW
from meta_pseudo_labels.optimizers.lars import LARS
from meta_pseudo_labels.optimizers.momentum import Momentum
from meta_pseudo_labels.optimizers.pullback import (
    check_differentiable,
    learning_rate_of,
    parts_of,
    update_pullback,
    update_rates,
)
from meta_pseudo_labels.optimizers.rmsprop import RMSProp
from meta_pseudo_labels.optimizers.schedules import WaitWarmupDecay, pace

_KINDS = {
    "sgd": keras.optimizers.SGD,
    "momentum": Momentum,
    "rmsprop": RMSProp,
    "lars": LARS,
    "adam": keras.optimizers.Adam,
    "adamw": AdamW,
}
OPTIMIZERS = tuple(_KINDS)

__all__ = [
    "LARS",
    "OPTIMIZERS",
    "AdamW",
    "Momentum",
    "RMSProp",
    "WaitWarmupDecay",
    "build_optimizer",
    "check_differentiable",
    "learning_rate_of",
    "pace",
    "parts_of",
    "update_pullback",
    "update_rates",
]


def build_optimizer(
    optim_type,
    learning_rate,
    *,
    weight_decay=1e-4,
    rmsprop_rho=0.9,
    rmsprop_momentum=0.9,
    rmsprop_epsilon=1e-3,
    adam_beta_1=0.9,
    adam_beta_2=0.999,
    adam_epsilon=1e-7,
):
    """An optimizer by its name (release `common_utils.get_optimizer`).

    Args:
      optim_type: one of `OPTIMIZERS`, in any case: "sgd" is plain gradient
        descent, "momentum" has Nesterov momentum 0.9; "adam" is Keras's own.
      learning_rate: a float or a `LearningRateSchedule`.
      weight_decay: "lars" adds it inside, on top of the learner's own; "adamw"
        shrinks weights by it, instead of the learner's; others have none.
      rmsprop_rho: decay of the mean squared gradient of "rmsprop".
      rmsprop_momentum: decay of the momentum of "rmsprop".
      rmsprop_epsilon: what "rmsprop" adds inside the root.
      adam_beta_1: decay of the mean gradient of "adam" and "adamw".
      adam_beta_2: decay of their mean squared gradient.
      adam_epsilon: what they add to its root.

    Raises:
      ValueError: for an unknown name or a number out of range.
    """
    name = str(optim_type).lower()
    if name not in _KINDS:
        raise ValueError(
            f"Unknown optim_type {optim_type!r}; use one of {OPTIMIZERS}."
        )
    adam = dict(beta_1=adam_beta_1, beta_2=adam_beta_2, epsilon=adam_epsilon)
    settings = {
        "rmsprop": dict(
            rho=rmsprop_rho,
            momentum=rmsprop_momentum,
            epsilon=rmsprop_epsilon,
        ),
        "lars": dict(weight_decay=weight_decay),
        "adam": adam,
        "adamw": dict(weight_decay=weight_decay, **adam),
    }
    return _KINDS[name](learning_rate, **settings.get(name, {}))
