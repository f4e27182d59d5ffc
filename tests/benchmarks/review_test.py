"""The figures of docs/review.md, from rows."""

import numpy as np
import pytest

from benchmarks.review.run import recall, rows, table

MACHINE = {
    "cpu": "abacus",
    "cores": 7,
    "tensorflow": "2",
    "keras": "3",
    "date": "today",
    "revision": "abc",
}


def test_recall_is_of_the_wrong_labels_among_the_first():
    wrong = np.array([True, False, False, True, False, False])
    order = np.array([3, 1, 0, 2, 4, 5])
    assert recall(wrong, order, 0.15) == 0.5  # One image, rounded up.
    assert recall(wrong, order, 0.34) == 1.0


def test_the_table_has_what_was_measured_alone():
    found = [
        {"what": "wrong labels", "seed": seed, "recall": value}
        | {"machine": MACHINE}
        for seed, value in enumerate([0.5, 0.5, 0.5, 1.0, 1.0])
    ]
    text = table(found)
    # Student's t of five values: 2.776 * root(0.075 / 5).
    assert "| 0.700 | 0.360 to 1.040 | 5 |" in text
    assert "accuracy" not in text and "abacus, 7 cores" in text
    found.append(
        {"what": "to label", "seed": 0, "machine": MACHINE}
        | {"before": 0.5, "random": 0.625, "review": 0.75}
    )
    assert "paired | 0.125 | – | 1 |" in table(found)


@pytest.mark.parametrize("row", rows())
def test_rows_are_shares(row):
    keys = {"recall", "before", "random", "review"} & set(row)
    assert keys and all(0 <= row[key] <= 1 for key in keys)
