import re
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.image import imread

from meta_pseudo_labels.utils import figures

NAMES = ("cat", "dog", "owl")


def colored_pixels(path, color):
    """How many pixels of the PNG file have the color, "#rrggbb"."""
    pixels = np.rint(imread(path)[..., :3] * 255).astype(int)
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.all(pixels == rgb, axis=-1).sum()


def history(scalar, values):
    return [{"step": 10 * i, scalar: v} for i, v in enumerate(values)]


def gray_images(number, size=8):
    return np.full([number, size, size, 3], 128, np.uint8)


def test_curves_draw_every_method_in_its_color(tmp_path):
    histories = {
        "supervised": history("eval/accuracy", [0.1, 0.5])
        + history("eval/loss", np.linspace(2, 1, 100)),
        "mpl": history("eval/accuracy", [0.1, 0.9])
        + history("eval/loss", np.linspace(2, 1, 100)),
    }
    figures.curves(histories, tmp_path / "curves.png")
    first, second, third = figures.COLORS[:3]
    assert colored_pixels(tmp_path / "curves.png", first) > 1000
    assert colored_pixels(tmp_path / "curves.png", second) > 1000
    assert colored_pixels(tmp_path / "curves.png", third) == 0


def test_curves_take_other_panels(tmp_path):
    panels = [figures.Panel("Feedback", ("mpl/dot_product",))]
    rows = history("mpl/dot_product", [0.0, 1.0]) + [{"step": 5}]
    figures.curves({"mpl": rows}, tmp_path / "curves.png", panels=panels)
    assert colored_pixels(tmp_path / "curves.png", figures.COLORS[0]) > 1000


