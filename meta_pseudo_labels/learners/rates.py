"""The learning rates of a student and its teacher, in proportion."""

import warnings

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.utils import compat


class Rates:
    """The learning rates of two networks, which stay in proportion.

    A callback of Keras sets the rate of the one optimizer that it knows. The
    other's follows; if that is set to another value too, both are kept, and
    their proportion is the new one.

    Args:
      leader, follower: built optimizers; if the rate of one is a schedule,
        which nobody can set, there is no proportion to keep.
      follows: whether to keep a proportion at all.
    """

    def __init__(self, leader, follower, *, follows=True):
        rates = [compat.rate_variable(x) for x in (leader, follower)]
        self._leads, self._is_settled = rates[0], True
        self._left_behind = follows and rates[1] is None
        known = all(rate is not None for rate in rates)
        self._rates = rates if known and follows else []
        if self._rates:
            lead, rate = (float(rate.numpy()) for rate in rates)
            values = (lead, rate, rate / lead if lead else 1.0)
            self._seen = [
                tf.Variable(
                    value,
                    dtype="float32",
                    trainable=False,
                    aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                )
                for value in values
            ]

    def keep_proportion(self):
        """To be called in every step, and before any rate is read or saved."""
        if not self._rates:
            return
        lead, rate = (tf.cast(x.value, "float32") for x in self._rates)
        seen_lead, seen_rate, ratio = (tf.identity(x) for x in self._seen)
        is_set = tf.not_equal(rate, seen_rate)
        follows = tf.not_equal(lead, seen_lead) & ~is_set
        rate = tf.where(follows, lead * ratio, rate)
        ratio = tf.where(is_set & (lead > 0), rate / lead, ratio)
        self._rates[1].assign(tf.cast(rate, self._rates[1].dtype))
        self._note(lead, rate, ratio)

    def _note(self, *values):
        for seen, value in zip(self._seen, values, strict=True):
            seen.assign(value)

    def leading(self):
        """The leader's rate, a number; None if it is a schedule."""
        return None if self._leads is None else float(self._leads.numpy())

    def catch_up(self, *, since):
        """Follows what the last callbacks set; warns if it cannot.

        Args:
          since: `leading` before a `fit`.
        """
        self.keep_proportion()
        if self._left_behind and self.leading() != since:
            warnings.warn(
                "A callback set the student's learning rate; the teacher's is "
                "a schedule and does not follow. Give both a number, or both a "
                "schedule.",
                stacklevel=3,
            )

    def kept(self):
        """What to save, [3], for `restore`; None if nothing is kept."""
        if not self._rates:
            return None
        self.keep_proportion()
        return np.stack([seen.numpy() for seen in self._seen])

    def restore(self, kept):
        """Goes on from what was saved, before the rates are set to it.

        Args:
          kept: see above; None for a file that has none, see `settle`.
        """
        self._is_settled = kept is not None
        if self._rates and kept is not None:
            self._note(*kept)

    def settle(self):
        """Goes on from rates that were loaded without `kept` beside them."""
        if self._rates and not self._is_settled:
            lead, rate = (float(x.numpy()) for x in self._rates)
            ratio = rate / lead if lead else self._seen[2].numpy()
            self._note(lead, rate, ratio)
        self._is_settled = True
