"""Confusion matrices and reliability diagrams, by their pixels."""

import numpy as np
import pytest
from matplotlib.image import imread

from meta_pseudo_labels.evaluation.figures import (
    confusion_sheet,
    reliability_sheet,
)
from meta_pseudo_labels.evaluation.metrics import evaluate_probabilities
from meta_pseudo_labels.utils import figures


def evaluation(right, total=20, *, classes=3, confidence=0.8):
    """So many images right, of total; all with the same confidence."""
    labels = np.arange(total) % classes
    said = np.where(np.arange(total) < right, labels, (labels + 1) % classes)
    rest = (1 - confidence) / (classes - 1)
    rows = np.full([total, classes], rest)
    rows[np.arange(total), said] = confidence
    return evaluate_probabilities(rows, labels)


def pixels(path):
    return np.rint(imread(path)[..., :3] * 255).astype(int)


def share_of(path, color):
    """How much of the picture has the color, "#rrggbb"."""
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.all(pixels(path) == rgb, axis=-1).mean()


def is_dark_blue(path):
    image = pixels(path)
    return (image[..., 2] > 90) & (image[..., 0] < 30)


def test_the_diagonal_is_dark_where_all_is_right(tmp_path):
    confusion_sheet({"student": evaluation(20)}, tmp_path / "right.png")
    confusion_sheet({"student": evaluation(0)}, tmp_path / "wrong.png")
    dark = is_dark_blue(tmp_path / "right.png")
    # Three of nine cells; the numbers are in white.
    assert 0.15 < dark.mean() < 0.33
    # The first class's cell is above and left of the last one's.
    rows, columns = np.nonzero(dark)
    assert np.corrcoef(rows, columns)[0, 1] > 0.8
    rows, columns = np.nonzero(is_dark_blue(tmp_path / "wrong.png"))
    assert np.corrcoef(rows, columns)[0, 1] < 0.2


@pytest.mark.fast("40")
@pytest.mark.parametrize("classes", [2, 40])
def test_any_number_of_classes_and_networks(tmp_path, classes):
    one = evaluation(60, 60, classes=classes)
    widths = []
    for networks in ({"a": one}, {"a": one, "b": one}):
        for draw in (confusion_sheet, reliability_sheet):
            draw(networks, tmp_path / "sheet.png")
            image = pixels(tmp_path / "sheet.png")
            assert image.std() > 20  # Not empty.
        widths.append(image.shape[1])
    assert widths[1] > 1.8 * widths[0]


def test_bars_are_as_high_as_the_accuracy(tmp_path):
    shares = []
    for right in (5, 15):
        path = tmp_path / "sheet.png"
        reliability_sheet({"student": evaluation(right)}, path)
        shares.append(share_of(path, figures.COLORS[0]))
    assert shares[1] == pytest.approx(3 * shares[0], rel=0.1)


def test_a_class_without_images_is_drawn(tmp_path):
    rows = np.array([[0.9, 0.1, 0.0]])
    found = evaluate_probabilities(rows, np.array([0]))
    confusion_sheet({"student": found}, tmp_path / "sheet.png")
    assert 0.05 < is_dark_blue(tmp_path / "sheet.png").mean() < 0.12
