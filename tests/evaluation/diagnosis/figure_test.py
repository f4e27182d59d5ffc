import numpy as np
import pytest
from matplotlib.image import imread

from meta_pseudo_labels.evaluation.diagnosis import draw
from meta_pseudo_labels.utils import figures

# The diagnosis that is drawn takes as long as ten tests.
pytestmark = pytest.mark.long


def colored_pixels(path, color):
    pixels = np.rint(imread(path)[..., :3] * 255).astype(int)
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.all(pixels == rgb, axis=-1).sum()


def test_estimators_are_told_apart(diagnosed, tmp_path):
    """Five that speak have a color each; release and off, only a 0."""
    path = tmp_path / "diagnosis.png"
    draw(diagnosed.found, path)
    for color in figures.COLORS[:5]:
        assert colored_pixels(path, color) > 100
    assert colored_pixels(path, figures.COLORS[5]) == 0


@pytest.mark.parametrize("kept", ["exact", "reinforce"])
def test_one_estimator_alone_is_drawn(diagnosed, tmp_path, kept):
    found = dict(diagnosed.found)
    for part in ("estimators", "teacher_steps"):
        found[part] = {kept: found[part][kept]}
    path = tmp_path / "diagnosis.png"
    draw(found, path)
    assert colored_pixels(path, figures.COLORS[0]) > 100
    assert colored_pixels(path, figures.COLORS[1]) == 0
