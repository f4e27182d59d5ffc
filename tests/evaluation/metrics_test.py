"""Metrics of class distributions, by hand."""

import json
import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from meta_pseudo_labels.evaluation.metrics import (
    Mistake,
    calibrate,
    evaluate_probabilities,
)

# Said: 0; 1; 0, for the first of equals counts; 2. No image is of class 2.
PROBABILITIES = np.array(
    [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.4, 0.4, 0.2], [0.2, 0.2, 0.6]]
)
LABELS = np.array([0, 1, 1, 0])


@pytest.fixture(scope="module")
def small():
    return evaluate_probabilities(
        PROBABILITIES, LABELS, class_names=("ant", "bee", "cow")
    )


def test_accuracy_and_likelihood(small):
    assert small.images == 4
    assert small.top_1 == 0.5
    logs = [math.log(p) for p in (0.7, 0.6, 0.4, 0.2)]
    assert small.nll == pytest.approx(-sum(logs) / 4)


def test_classes(small):
    """Class 2 has no image, so no recall; it is said once, wrongly."""
    assert small.confusion.tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert small.support.tolist() == [2, 2, 0]
    np.testing.assert_allclose(small.precision, [0.5, 1, 0])
    np.testing.assert_allclose(small.recall, [0.5, 0.5, np.nan])
    np.testing.assert_allclose(small.f1, [0.5, 2 / 3, 0])
    # Over the two classes that have images.
    assert small.macro == pytest.approx(
        {"precision": 0.75, "recall": 0.5, "f1": 7 / 12}
    )


def test_a_class_that_is_never_said_has_no_precision():
    sure = np.eye(3)[[0, 0, 0]]
    found = evaluate_probabilities(sure, np.array([0, 1, 0]))
    np.testing.assert_allclose(found.precision, [2 / 3, np.nan, np.nan])
    np.testing.assert_allclose(found.recall, [1, 0, np.nan])
    np.testing.assert_allclose(found.f1, [0.8, 0, np.nan])
    assert found.macro["precision"] == pytest.approx(1 / 3)
    assert found.class_names == ("0", "1", "2")


def test_calibration_by_hand(small):
    """0.4 and 0.6 are edges, of the bins below: (5/15, 6/15], (8/15, 9/15]."""
    calibration = small.calibration
    assert np.flatnonzero(calibration.images).tolist() == [5, 8, 10]
    assert calibration.images[[5, 8, 10]].tolist() == [1, 2, 1]
    np.testing.assert_allclose(
        calibration.confidence[[5, 8, 10]], [0.4, 0.6, 0.7]
    )
    np.testing.assert_allclose(calibration.accuracy[[5, 8, 10]], [0, 0.5, 1])
    assert np.isnan(calibration.accuracy[0])
    assert small.ece == pytest.approx((0.4 + 2 * 0.1 + 0.3) / 4)


def test_calibration_has_the_bins_of_scikit_learn():
    random = np.random.default_rng(0)
    confidences = np.concatenate([random.random(200), np.arange(16) / 15])
    right = random.random(216) < confidences
    found = calibrate(confidences, right)
    accuracy, confidence = calibration_curve(right, confidences, n_bins=15)
    filled = found.images > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    np.testing.assert_allclose(found.confidence[filled], confidence)
    assert found.images.sum() == 216


def test_a_calibrated_network_has_no_calibration_error():
    """Half right where it says one half, always right where it is sure."""
    rows = [[0.5, 0.5]] * 2 + [[1.0, 0.0]] * 2
    found = evaluate_probabilities(np.array(rows), np.array([0, 1, 0, 0]))
    assert found.ece == 0
    assert found.top_1 == 0.75


