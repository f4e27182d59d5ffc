"""The figure of a diagnosis."""

import itertools

import numpy as np

from meta_pseudo_labels.evaluation.diagnosis.measure import RANDOM
from meta_pseudo_labels.utils import figures
from meta_pseudo_labels.utils.figures import COLORS, FADED, GRID, INK

# Ratios up to this are rounding error, not feedback, and are not drawn; an
# estimator that has no others gets a "0".
NOTHING = 1e-6
_MARKERS = "osD^v<>"
_HOLLOW = dict(markersize=8, fillstyle="none")
_OPEN = dict(linestyle="none", alpha=0.6, fillstyle="none")
_FAINT = dict(linestyle="none", alpha=0.6, markeredgewidth=0)


def draw(found, path):
    """Draws what `diagnose` returned: six panels, two in a row.

    Args:
      found: a dict as `diagnose` returns it.
      path: PNG file to write.

    Raises:
      ImportError: if matplotlib is not installed.
    """
    names = list(found["estimators"])
    looks = {
        name: dict(color=color, marker=marker)
        for name, color, marker in zip(
            names,
            itertools.cycle((*COLORS, FADED)),
            itertools.cycle(_MARKERS),
            strict=False,
        )
    }
    figure = figures.figure(width=10.5, height=11.5)
    panels = figure.subplots(3, 2).ravel()
    for axes in panels:
        _style(axes)
    _draw_ratios(panels[0], found, looks)
    _draw_cosines(panels[1], found, looks)
    _draw_noise(panels[2], found, looks)
    _draw_correlations(panels[3], found, looks)
    _draw_moves(panels[4], found, looks)
    _draw_gains(panels[5], found, looks)
    settings = found["settings"]
    figure.suptitle(
        f"The student's feedback at step {settings['start_step']:,}: "
        f"{settings['batches']} batches, {settings['draws']} draws of labels "
        f"each, student's rate {settings['learning_rate']:.3g}",
        color=INK,
        fontsize=12,
    )
    figure.savefig(path)


def _style(axes):
    axes.tick_params(which="both", colors=FADED, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _title(axes, title, *, x, y=None):
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set_xlabel(x, color=FADED)
    if y:
        axes.set_ylabel(y, color=FADED)


def _rows(axes, names):
    """One row for each estimator, the first on top; its place by name."""
    titles = [figures.shortened(name, 30) for name in names]
    axes.set_yticks(range(len(names)), titles, color=INK)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    return {name: place for place, name in enumerate(names)}


def _by_batch(found, name, key):
    values = [row["estimators"][name].get(key) for row in found["batches"]]
    return np.array([value for value in values if value is not None])


def _draw_ratios(axes, found, looks):
    _title(
        axes,
        "How loud: norm of the feedback's gradient",
        x="over that of the teacher's other gradient, by batch",
    )
    axes.set_xscale("log")
    heard = [
        values[values > NOTHING]
        for values in (_by_batch(found, name, "norm_ratio") for name in looks)
    ]
    lowest = min((values.min() for values in heard if len(values)), default=1)
    for place, (name, values) in zip(
        _rows(axes, list(looks)).values(),
        zip(looks, heard, strict=True),
        strict=True,
    ):
        if len(values):
            axes.plot(values, [place] * len(values), **looks[name], **_FAINT)
        else:
            axes.text(lowest, place, "0", color=INK, va="center")


def _draw_cosines(axes, found, looks):
    draws = found["settings"]["draws"]
    _title(
        axes,
        "Which way: cosine with the exact gradient",
        x=f"filled: mean of {draws} draws; hollow: one draw",
    )
    axes.set_xlim(-1.05, 1.05)
    axes.axvline(0, color=FADED, linewidth=1)
    for name, place in _rows(axes, list(looks)).items():
        one, mean = (
            _by_batch(found, name, key)
            for key in ("cosine_one_draw", "cosine_mean")
        )
        if not len(mean):
            axes.text(0.03, place, "none", color=INK, va="center")
            continue
        axes.plot(mean, [place - 0.12] * len(mean), **looks[name], **_FAINT)
        axes.plot(one, [place + 0.12] * len(one), **looks[name], **_OPEN)


def _draw_noise(axes, found, looks):
    _title(
        axes,
        "How noisy: variance over draws of labels",
        x="over the squared norm of the exact gradient",
    )
    axes.set_xscale("log")
    numbers = _known(found, "noise")
    for name, place in _rows(axes, list(numbers)).items():
        number = numbers[name]
        axes.plot(number, place, **looks[name], markersize=9)
        axes.annotate(
            f"{number:.3g}",
            (number, place),
            xytext=(0, 9),
            textcoords="offset points",
            color=INK,
            ha="center",
        )
    axes.margins(x=0.15)


def _draw_correlations(axes, found, looks):
    _title(
        axes,
        "How true: h and the fall of the held-out loss",
        x="correlation; hollow: within a batch",
    )
    numbers = _known(found, "pearson")
    axes.set_xlim(-1.05, 1.05)
    axes.axvline(0, color=FADED, linewidth=1)
    for name, place in _rows(axes, list(numbers)).items():
        within = found["estimators"][name]["pearson_within"]
        axes.plot(numbers[name], place - 0.1, **looks[name], markersize=8)
        if within is not None:
            axes.plot(within, place + 0.1, **looks[name], **_HOLLOW)


def _draw_moves(axes, found, looks):
    """What became of the judged loss when the teacher moved."""
    share = found["settings"]["teacher_step"]
    _title(
        axes,
        f"What it does: the teacher moves by {share:.1%}",
        x="predicted change of the judged loss, nats",
        y="measured change, nats",
    )
    ends = []
    for name, look in looks.items():
        steps = [row["teacher_steps"].get(name) for row in found["batches"]]
        points = [(s["predicted"], s["measured"]) for s in steps if s]
        if points:
            ends += np.ravel(points).tolist()
            axes.plot(
                *np.transpose(points),
                **look,
                **_FAINT,
                markersize=5,
                # Legends leave out labels that begin with _.
                label=f" {figures.shortened(name, 30)}",
            )
    if ends:
        ends = [min(ends), max(ends)]
        axes.plot(ends, ends, color=FADED, linewidth=1, zorder=0)
        axes.legend(frameon=False, labelcolor=INK, fontsize=9)


def _draw_gains(axes, found, looks):
    """What all that does for images that no network learned from."""
    _title(
        axes,
        "And elsewhere: the held-out loss after it",
        x="change, 0.001 nats, 2 std. errors; hollow: one draw",
    )
    axes.axvline(0, color=FADED, linewidth=1)
    moves = found["teacher_steps"]
    names = [name for name in (*looks, RANDOM) if name in moves]
    for name, place in _rows(axes, names).items():
        look = looks.get(name, dict(color=FADED, marker="x"))
        for key, lift, style in (
            (name, -0.12, dict(markersize=8)),
            (f"{name}, one draw", 0.12, _HOLLOW),
        ):
            if key in moves:
                axes.errorbar(
                    1e3 * moves[key]["held_out"],
                    place + lift,
                    xerr=2e3 * (moves[key]["held_out_error"] or 0.0),
                    **look,
                    **style,
                )


def _known(found, key):
    """A number by estimator, for those that have it."""
    return {
        name: numbers[key]
        for name, numbers in found["estimators"].items()
        if numbers.get(key) is not None
    }
