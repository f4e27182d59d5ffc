import json
import sys
import types

import numpy as np
import pytest
from matplotlib.image import imread

from meta_pseudo_labels import data
from meta_pseudo_labels.data import inspection


def arrays(labels=(0, 0, 1), *, num_classes=3, unlabeled=2, size=8):
    """Labeled images of level 51, unlabeled ones of 153, two test images."""
    labels = np.array(labels, np.int32)

    def images(count, level):
        return np.full([count, size, size, 3], level, np.uint8)

    return data.from_arrays(
        images(len(labels), 51),
        labels,
        images(unlabeled, 153),
        test_images=images(2, 0),
        test_labels=np.array([1, 1], np.int32),
        num_classes=num_classes,
        mean=(0.1, 0.2, 0.3),
        class_names=[f"class {label}" for label in range(num_classes)],
    )


def test_counts_classes_and_shape_by_hand():
    summary = inspection.inspect(arrays())
    assert summary["counts"] == {"labeled": 3, "unlabeled": 2, "test": 2}
    assert summary["image_shape"] == [8, 8, 3]
    assert summary["classes"] == [
        {"label": 0, "name": "class 0", "labeled": 2, "test": 0},
        {"label": 1, "name": "class 1", "labeled": 1, "test": 2},
        {"label": 2, "name": "class 2", "labeled": 0, "test": 0},
    ]


def test_held_out_and_wrong_labels_are_counted():
    """Of six images with labels two are held out; three labels are wrong."""
    labels = (0, 0, 1, 1, 2, 2)
    spoilt = data.spoil_labels(arrays(labels), 0.5, seed=0)
    held = data.hold_out(spoilt, 2, seed=0)
    summary = inspection.inspect(held)
    # Here all labeled images look alike, but none like the unlabeled ones.
    assert summary["counts"] == {
        "labeled": 4,
        "feedback": 2,
        "unlabeled": 2,
        "test": 2,
    }
    assert summary["wrong_labels"] == 3
    assert [row["feedback"] for row in summary["classes"]] == np.bincount(
        held.feedback_labels, minlength=3
    ).tolist()
    lines = inspection.as_text(summary).splitlines()
    assert lines[1] == "images: 4 labeled, 2 feedback, 2 unlabeled, 2 test"
    assert lines[2] == "3 labels were made wrong, as --label_noise asks"
    assert json.loads(json.dumps(summary)) == summary


def test_statistics_are_those_of_labeled_and_unlabeled_pixels():
    summary = inspection.inspect(arrays())
    # Three images of 0.2 and two of 0.6; the black test images do not count.
    np.testing.assert_allclose(summary["mean"], [0.36] * 3)
    np.testing.assert_allclose(summary["std"], [0.4 * 0.24**0.5] * 3)
    assert summary["normalized_with"]["mean"] == [0.1, 0.2, 0.3]


def test_summary_is_json():
    summary = inspection.inspect(arrays())
    assert json.loads(json.dumps(summary)) == summary


def test_digits_are_what_their_table_says():
    summary = inspection.inspect(data.load("digits", num_labeled=40, seed=0))
    assert summary["counts"]["labeled"] == 40
    assert {row["labeled"] for row in summary["classes"]} == {4}
    used = summary["normalized_with"]
    np.testing.assert_allclose(summary["mean"], used["mean"], atol=1e-4)
    np.testing.assert_allclose(summary["std"], used["std"], atol=1e-4)


def text(**changes):
    return inspection.as_text(inspection.inspect(arrays()) | changes)


def test_text_shows_each_class_with_a_bar():
    lines = text().splitlines()
    assert lines[0] == "arrays: 3 classes, images of 8 x 8 pixels"
    assert lines[1] == "images: 3 labeled, 2 unlabeled, 2 test"
    assert lines[5].split() == ["0", "class", "0", "2", "0", "#" * 20]
    assert lines[6].split() == ["1", "class", "1", "1", "2", "#" * 10]
    assert lines[7].split() == ["2", "class", "2", "0", "0"]


def test_text_shows_measured_and_used_statistics():
    (red,) = [line for line in text().splitlines() if line.startswith("red")]
    assert red.split() == ["red", "0.3600", "0.1000", "0.1960", "0.5000"]


def test_text_names_classes_without_images():
    lines = text().splitlines()
    after = lines.index("labeled images of a class: 0 to 2")
    assert lines[after + 1].strip() == "none of: 2"
    after = lines.index("test images of a class: 0 to 2")
    assert lines[after + 1].strip() == "none of: 0, 2"


def test_text_of_many_classes_is_short():
    summary = inspection.inspect(arrays([0] * 3, num_classes=1_000))
    got = inspection.as_text(summary)
    assert "... and 970 more classes" in got
    assert "none of: 1, 2, 3, 4, 5 and 994 more" in got
    assert len(got.splitlines()) < 60


@pytest.mark.parametrize(("most", "warns"), [(2, False), (3, True)])
def test_text_warns_of_uneven_classes_and_names_the_flag(most, warns):
    got = inspection.as_text(inspection.inspect(arrays([0] * most + [1])))
    assert ("--class_weight=balanced" in got) == warns
    assert ("--label_sampling=balanced" in got) == warns
    assert ("has up to 3 times the labels of another" in got) == warns


