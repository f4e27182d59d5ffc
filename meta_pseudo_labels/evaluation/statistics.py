"""Means and paired differences over seeds, with their confidence intervals."""

import dataclasses
import math
import statistics

from scipy import stats

CONFIDENCE = 0.95
FEW = 5  # With fewer values no difference is claimed.
_FEWEST = 3  # Fewer get no interval: that of two is 12.7 standard errors.
_ROUNDING = 1e-9  # Accuracies that differ by less are equal.


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean and how far it can be trusted.

    Attributes:
      count: number of values.
      mean: of the values, in their unit.
      deviation: standard deviation of the values (divisor count - 1), None
        for a single one.
      margin: half the width of the mean's confidence interval, Student's t;
        None for fewer than three values, and for equal ones, which do not show
        how far others would spread.
      p_value: how likely a mean this far from zero is by chance, Student's t,
        two-sided; None for a single value, and for equal ones.
    """

    count: int
    mean: float
    deviation: float | None
    margin: float | None
    p_value: float | None


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
        return Estimate(count, mean, None, None, None)
    if max(values) - min(values) < _ROUNDING:
        return Estimate(count, mean, 0.0, None, None)
    deviation = statistics.stdev(values)
    error = deviation / math.sqrt(count)
    p_value = 2 * float(stats.t.sf(abs(mean) / error, count - 1))
    quantile = float(stats.t.ppf((1 + confidence) / 2, count - 1))
    margin = quantile * error if count >= _FEWEST else None
    return Estimate(count, mean, deviation, margin, p_value)


def paired_difference(values, others, *, confidence=CONFIDENCE):
    """How much one run is above another, over the seeds that both have.

    A seed fixes the labels and the initial weights of both, so that some of
    the variation between seeds cancels out.

    Args:
      values, others: dicts from a seed to a value.

    Returns:
      An `Estimate` of value - other; None if there is no common seed.
    """
    common = sorted(values.keys() & others.keys())
    if not common:
        return None
    return estimate(
        [values[seed] - others[seed] for seed in common],
        confidence=confidence,
    )


def discoveries(estimates, *, rate=1 - CONFIDENCE):
    """Which means are not zero, allowing for multiple comparisons.

    The procedure of Benjamini and Hochberg: of the means named, at most a share
    of `rate` is expected to be there by chance, unless they depend on one
    another negatively. Means of fewer than `FEW` values, or of equal ones, are
    never named, nor counted.

    Args:
      estimates: `Estimate`s that are tested together.

    Returns:
      A list of booleans, one for each.
    """
    counted = [_is_judged(one) for one in estimates]
    if not any(counted):
        return [False] * len(estimates)
    adjusted = iter(
        stats.false_discovery_control(
            [one.p_value for one in estimates if _is_judged(one)]
        )
    )
    return [judged and bool(next(adjusted) <= rate) for judged in counted]


def _is_judged(one):
    return one.count >= FEW and one.p_value is not None
