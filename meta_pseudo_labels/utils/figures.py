"""Figures of a run: curves and sheets of images.

They are PNG files, drawn directly on matplotlib's Figure: without a
display, without pyplot and without changing global settings.
"""

import dataclasses
import functools
import importlib
import itertools
import unicodedata

import numpy as np

INK, FADED, GRID, WRONG = "#222222", "#6b6b6b", "#e4e4e4", "#c4271b"
# Okabe and Ito's colors: distinguishable with every kind of color vision.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
DOTS_PER_INCH = 150

# Curves with more points than the first are drawn faint, under their moving
# average; curves with at most as many as the second show each point.
MANY_POINTS, FEW_POINTS = 60, 30


@dataclasses.dataclass(frozen=True)
class Panel:
    """One of the plots that `curves` draws side by side.

    Attributes:
      title: written above it.
      scalars: names in metrics.jsonl. For each method, the first that it logged
        is drawn, since methods have no single loss in common.
      percent: whether values in 0..1 are written as percentages.
    """

    title: str
    scalars: tuple[str, ...]
    percent: bool = False


# Scalars that mean the same in every method: evaluated in the same way, without
# smoothing or masks, on test images, or on those of num_validation if some are
# held out. Training losses do not: MPL's student never sees the labels,
# supervised learning and UDA smooth theirs.
PANELS = (
    Panel(
        "Accuracy on validation or test images",
        ("eval/accuracy",),
        percent=True,
    ),
    Panel("Cross-entropy on the same images, nats", ("eval/loss",)),
)


def curves(histories, path, *, panels=PANELS):
    """Draws scalars over training steps, one line per method.

    Args:
      histories: method -> list of dicts as in metrics.jsonl: "step" and
        scalars by name. A row may lack any scalar.
      path: PNG file to write.
      panels: what to draw, from left to right.

    Raises:
      ValueError: no method logged any of a panel's scalars.
    """
    drawing = figure(width=5.4 * len(panels), height=3.9)
    all_axes = drawing.subplots(1, len(panels), squeeze=False)[0]
    lines = {}
    for axes, panel in zip(all_axes, panels, strict=True):
        drawn = _draw_panel(axes, panel, histories)
        if not drawn:
            raise ValueError(
                f"No method logged any of {panel.scalars}; give curves "
                "panels with names that are in metrics.jsonl."
            )
        lines = drawn | lines
    methods = [method for method in histories if method in lines]
    drawing.legend(
        [lines[method] for method in methods],
        # The space: matplotlib leaves labels that begin with _ out of legends.
        [f" {shortened(method, 40)}" for method in methods],
        loc="outside upper center",
        ncols=min(len(methods), 6),
        frameon=False,
        labelcolor=INK,
    )
    drawing.savefig(path)


