"""Plots as numbers, which the macros of the templates draw as SVG.

    plot = lines_plot("Loss", [Line("student", steps, losses)])

Coordinates are in a picture of `WIDTH` by `HEIGHT`, counted from the top left.
"""

import dataclasses
import math

WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 36
# Okabe and Ito's colors, then the same with other dashes; see base.html.
COLORS, DASHES = 7, 4
_MOST_POINTS = 200
_ROW = 46  # Height of a row of `rows_plot`.
_FEW_POINTS = 30  # With no more than these, each is marked.


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
      name: what it shows.
      steps: [points] numbers, in order.
      values: [points] numbers.
      low, high: [points], limits of a band around it; None for no band.
      style: number of its color and dashes; None: its place among the lines.
    """

    name: str
    steps: list
    values: list
    low: list | None = None
    high: list | None = None
    style: int | None = None


@dataclasses.dataclass(frozen=True)
class Axis:
    """Numbers and their places.

    Attributes:
      low, high: the numbers at its ends.
      start, end: the places of these.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value):
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, text):
        """Places and texts of round numbers; `text` formats a number."""
        return [(self(v), text(v)) for v in round_numbers(self.low, self.high)]


def lines_plot(title, lines, *, percent=False):
    """Curves over steps, as `plot_lines` of the templates draws them.

    Args:
      title: what the values are.
      lines: `Line`s; those without points are left out.
      percent: whether values are shares in [0, 1].

    Returns:
      A dict; None if there is no point at all.
    """
    lines = [line for line in lines if line.values]
    if not lines:
        return None
    across = _axis([s for line in lines for s in line.steps], LEFT, -RIGHT)
    values = [
        value
        for line in lines
        for part in (line.values, line.low, line.high)
        for value in part or ()
    ]
    up = _axis(values, HEIGHT - BOTTOM, TOP)

    def text(value):
        return _percent(value) if percent else f"{value:,.4g}"

    return {
        "title": title,
        "alt": _in_words(title, lines, text),
        "x_ticks": across.ticks("{:,.6g}".format),
        "y_ticks": up.ticks(text),
        "lines": [
            _drawn(line, place, across, up, text)
            for place, line in enumerate(lines)
        ],
    }


def round_numbers(low, high, count=5):
    """About `count` numbers of one or two digits from low to high, a list."""
    step = 10 ** math.floor(math.log10((high - low) / count))
    factor = next(f for f in (1, 2, 5, 10) if f * step * count >= high - low)
    step *= factor
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Rounded: 3 * 0.1 is not exactly 0.3.
    return [float(f"{k * step:.10g}") for k in range(first, last + 1)]


def calibration_plot(bins):
    """A reliability diagram, as `plot_calibration` of the templates draws it.

    Args:
      bins: a list of dicts from eval_report.json: "images", "confidence" and
        "accuracy", for bins of equal width from 0 to 1.

    Returns:
      A dict.
    """
    across = Axis(0.0, 1.0, LEFT, WIDTH - RIGHT)
    up = Axis(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    width = (WIDTH - RIGHT - LEFT) / len(bins)
    return {
        "bars": [
            {
                "x": across(place / len(bins)) + 1,
                "width": round(width - 2, 1),
                "accuracy": up(found["accuracy"]),
                "confidence": up(found["confidence"]),
            }
            for place, found in enumerate(bins)
            if found["images"]
        ],
        "base": up(0.0),
        "diagonal": (across(0.0), up(0.0), across(1.0), up(1.0)),
        "x_ticks": across.ticks(lambda v: f"{v:.0%}"),
        "y_ticks": up.ticks(lambda v: f"{v:.0%}"),
    }


def rows_plot(title, names, estimates, dots=None, *, first_style=0):
    """Means, intervals and single values, as `plot_rows` draws them.

    Args:
      title: what the values, shares in [0, 1], are.
      names: of the rows.
      estimates: `statistics.Estimate`s, one for each row.
      dots: lists of single values, one for each row; None for differences,
        whose plot also shows zero.
      first_style: number of the first row's color.

    Returns:
      A dict.
    """
    shown = [] if dots else [0.0]
    dots = dots or [[] for _ in names]
    margins = [one.margin or 0.0 for one in estimates]
    shown += [
        value
        for one, margin, each in zip(estimates, margins, dots, strict=True)
        for value in (one.mean - margin, one.mean + margin, *each)
    ]
    across = _axis(shown, RIGHT, -2 * RIGHT)
    rows = []
    for place, (name, one, margin) in enumerate(
        zip(names, estimates, margins, strict=True)
    ):
        rows.append(
            {
                "name": name,
                "color": (first_style + place) % COLORS,
                "y": _ROW * place + 40,
                "mean": across(one.mean),
                "low": across(one.mean - margin),
                "high": across(one.mean + margin),
                "dots": [across(value) for value in dots[place]],
            }
        )
    told = (
        f"{name} {_percent(one.mean)}"
        for name, one in zip(names, estimates, strict=True)
    )
    return {
        "title": title,
        "alt": f"{title}: {'; '.join(told)}.",
        "height": _ROW * len(names) + 44,
        "x_ticks": across.ticks(_percent),
        "zero": across(0.0) if across.low <= 0 <= across.high else None,
        "rows": rows,
    }


def _percent(value):
    return f"{100 * value:.4g} %"


def _axis(values, start, end):
    """An `Axis` for all values; a negative end counts from the right."""
    low, high = min(values), max(values)
    if low == high:  # The values have no range.
        spare = abs(low) / 10 or 1.0
        low, high = low - spare, high + spare
    return Axis(low, high, start, end if end > 0 else WIDTH + end)


def _thinned(line):
    """A line with only as many points as can be seen: means of neighbors."""
    size = -(-len(line.values) // _MOST_POINTS)
    if size == 1:
        return line

    def means(values):
        if values is None:
            return None
        parts = (values[i : i + size] for i in range(0, len(values), size))
        return [math.fsum(part) / len(part) for part in parts]

    names = ("steps", "values", "low", "high")
    thin = {name: means(getattr(line, name)) for name in names}
    return dataclasses.replace(line, **thin)


def _drawn(line, place, across, up, text):
    last, line = line.values[-1], _thinned(line)
    style = place if line.style is None else line.style
    points = _points(line.steps, line.values, across, up)
    band = None
    if line.low is not None:
        there = _points(line.steps, line.high, across, up)
        back = _points(line.steps, line.low, across, up)
        band = " ".join(f"{x},{y}" for x, y in there + back[::-1])
    return {
        "name": line.name,
        "color": style % COLORS,
        "dash": style // COLORS % DASHES,
        "points": " ".join(f"{x},{y}" for x, y in points),
        "marks": points if len(points) <= _FEW_POINTS else [],
        "band": band,
        "last": text(last),
    }


def _points(steps, values, across, up):
    return [(across(s), up(v)) for s, v in zip(steps, values, strict=True)]


def _in_words(title, lines, text):
    """A description for a reader who cannot see the plot."""
    each = (
        f"{line.name} from {text(line.values[0])} at step {line.steps[0]:,.6g} "
        f"to {text(line.values[-1])} at step {line.steps[-1]:,.6g}"
        for line in lines
    )
    return f"{title}: {'; '.join(each)}."
