"""Plots as numbers: round ticks, curves of so many points, words."""

import pytest

from meta_pseudo_labels.run.pages import number, percent
from meta_pseudo_labels.run.pages.plots import (
    COLORS,
    DASHES,
    HEIGHT,
    WIDTH,
    Axis,
    Line,
    calibration_plot,
    lines_plot,
    round_numbers,
)


@pytest.mark.parametrize(
    ("low", "high", "numbers"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.13, 0.31, [0.15, 0.2, 0.25, 0.3]),
        (-70, 130, [-50, 0, 50, 100]),
        (1e-6, 5e-6, [1e-6, 2e-6, 3e-6, 4e-6, 5e-6]),
        (0, 300_000, [0, 100_000, 200_000, 300_000]),
    ],
)
def test_ticks_are_round(low, high, numbers):
    assert round_numbers(low, high) == numbers


def test_an_axis_that_points_up():
    axis = Axis(10, 20, 200, 100)
    assert (axis(10), axis(15), axis(20)) == (200, 150, 100)


def test_curves_stay_within_the_picture():
    line = Line("a", [0, 50, 100], [-3, 7, 2], low=[-9, 7, 2], high=[1, 8, 3])
    (drawn,) = lines_plot("x", [line])["lines"]
    for points in (drawn["points"], drawn["band"]):
        for point in points.split():
            x, y = map(float, point.split(","))
            assert 0 < x < WIDTH and 0 < y < HEIGHT
    assert len(drawn["band"].split()) == 6 and len(drawn["marks"]) == 3


@pytest.mark.parametrize("value", [0, 0.5, -2])
def test_a_curve_that_never_moves(value):
    plot = lines_plot("x", [Line("a", [5], [value])])
    assert len(plot["lines"][0]["points"].split()) == 1


def test_nothing_to_draw():
    assert lines_plot("x", [Line("a", [], [])]) is None


def test_long_curves_are_means_of_neighbors():
    steps = list(range(1000))
    (drawn,) = lines_plot("x", [Line("a", steps, [7.0, 9.0] * 500)])["lines"]
    points = drawn["points"].split()
    assert len(points) == 200 and drawn["marks"] == []
    # Of five values, three of the one and two of the other.
    assert len({point.split(",")[1] for point in points}) == 2


def test_many_curves_are_told_apart_by_color_and_dashes():
    lines = [Line(str(k), [1], [k]) for k in range(COLORS * DASHES)]
    drawn = lines_plot("x", lines)["lines"]
    assert len({(d["color"], d["dash"]) for d in drawn}) == 28


def test_a_reliability_diagram_has_a_bar_for_each_bin_with_images():
    bins = [
        {"images": 0, "confidence": None, "accuracy": None},
        {"images": 3, "confidence": 0.75, "accuracy": 1.0},
    ]
    (bar,) = calibration_plot(bins)["bars"]
    top, base = bar["accuracy"], calibration_plot(bins)["base"]
    assert bar["confidence"] == pytest.approx(top + (base - top) / 4, abs=0.1)


def test_numbers_as_they_are_read():
    assert (number(1297), number(12345.6), number(None)) == (
        "1,297",
        "12,346",
        "–",
    )
    assert (number(0.46894), percent(0.916), percent(None)) == (
        "0.4689",
        "91.6 %",
        "–",
    )
