"""Figures of evaluations: confusion matrices and reliability diagrams."""

import numpy as np

from meta_pseudo_labels.utils import figures

PANEL_INCHES = 3.6
# With more classes, first the numbers no longer fit into their cells, then the
# names no longer fit beside them.
CLASSES_WITH_NUMBERS, CLASSES_WITH_NAMES = 12, 30


def confusion_sheet(evaluations, path):
    """Draws the networks' confusion matrices side by side.

    A row is a class, colored by the share of its images that are taken for
    each class; the numbers count images. Rows without images stay white.

    Args:
      evaluations: a dict from networks to `metrics.Evaluation`, of the same
        classes.
      path: PNG file to write.

    Raises:
      ImportError: matplotlib is not installed.
    """
    drawing, panels = _panels(evaluations, rows=1)
    for axes, (network, evaluation) in zip(
        panels[0], evaluations.items(), strict=True
    ):
        axes.set_title(
            f"{network}, {evaluation.top_1:.1%}", color=figures.INK, loc="left"
        )
        _draw_confusion(axes, evaluation)
    panels[0][0].set_ylabel("class", color=figures.FADED)
    drawing.savefig(path)


def reliability_sheet(evaluations, path):
    """Draws the networks' reliability diagrams side by side.

    The upper panel shows the accuracy in each confidence bin, which lies on the
    diagonal for a calibrated network, and its gap to the mean confidence there;
    the lower one shows how many images are in each bin.

    Args:
      evaluations: see `confusion_sheet`.
      path: PNG file to write.

    Raises:
      ImportError: matplotlib is not installed.
    """
    drawing, panels = _panels(evaluations, rows=2)
    for (upper, lower), (network, evaluation) in zip(
        panels.T, evaluations.items(), strict=True
    ):
        upper.set_title(
            f"{network}, ECE {evaluation.ece:.3f}",
            color=figures.INK,
            loc="left",
        )
        _draw_reliability(upper, lower, evaluation.calibration)
    panels[0][0].set_ylabel("accuracy", color=figures.FADED)
    panels[1][0].set_ylabel("images", color=figures.FADED)
    drawing.savefig(path)


def _panels(evaluations, *, rows):
    """A figure, and its axes [rows, networks]."""
    heights = {1: [1.0], 2: [1.0, 0.35]}[rows]
    drawing = figures.figure(
        width=PANEL_INCHES * len(evaluations) + 0.4,
        height=PANEL_INCHES * sum(heights) + 0.7,
    )
    panels = drawing.subplots(
        rows, len(evaluations), squeeze=False, height_ratios=heights
    )
    return drawing, panels


def _draw_confusion(axes, evaluation):
    confusion, names = evaluation.confusion, evaluation.class_names
    shares = confusion / np.maximum(evaluation.support, 1)[:, np.newaxis]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xlabel("predicted", color=figures.FADED)
    axes.tick_params(colors=figures.FADED, length=0, labelsize=7)
    axes.spines[:].set_color(figures.GRID)
    if len(names) <= CLASSES_WITH_NAMES:
        titles = figures.class_titles(names)
        short = [figures.shortened(title) for title in titles]
        axes.set_xticks(range(len(names)), short, rotation=90)
        axes.set_yticks(range(len(names)), short)
    if len(names) > CLASSES_WITH_NUMBERS:
        return
    for row, column in np.argwhere(confusion):
        dark = shares[row, column] > 0.5
        axes.text(
            column,
            row,
            f"{confusion[row, column]}",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if dark else figures.INK,
        )


def _draw_reliability(upper, lower, calibration):
    bins = len(calibration.images)
    edges = np.linspace(0.0, 1.0, bins + 1)[:-1]
    filled = calibration.images > 0
    place = dict(width=1 / bins, align="edge", edgecolor="white")
    accuracy = calibration.accuracy[filled]
    upper.bar(edges[filled], accuracy, color=figures.COLORS[0], **place)
    # From the accuracy to the confidence, whichever is larger.
    upper.bar(
        edges[filled],
        calibration.confidence[filled] - accuracy,
        bottom=accuracy,
        color=figures.WRONG,
        alpha=0.35,
        **place,
    )
    upper.plot([0, 1], [0, 1], color=figures.FADED, linewidth=1, linestyle=":")
    upper.set(xlim=(0, 1), ylim=(0, 1))
    lower.bar(edges, calibration.images, color=figures.FADED, **place)
    lower.set_xlim(0, 1)
    lower.set_xlabel("confidence", color=figures.FADED)
    for axes in (upper, lower):
        axes.tick_params(colors=figures.FADED, length=0, labelsize=7)
        axes.spines[:].set_visible(False)
        axes.grid(color=figures.GRID, linewidth=0.8)
        axes.set_axisbelow(True)