def test_top_5_needs_more_than_five_classes(small):
    assert small.top_5 is None
    rows = np.array([[0.3, 0.2, 0.16, 0.14, 0.12, 0.08]] * 3)
    found = evaluate_probabilities(rows, np.array([0, 4, 5]))
    assert found.top_1 == pytest.approx(1 / 3)
    assert found.top_5 == pytest.approx(2 / 3)
    assert (
        evaluate_probabilities(rows[:, :5] / 0.92, np.array([0, 4, 1])).top_5
        is None
    )


def test_of_equally_probable_classes_the_first_count():
    """In top-1 and in top-5, which so is never the lower one."""
    rows = np.full([7, 7], 1 / 7)
    found = evaluate_probabilities(rows, np.arange(7))
    assert found.top_1 == pytest.approx(1 / 7)
    assert found.top_5 == pytest.approx(5 / 7)
    assert evaluate_probabilities(rows[:1], np.array([0])).top_5 == 1
    assert evaluate_probabilities(rows[:1], np.array([6])).top_5 == 0


def test_what_was_held_impossible_costs_a_finite_number():
    found = evaluate_probabilities(np.eye(3), np.array([1, 1, 2]))
    assert found.nll == pytest.approx(-math.log(2.0**-52) / 3)
    assert found.ece == pytest.approx(1 / 3)


def test_rows_of_float32_are_distributions_too():
    rows = np.float32([[0.1] * 10])
    found = evaluate_probabilities(rows, np.array([3]))
    assert found.nll == pytest.approx(math.log(10))


@pytest.mark.filterwarnings("ignore:A single label")
def test_the_only_class_is_no_riddle():
    found = evaluate_probabilities(np.ones([2, 1]), np.array([0, 0]))
    assert (found.top_1, found.nll, found.ece) == (1, 0, 0)


def test_json_has_null_where_there_is_no_number(small):
    content = small.to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["classes"][2] == {
        "class": "cow",
        "precision": 0.0,
        "recall": None,
        "f1": 0.0,
        "support": 0,
    }
    assert content["top_5"] is None
    assert content["ece"] == pytest.approx(0.225)
    assert content["chance"] == 0.5
    assert content["confusion"] == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert len(content["calibration"]) == 15
    assert content["calibration"][0] == {
        "images": 0,
        "confidence": None,
        "accuracy": None,
    }


def test_mistakes_come_by_confidence_and_right_ones_not_at_all():
    """Of equally confident ones the first; twelve at most."""
    rows = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.4, 0.6]])
    labels = np.array([1, 0, 0, 0])
    assert evaluate_probabilities(rows, labels).mistakes == (
        Mistake(image=0, label=1, predicted=0, confidence=0.9),
        Mistake(image=1, label=0, predicted=1, confidence=0.6),
        Mistake(image=3, label=0, predicted=1, confidence=0.6),
    )
    many = evaluate_probabilities(np.tile(rows, [9, 1]), np.tile(labels, 9))
    assert [m.confidence for m in many.mistakes] == [0.9] * 9 + [0.6] * 3


@pytest.mark.parametrize(
    ("rows", "labels", "names", "words"),
    [
        (np.eye(3), [0, 1, 3], (), "labels range from 0 to 3, but"),
        (np.eye(3), [-1, 1, 2], (), "labels range from -1 to 2"),
        (np.eye(3), [0, 1], (), r"shape \[3, 3\] and labels \[2\]"),
        (np.eye(3), [0.0, 1.0, 2.0], (), "labels have type float64"),
        (np.eye(3), [0, 1, 2], ("ant", "bee"), "2 entries for 3 classes"),
        (np.zeros([0, 3]), [], (), "no images"),
        (np.eye(3) * 2, [0, 1, 2], (), r"softmax\(logits\)"),
        (np.full([1, 2], np.nan), [0], (), r"softmax\(logits\)"),
        (np.array([[1.5, -0.5]]), [0], (), r"softmax\(logits\)"),
    ],
)
def test_what_does_not_fit_is_refused(rows, labels, names, words):
    with pytest.raises(ValueError, match=words):
        evaluate_probabilities(rows, np.array(labels), class_names=names)