def test_text_says_what_was_skipped():
    assert "no file was skipped" in text()
    assert "1 file was skipped: a.jpg" in text(skipped=["a.jpg"])
    names = [f"{number}.jpg" for number in range(1_007)]
    got = text(skipped=names)
    assert "1,007 files were skipped: 0.jpg, 1.jpg" in got
    assert "4.jpg and 1,002 more\n" in got


def test_classes_take_turns_on_the_sheet():
    labels = [5, 5, 5, 2, 2, 9]
    for count, want in (
        (1, [2]),
        (3, [2, 5, 9]),
        (4, [2, 2, 5, 9]),
        (5, [2, 2, 5, 5, 9]),
        (9, [2, 2, 5, 5, 5, 9]),
    ):
        places = inspection._by_class(labels, count)
        assert np.take(labels, places).tolist() == want
    # The first ones of each class.
    assert inspection._by_class(labels, 3).tolist() == [3, 0, 5]


def draw(path, seed=0, **settings):
    digits = data.load("digits", num_labeled=40, seed=0)
    inspection.draw_views(digits, path, magnitude=10, seed=seed, **settings)
    return imread(path)


@pytest.mark.long
def test_sheet_is_the_same_for_the_same_seed(tmp_path):
    one, again, other = (
        draw(tmp_path / "views.png", seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert one.shape == other.shape and np.any(one != other)


def test_sheet_shows_what_training_reads(tmp_path, monkeypatch):
    """Weak and strong views go to the sheet, in rows of their own."""
    drawn = {}
    monkeypatch.setattr(
        inspection.figures,
        "view_sheet",
        lambda path, **views: drawn.update(views),
    )
    digits = data.load("digits", num_labeled=40, seed=0)
    inspection.draw_views(
        digits, tmp_path / "x.png", magnitude=10, seed=0, columns=20
    )
    assert drawn["titles"] == [str(label // 2) for label in range(20)]
    assert all(len(views) == 20 for views in drawn.values())
    known = {image.tobytes() for image in digits.labeled_images}
    assert all(image.tobytes() in known for image in drawn["original"])

    # Digits have no mirror image: a weak view is a shift by a pixel or none.
    padded = np.pad(drawn["original"], [(0, 0), (1, 1), (1, 1), (0, 0)])
    shifts = [
        padded[:, top : top + 8, left : left + 8]
        for top in range(3)
        for left in range(3)
    ]

    def shifted(name):
        """The share of images that are no more than shifted."""
        same = [np.all(drawn[name] == x, axis=(1, 2, 3)) for x in shifts]
        return np.mean(np.any(same, axis=0))

    assert shifted("weak") == 1
    assert shifted("strong") < 0.2
    assert np.any(drawn["weak"] != drawn["original"])


def sheet(tmp_path, monkeypatch, **settings):
    """The images that go to the sheet of digits, by row."""
    drawn = {}
    monkeypatch.setattr(
        inspection.figures,
        "view_sheet",
        lambda path, titles, **rows: drawn.update(rows),
    )
    digits = data.load("digits", num_labeled=40, seed=0)
    inspection.draw_views(
        digits, tmp_path, **dict(magnitude=10, seed=0, columns=20) | settings
    )
    return drawn


@pytest.mark.long
def test_sheet_heeds_the_policy(tmp_path, monkeypatch):
    ours = sheet(tmp_path, monkeypatch)
    theirs = sheet(tmp_path, monkeypatch, policy="keras_cv")
    np.testing.assert_array_equal(theirs["weak"], ours["weak"])
    assert np.any(theirs["strong"] != ours["strong"])


def test_sheet_shows_strong_views_of_labeled_images(tmp_path, monkeypatch):
    """Without the second crop; with no operation and no cutout they are weak.

    At magnitude 0 some operations still change an image, most do not.
    """
    assert sheet(tmp_path, monkeypatch).keys() == {"original", "weak", "strong"}
    drawn = sheet(
        tmp_path, monkeypatch, augment_labeled=True, magnitude=0, cutout_share=0
    )

    def weak(name):
        return np.mean(np.all(drawn[name] == drawn["weak"], axis=(1, 2, 3)))

    assert weak("labeled") > weak("strong") + 0.2


@pytest.mark.long
def test_four_rows_fit_on_a_sheet(tmp_path):
    heights = [
        draw(tmp_path / "views.png", augment_labeled=labeled).shape[0]
        for labeled in (False, True)
    ]
    assert heights[1] == pytest.approx(heights[0] * 4.6 / 3.5, rel=0.01)


@pytest.mark.parametrize(
    ("counted", "names", "want"),
    [
        (0, (), None),
        (None, (), None),
        (None, ("a.jpg",), "1 file was skipped: a.jpg"),
        (1_234, (), "1,234 reads met a damaged record"),
    ],
)
def test_what_was_skipped_in_a_line(counted, names, want):
    seen = types.SimpleNamespace(skipped=names, skip_counter=counted)
    assert inspection.skip_summary(seen) == want


def test_sheet_of_one_image(tmp_path):
    assert draw(tmp_path / "views.png", columns=1).shape[0] > 100


@pytest.mark.parametrize("columns", [0, 21])
def test_sheet_refuses_too_many_columns(tmp_path, columns):
    with pytest.raises(ValueError, match=f"columns is {columns}"):
        draw(tmp_path / "views.png", columns=columns)


def test_inspection_does_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "3 classes" in text()
    with pytest.raises(ImportError, match=r"pip install .*\[figures\]"):
        draw(tmp_path / "views.png")
