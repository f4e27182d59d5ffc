"""Means, deviations and intervals, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from meta_pseudo_labels.evaluation import statistics

# Student's t at 0.975, from printed tables.
T2, T4, T9 = 4.302653, 2.776445, 2.262157


def test_mean_deviation_and_margin():
    result = statistics.estimate([1.0, 2.0, 3.0])
    assert (result.count, result.mean, result.deviation) == (3, 2.0, 1.0)
    assert result.margin == pytest.approx(T2 / math.sqrt(3), rel=1e-6)


@pytest.mark.parametrize("count, quantile", [(5, T4), (10, T9)])
def test_the_margin_has_as_many_degrees_of_freedom_as_it_should(
    count, quantile
):
    values = [0.0] * (count - 1) + [1.0]
    deviation = math.sqrt(1 / count)  # (1 - 1/n) / (n - 1) = 1/n, its square.
    result = statistics.estimate(values)
    assert result.deviation == pytest.approx(deviation)
    assert result.margin == pytest.approx(
        quantile * deviation / math.sqrt(count), rel=1e-6
    )


def test_the_interval_holds_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3.0, 2.0, size=(2_000, 4))
    results = [statistics.estimate(values) for values in draws]
    share = np.mean([abs(r.mean - 3.0) <= r.margin for r in results])
    assert 0.935 < share < 0.965  # 0.95 within three standard errors.


def test_a_single_value_has_no_margin():
    result = statistics.estimate([7.0])
    assert (result.mean, result.deviation, result.margin) == (7.0, None, None)
    assert result.p_value is None


def test_two_values_have_no_margin():
    """It would be 12.7 standard errors."""
    result = statistics.estimate([1.0, 2.0])
    assert result.margin is None
    assert result.deviation == pytest.approx(math.sqrt(0.5))


def test_differences_are_paired_by_seed_over_the_common_ones():
    values = {0: 90.0, 1: 80.0, 2: 70.0, 5: 10.0}
    others = {2: 66.0, 1: 78.0, 0: 90.0, 7: 99.0}
    result = statistics.paired_difference(values, others)
    # 0, 2 and 4: mean 2, deviation 2. Unpaired it would be 10 and 12.
    assert (result.count, result.mean, result.deviation) == (3, 2.0, 2.0)


def test_no_common_seed_is_no_difference():
    assert statistics.paired_difference({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize("mean", [T4, -T4])
def test_chance_is_a_twentieth_where_the_interval_ends_at_zero(mean):
    # Of deviation sqrt(5), so of error 1.
    values = mean + np.float64([1, -1, 0, 2, -2]) * math.sqrt(5 / 2.5)
    found = statistics.estimate(values)
    assert found.margin == pytest.approx(T4)
    assert found.p_value == pytest.approx(0.05)


@pytest.mark.parametrize("right", [(260, 279, 408, 250, 319), (90,) * 7])
@pytest.mark.parametrize("gain", [0, 3])
def test_equal_differences_say_nothing_of_chance(right, gain):
    """Each seed has 3 of 500 images more: equal but for rounding."""
    values = {seed: (n + gain) / 500 for seed, n in enumerate(right)}
    others = {seed: n / 500 for seed, n in enumerate(right)}
    found = statistics.paired_difference(values, others)
    assert found.mean == pytest.approx(gain / 500)
    assert (found.deviation, found.margin, found.p_value) == (0.0, None, None)
    assert statistics.discoveries([found]) == [False]
    # Nor do they ask more of the others.
    assert statistics.discoveries([found, *chances(0.04)]) == [False, True]


def chances(*p_values, count=5):
    return [
        statistics.Estimate(count, 1.0, 1.0, 1.0, p_value)
        for p_value in p_values
    ]


def test_of_many_differences_more_is_asked():
    """Benjamini and Hochberg: the k-th of m is named up to 0.05 k / m."""
    assert statistics.discoveries(chances(0.04)) == [True]
    assert statistics.discoveries(chances(0.04, 0.5)) == [False, False]
    assert statistics.discoveries(chances(0.5, 0.024, 0.9, 0.012)) == [
        *(False, True, False, True)
    ]


def test_few_values_discover_nothing():
    few = chances(1e-9, count=4)
    assert statistics.discoveries(few) == [False]
    # Nor do they ask more of the others.
    assert statistics.discoveries(few + chances(0.04)) == [False, True]
    single = [statistics.estimate([1.0])]
    assert statistics.discoveries(single + chances(0.04)) == [False, True]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no values"):
        statistics.estimate([])
    with pytest.raises(ValueError, match="confidence .* 95"):
        statistics.estimate([1.0], confidence=95)