def test_curves_refuse_a_panel_without_data(tmp_path):
    with pytest.raises(ValueError, match=r"No method logged.*eval/accuracy"):
        figures.curves({"mpl": [{"step": 1}]}, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_moving_average_by_hand():
    got = figures._moving_average(np.array([3.0, 6.0, 0.0, 9.0]), width=3)
    np.testing.assert_allclose(got, [4.5, 3.0, 5.0, 4.5])


def draw_predictions(path, predictions):
    number = len(predictions)
    figures.prediction_sheet(
        gray_images(number),
        path,
        labels=np.zeros(number, np.int32),
        predictions=np.array(predictions),
        probabilities=np.full([number, 3], 1 / 3),
        class_names=NAMES,
    )


@pytest.mark.long
def test_prediction_sheet_marks_wrong_ones_only(tmp_path):
    wrong = []
    for count in (0, 1, 3):
        draw_predictions(
            tmp_path / "sheet.png", [1] * count + [0] * (12 - count)
        )
        wrong.append(colored_pixels(tmp_path / "sheet.png", figures.WRONG))
    assert wrong[0] == 0
    assert wrong[2] > 2.5 * wrong[1] > 1000
    images = colored_pixels(tmp_path / "sheet.png", "#808080")
    assert images > 12 * 100 * 100


def test_prediction_sheet_of_one_image(tmp_path):
    draw_predictions(tmp_path / "sheet.png", [2])
    assert colored_pixels(tmp_path / "sheet.png", "#808080") > 100 * 100


def test_view_sheet_shows_three_rows(tmp_path):
    figures.view_sheet(
        tmp_path / "views.png",
        original=gray_images(4),
        weak=gray_images(4) // 2,
        strong=gray_images(4) + 100,
    )
    for color in ("#808080", "#404040", "#e4e4e4"):
        area = colored_pixels(tmp_path / "views.png", color)
        assert area > 4 * 100 * 100


def test_view_sheet_has_titles_above_the_images(tmp_path):
    heights = []
    for titles in (None, ["cat", "a class with a very long name"]):
        path = tmp_path / "views.png"
        figures.view_sheet(
            path,
            original=gray_images(2),
            weak=gray_images(2),
            strong=gray_images(2),
            titles=titles,
        )
        gray = np.all(np.rint(imread(path)[..., :3] * 255) == 128, axis=-1)
        heights.append(np.flatnonzero(gray.any(axis=1))[0])
    assert heights[1] > heights[0] + 5
    assert figures.shortened("a class with a very long name") == (
        "a class with …"
    )


# Formulas, lines, marks, scripts without glyphs, half characters, long ones.
NAMES = [
    *("$5_to_$10", "$x^$", "$", "a$b$c\\$", "_hidden", "two\nlines\t", ""),
    *("\u732b", "\u0939\u093f\u0928", "\U0001f431", "caf\u00e9", "cafe\u0301"),
    *(
        "\u0639\u0631\u0628\u064a",
        "\udcff",
        "\x00\x1b[1m",
        "\u200b\u202e",
        "x" * 999,
    ),
]


@pytest.mark.long
def test_any_name_can_be_drawn(tmp_path):
    """Warnings are errors here, as those of glyphs that a font lacks."""
    images = gray_images(len(NAMES))
    path = tmp_path / "any.png"
    figures.view_sheet(
        path, original=images, weak=images, strong=images, titles=NAMES
    )
    for wrong in (0, 1):
        figures.prediction_sheet(
            images,
            path,
            labels=np.arange(len(NAMES)),
            predictions=(np.arange(len(NAMES)) + wrong) % len(NAMES),
            probabilities=np.eye(len(NAMES)),
            class_names=NAMES,
        )
    pairs = [(name, name) for name in NAMES]
    figures.pair_sheet(path, above=images, below=images, titles=pairs)
    figures.curves(
        {name: [{"step": 1, "eval/accuracy": 0.5}] for name in NAMES},
        path,
        panels=figures.PANELS[:1],
    )
    assert path.stat().st_size > 1_000


def test_a_name_is_drawn_as_it_is_written():
    """A dollar too: not as the start of a formula."""
    from matplotlib.figure import Figure

    text = Figure().text(0, 0, figures.shortened("$5_to_$10"))
    assert text._preprocess_math(text.get_text()) == ("$5_to_$10", False)
    assert figures.shortened("two\nlines") == "two lines"
    assert figures.shortened("0123456789", 5, start=False) == "…6789"


def test_classes_that_the_font_lacks_go_by_their_number():
    names = ["cat", "\u732b", "\U0001f9c1 cake", "caf\u00e9", "\u00df"]
    want = ["cat", "class 1", "class 2", "caf\u00e9", "\u00df"]
    assert figures.class_titles(names) == want


def test_sheets_refuse_unequal_or_no_images(tmp_path):
    with pytest.raises(ValueError, match="'original': 2, 'weak': 1"):
        figures.view_sheet(
            tmp_path / "views.png",
            original=gray_images(2),
            weak=gray_images(1),
            strong=gray_images(2),
        )
    with pytest.raises(ValueError, match="'titles': 1"):
        figures.view_sheet(
            tmp_path / "views.png",
            original=gray_images(2),
            weak=gray_images(2),
            strong=gray_images(2),
            titles=["cat"],
        )
    with pytest.raises(ValueError, match="one or more images"):
        draw_predictions(tmp_path / "sheet.png", [])


def test_says_which_extra_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    extra = re.escape("pip install 'meta-pseudo-labels[figures]'")
    with pytest.raises(ImportError, match=extra):
        draw_predictions(tmp_path / "sheet.png", [0])


def test_the_package_does_without_matplotlib():
    program = """
import sys
sys.modules["matplotlib"] = None
import meta_pseudo_labels
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_figures_leave_pyplot_alone(tmp_path):
    panels = [figures.Panel("Loss", ("loss",))]
    rows = {"mpl": [{"step": 0, "loss": 1.0}]}
    figures.curves(rows, tmp_path / "curves.png", panels=panels)
    assert (tmp_path / "curves.png").exists()
    assert pyplot.get_fignums() == []
