"""Means and paired differences over seeds, with their confidence intervals."""

import dataclasses
import math
import statistics

from scipy import stats  # Comes with scikit-learn.

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean and how far it can be trusted.

    Attributes:
      count: of values.
      mean: of the values, in their unit.
      deviation: standard deviation of the values (divisor count - 1), None
        for a single one.
      margin: half the width of the mean's confidence interval, Student's t;
        None for a single value.
    """

    count: int
    mean: float
    deviation: float | None
    margin: float | None

    @property
    def clear(self):
        """Whether the interval leaves out zero."""
        return self.margin is not None and abs(self.mean) > self.margin


def estimate(values, *, confidence=CONFIDENCE):
    """Mean, deviation and interval of independent values.

    Raises:
      ValueError: for no values, or a confidence outside (0, 1).
    """
    values = list(values)
    if not values:
        raise ValueError("There are no values to average.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1); got {confidence}.")
    count, mean = len(values), statistics.fmean(values)
    if count == 1:
        return Estimate(count, mean, None, None)
    deviation = statistics.stdev(values)
    quantile = stats.t.ppf((1 + confidence) / 2, count - 1)
    margin = float(quantile) * deviation / math.sqrt(count)
    return Estimate(count, mean, deviation, margin)


def paired_difference(values, others, *, confidence=CONFIDENCE):
    """What one run has over another, over the seeds that both have.

    A seed fixes the labels and the first weights of both, so that most of
    what differs between seeds cancels out.

    Args:
      values, others: dicts from a seed to a value.

    Returns:
      An `Estimate` of value - other; None where no seed is common.
    """
    common = sorted(values.keys() & others.keys())
    if not common:
        return None
    return estimate(
        [values[seed] - others[seed] for seed in common],
        confidence=confidence,
    )
