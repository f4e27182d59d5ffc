"""Learning-rate schedules of the release: wait, warm up, decay.

Also rates for some weights that differ from those of the others.
"""

import functools
import math

import keras
import tensorflow as tf

from meta_pseudo_labels.utils.compat import index_of

DECAYS = ("constant", "exponential", "cosine")


def scale_by_batch(learning_rate, batch_size):
    """The release's linear rule: rates are given for 256 labeled images."""
    return learning_rate * batch_size / 256


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class WaitWarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Zero for `wait_steps`, then a linear warm-up, then a decay.

    With s = step - wait_steps, the rate is 0 while s < 0,
    `peak * (s + 1) / warmup_steps` while s < warmup_steps, and from there on
    a function of s - warmup_steps (release `common_utils.get_learning_rate`,
    quirk 21):

    * `constant`: peak;
    * `exponential`: peak * decay_rate ** floor((s - warmup) / decay_steps);
    * `cosine`: peak * (1 + cos(pi * progress)) / 2, where progress goes from
      0 to 1 over the steps that remain of `num_train_steps`; 0 beyond.

    Args:
      peak: the rate after warm-up, already scaled by the batch size.
      decay: one of `DECAYS`.
      num_train_steps: length of the run in steps; `cosine` ends there.
      warmup_steps: length of the warm-up in steps.
      wait_steps: steps before the warm-up, at rate 0.
      decay_steps: steps between two drops of `exponential`.
      decay_rate: factor of each drop of `exponential`, in (0, 1].
      dtype: float type in which the rate is computed.

    Raises:
      ValueError: for an unknown decay, a number out of range, or a cosine
        without num_train_steps.
    """

    def __init__(
        self,
        peak,
        *,
        decay="cosine",
        num_train_steps=None,
        warmup_steps=0,
        wait_steps=0,
        decay_steps=750,
        decay_rate=0.97,
        dtype="float32",
    ):
        if decay not in DECAYS:
            raise ValueError(
                f"Unknown learning-rate decay {decay!r}; use one of {DECAYS}."
            )
        if warmup_steps < 0 or wait_steps < 0:
            raise ValueError(
                "Steps to wait and to warm up must not be negative; got "
                f"wait_steps={wait_steps}, warmup_steps={warmup_steps}."
            )
        if decay == "exponential" and decay_steps <= 0:
            raise ValueError(
                f"decay_steps must be positive; got {decay_steps}."
            )
        if decay == "exponential" and not 0 < decay_rate <= 1:
            raise ValueError(f"decay_rate must be in (0, 1]; got {decay_rate}.")
        if decay == "cosine" and (
            num_train_steps is None or num_train_steps < 1
        ):
            raise ValueError(
                "A cosine decay needs num_train_steps, at least 1; got "
                f"{num_train_steps}."
            )
        self.peak = peak
        self.decay = decay
        self.num_train_steps = num_train_steps
        self.warmup_steps = warmup_steps
        self.wait_steps = wait_steps
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.dtype = dtype

    def __call__(self, step):
        """The rate at an integer `step`, counted from 0 before the update.

        The operations are the release's, in its order, so that float32 rates
        are equal to the last bit; within a `tf.function` they may be off by
        1e-7 of the peak, as TensorFlow multiplies by reciprocals there. Steps
        are subtracted as integers, since float32 cannot count past 2**24.
        """
        step = tf.cast(step, tf.int64) - self.wait_steps
        rate = self._decayed(step - self.warmup_steps)
        if self.warmup_steps:
            warm = self._float(step + 1) / self._float(self.warmup_steps)
            warm *= self._float(self.peak)
            rate = tf.where(step < self.warmup_steps, warm, rate)
        return tf.where(step < 0, tf.zeros_like(rate), rate)

    def _decayed(self, step):
        """The rate `step` steps after the warm-up; unused while negative."""
        peak = self._float(self.peak)
        if self.decay == "constant":
            return peak
        if self.decay == "exponential":
            drops = tf.floor(self._float(step) / self._float(self.decay_steps))
            return peak * tf.pow(self._float(self.decay_rate), drops)
        # A run that ends before its warm-up does never gets here; it would
        # get the end of the cosine.
        remaining = self._float(
            max(1, self.num_train_steps - self.warmup_steps - self.wait_steps)
        )
        progress = tf.minimum(self._float(step), remaining) / remaining
        return peak * (0.5 * (1.0 + tf.cos(self._float(math.pi) * progress)))

    def _float(self, number):
        if tf.is_tensor(number):
            return tf.cast(number, self.dtype)
        # Not tf.cast, which takes a Python float through float32.
        return tf.constant(number, self.dtype)

    def get_config(self):
        return {
            "peak": self.peak,
            "decay": self.decay,
            "num_train_steps": self.num_train_steps,
            "warmup_steps": self.warmup_steps,
            "wait_steps": self.wait_steps,
            "decay_steps": self.decay_steps,
            "decay_rate": self.decay_rate,
            "dtype": self.dtype,
        }


def pace(optimizer, variables, *, lr_factor=1.0, freeze_steps=0):
    """Makes an optimizer move some variables at a share of its learning rate.

    The update is scaled, not the gradient, as Adam would divide such a factor
    out again: optimizers get another rate for these variables, and all that
    are built by name are linear in it. Their moments still move while they are
    frozen, so that Adam's correction of its first steps holds afterwards.

    Args:
      optimizer: a built Keras optimizer that wraps no other.
      variables: those of its variables that get another rate.
      lr_factor: multiplies the learning rate for them, at least 0; or a list,
        one for each of them.
      freeze_steps: number of first updates that leave them exactly as they
        are; -1 for all.

    Raises:
      ValueError: for a Keras optimizer with weight decay, which would move
        them at the full rate.
    """
    if not isinstance(lr_factor, list):
        lr_factor = [lr_factor] * len(variables)
    if all(factor == 1 for factor in lr_factor) and not freeze_steps:
        vars(optimizer).pop("share_of_rate", None)
        vars(optimizer).pop("update_step", None)
        return
    if optimizer.weight_decay:
        raise ValueError(
            f"The weight_decay of {type(optimizer).__name__} knows only "
            "one learning rate, but the backbone has another or is frozen. "
            "Give weight_decay to compile(), or use "
            "meta_pseudo_labels.AdamW."
        )
    factors = {
        index_of(optimizer, variable): factor
        for variable, factor in zip(variables, lr_factor, strict=True)
    }

    def share_of_rate(variable, dtype):
        """A scalar, at the optimizer's present step; None for the full rate."""
        factor = factors.get(index_of(optimizer, variable))
        if factor is None:
            return None
        factor = tf.constant(0.0 if freeze_steps < 0 else factor, dtype)
        taken = tf.convert_to_tensor(optimizer.iterations)
        return tf.where(taken < freeze_steps, tf.zeros_like(factor), factor)

    optimizer.share_of_rate = share_of_rate
    optimizer.update_step = functools.partial(_paced_step, optimizer)


def paced_rate(optimizer, variable, learning_rate):
    """The learning rate of one variable of an optimizer, see `pace`."""
    share_of_rate = getattr(optimizer, "share_of_rate", None)
    share = share_of_rate and share_of_rate(variable, learning_rate.dtype)
    return learning_rate if share is None else learning_rate * share


def _paced_step(optimizer, gradient, variable, learning_rate):
    learning_rate = tf.convert_to_tensor(learning_rate)
    update_step = functools.partial(type(optimizer).update_step, optimizer)
    share = optimizer.share_of_rate(variable, learning_rate.dtype)
    if share is None:
        update_step(gradient, variable, learning_rate)
        return
    before = tf.identity(variable)
    update_step(gradient, variable, learning_rate * share)
    # Slots may hold rates of earlier steps, and still move at rate 0.
    variable.assign(tf.where(share > 0, variable, before))