def prediction_sheet(
    images,
    path,
    *,
    labels,
    predictions,
    probabilities,
    class_names,
    title=None,
    truth="is",
):
    """Draws test images with the class predicted for each, wrong ones in red.

    Args:
      images: [N, H, W, 3] uint8; all are drawn, ten in a row.
      path: PNG file to write.
      labels: [N] integers, the true classes.
      predictions: [N] integers, the predicted classes.
      probabilities: [N, classes]; captions show that of the predicted class.
      class_names: [classes] strings, short ones.
      title: above the sheet; by default how many are right.
      truth: the word before the class of a label, if that differs.

    Raises:
      ValueError: the lengths differ or there is no image.
    """
    _same_lengths(
        images=images,
        labels=labels,
        predictions=predictions,
        probabilities=probabilities,
    )
    class_names = [shortened(name) for name in class_titles(class_names)]
    columns = min(len(images), 10)
    rows = -(-len(images) // columns)
    drawing = figure(width=max(1.15 * columns, 3.5), height=1.45 * rows + 0.5)
    grid = drawing.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, label, prediction, row in zip(
        grid, images, labels, predictions, probabilities, strict=False
    ):
        caption = f"{class_names[prediction]} · {row[prediction]:.0%}"
        right = prediction == label
        if not right:
            caption += f"\n{truth} {class_names[label]}"
        _show(axes, image, frame=GRID if right else WRONG)
        axes.set_xlabel(caption, color=INK if right else WRONG, fontsize=9)
    right = np.sum(np.asarray(labels) == np.asarray(predictions))
    drawing.suptitle(
        title
        or "Predicted class and its probability: "
        f"{right} of {len(images)} right",
        color=INK,
        fontsize=12,
    )
    drawing.savefig(path)


def view_sheet(path, *, original, weak, strong, labeled=None, titles=None):
    """Draws images above their weak and their strong views.

    Args:
      path: PNG file to write.
      original, weak, strong: [N, H, W, 3] uint8, N in the tens.
      labeled: likewise, the views used to train on labeled images; None if
        that is the weak view.
      titles: [N] strings above the images, such as their classes, or None.

    Raises:
      ValueError: the lengths differ or there is no image.
    """
    views = {"original": original, "weak": weak, "strong": strong}
    if labeled is not None:
        views["labeled"] = labeled
    _same_lengths(**views, **({} if titles is None else {"titles": titles}))
    columns = len(original)
    drawing = figure(width=1.1 * columns + 0.8, height=0.2 + 1.1 * len(views))
    grid = drawing.subplots(len(views), columns, squeeze=False)
    for row, (name, images) in zip(grid, views.items(), strict=True):
        row[0].set_ylabel(name, color=INK, fontsize=12)
        for axes, image in zip(row, images, strict=True):
            _show(axes, image, frame=GRID)
    for axes, title in zip(grid[0], titles or (), strict=False):
        axes.set_title(shortened(title), color=INK, fontsize=9)
    drawing.savefig(path)


def pair_sheet(path, *, above, below, titles):
    """Draws pairs of images that look alike, one above the other.

    Args:
      path: PNG file to write.
      above, below: [N, H, W, 3] uint8, N in the tens.
      titles: [N] pairs of strings, one for each image.

    Raises:
      ValueError: the lengths differ or there is no image.
    """
    _same_lengths(above=above, below=below, titles=titles)
    drawing = figure(width=1.5 * len(above) + 0.3, height=3.4)
    grid = drawing.subplots(2, len(above), squeeze=False)
    for column, images, names in zip(
        grid.T, zip(above, below, strict=True), titles, strict=True
    ):
        for axes, image, name in zip(column, images, names, strict=True):
            _show(axes, image, frame=GRID)
            axes.set_title(shortened(name, 20, start=False), fontsize=8)
    drawing.savefig(path)


def shortened(title, length=14, *, start=True):
    """A user's text as it is drawn: one line, no wider than its image.

    Args:
      title: any text.
      length: largest number of characters.
      start: whether to keep the start of a text that is too long, or its end.

    Returns:
      A string in which matplotlib finds no formula, with "\ufffd" instead of
      characters that the font lacks.
    """
    text = drawn(title)
    if len(text) > length:
        text = text[: length - 1] + "…" if start else "…" + text[1 - length :]
    return text.replace("$", r"\$")


def drawn(text):
    """A text on one line, with "\ufffd" where the font has no glyph."""
    words = "".join(
        c for c in " ".join(text.split()) if unicodedata.category(c) != "Cf"
    )
    return "".join(c if _has_glyph(c) else "\ufffd" for c in words)


def class_titles(names):
    """Names of classes to draw; names that the font lacks become numbers."""
    return [
        f"class {label}" if "\ufffd" in drawn(name) else name
        for label, name in enumerate(names)
    ]


@functools.cache
def _has_glyph(character):
    manager = _from_matplotlib("font_manager")
    font = manager.get_font(manager.findfont(manager.FontProperties()))
    return font.get_char_index(ord(character)) != 0


def _from_matplotlib(module):
    """A module of matplotlib.

    Raises:
      ImportError: if it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ImportError as error:
        raise ImportError(
            "Figures are drawn with matplotlib, which is not installed: "
            "pip install 'meta-pseudo-labels[figures]'."
        ) from error


def figure(*, width, height):
    """An empty figure that needs no display.

    Args:
      width, height: in inches, of DOTS_PER_INCH dots.

    Returns:
      A `matplotlib.figure.Figure`, laid out again whenever it is saved.

    Raises:
      ImportError: matplotlib is not installed.
    """
    return _from_matplotlib("figure").Figure(
        figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained"
    )


def _draw_panel(axes, panel, histories):
    """Draws the methods that have one of panel.scalars: method -> line."""
    axes.set_title(panel.title, loc="left", color=INK, fontsize=12)
    axes.set_xlabel("step", color=FADED)
    axes.tick_params(colors=FADED, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.spines[:].set_visible(False)
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    if panel.percent:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    lines = {}
    for color, (method, rows) in zip(
        itertools.cycle(COLORS), histories.items(), strict=False
    ):
        logged = set(itertools.chain.from_iterable(rows))
        name = next(filter(logged.__contains__, panel.scalars), None)
        if name is not None:
            lines[method] = _draw_curve(axes, rows, name, color)
    return lines


def _draw_curve(axes, rows, name, color):
    points = sorted((row["step"], row[name]) for row in rows if name in row)
    steps, values = np.transpose(points)
    if len(points) > MANY_POINTS:
        axes.plot(steps, values, color=color, alpha=0.2, linewidth=0.8)
        values = _moving_average(values, width=len(points) // 20)
    marker = "o" if len(points) <= FEW_POINTS else None
    (line,) = axes.plot(
        steps, values, color=color, linewidth=2, marker=marker, markersize=4
    )
    return line


def _moving_average(values, *, width):
    """Mean over `width` neighbors, or at the ends over those that exist."""
    window = np.ones(width)
    total = np.convolve(values, window, mode="same")
    return total / np.convolve(np.ones_like(values), window, mode="same")


def _show(axes, image, *, frame):
    """Shows an image in a frame, without ticks; small ones unsmoothed."""
    interpolation = "nearest" if max(image.shape[:2]) <= 64 else "antialiased"
    axes.imshow(image, interpolation=interpolation)
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=frame, linewidth=3 if frame == WRONG else 1)


def _same_lengths(**arrays):
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(
            f"Give one or more images, the same number of each; got {lengths}."
        )
