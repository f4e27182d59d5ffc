"""The audit of implementations: each estimator by hand, and its table."""

import importlib
import json
import types

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.audit import accuracy, table
from benchmarks.controls import rows as control_rows
from meta_pseudo_labels.learners.feedback import release, resolve
from tests.benchmarks.controls.made_up import row
from tests.scripts import run_script

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.3, 0.1, 0.6]])
ARGMAX = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
SLOPES = np.array([[0.5, -0.2, 0.1], [-0.3, 0.4, 0.2]])
CROSS_ENTROPY = -(np.log(0.7) + np.log(0.6)) / 2
ENTROPY = -np.sum(PROBABILITIES * np.log(PROBABILITIES), axis=1, keepdims=True)
CHANGE, CENTERED = 0.9 - 1.2, -0.08  # new - old, and less an average.
# Of each: its value, and its gradient by the teacher's logits.
EXPECTED = {
    "kekmodel": (
        CHANGE * CROSS_ENTROPY,
        CHANGE * (PROBABILITIES - ARGMAX) / 2,
    ),
    "kekmodel_detached": (CENTERED * CROSS_ENTROPY, 0 * ARGMAX),
    "kekmodel_average": (
        (CHANGE - CENTERED) * CROSS_ENTROPY,
        (CHANGE - CENTERED) * (PROBABILITIES - ARGMAX) / 2,
    ),
    "usb": (
        -CENTERED * CROSS_ENTROPY,
        -CENTERED * (PROBABILITIES - ARGMAX) / 2,
    ),
    "modssc": (
        CENTERED * ENTROPY.mean(),
        -CENTERED * PROBABILITIES * (np.log(PROBABILITIES) + ENTROPY) / 2,
    ),
    "ricoshin": (
        np.sum(SLOPES * PROBABILITIES),
        PROBABILITIES
        * (SLOPES - np.sum(SLOPES * PROBABILITIES, axis=1, keepdims=True)),
    ),
}


def value_and_gradient(function):
    """Of an estimator, on a student that improved from 1.2 to 0.9."""
    step = types.SimpleNamespace(
        labeled_loss_old=tf.constant(1.2, "float64"),
        labeled_loss_new=tf.constant(0.9, "float64"),
        dot_product=tf.constant(CENTERED, "float64"),
        label_gradient=lambda: tf.constant(SLOPES),
    )
    logits = tf.Variable(np.log(PROBABILITIES) + 0.3)
    with tf.GradientTape() as tape:
        loss = function(step, logits)
    gradient = tape.gradient(
        loss, logits, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return float(loss), gradient.numpy()


def test_estimators_by_hand(without_plugins):
    audited = importlib.import_module("benchmarks.audit.estimators")
    for name, (value, gradient) in EXPECTED.items():
        function, _ = resolve(name)  # As --mpl_feedback finds it.
        assert function is getattr(audited, name)
        found, by_logits = value_and_gradient(function)
        np.testing.assert_allclose(found, value, rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(
            by_logits, gradient, rtol=1e-12, atol=1e-15, err_msg=name
        )


def test_releases_has_a_value_and_no_gradient():
    value, gradient = value_and_gradient(release)
    np.testing.assert_allclose(value, CENTERED * ENTROPY.mean(), rtol=1e-12)
    assert np.abs(gradient).max() < 1e-16


def test_summary_tells_zero_right_reversed_and_unclear():
    random = np.random.default_rng(0)
    true = random.normal(size=(50, 6))
    noise = random.normal(size=(50, 6))
    gradients = {
        "nothing": 1e-17 * true,
        "same": 3 * true,
        "against": noise - true,
        "noise": noise,
    }
    rows = table.summary(
        {n: [*zip(g, true, strict=True)] for n, g in gradients.items()}
    )
    assert [table.sign(row) for row in rows] == [
        "",
        "right",
        "reversed",
        "unclear",
    ]
    np.testing.assert_allclose(rows[1]["cosine"], 1)
    low, high = rows[2]["interval"]
    assert low < rows[2]["cosine"] < high < 0
    # A student that learned nothing has no truth to compare with.
    pairs = [*zip(true[:3], true[:3] * [[1], [0], [1]], strict=True)]
    assert table.summary({"a": pairs})[0]["draws"] == 2


def test_the_page_has_the_tables_of_the_rows():
    report = json.loads(table.ROWS.read_text())
    page = table.DOCUMENT.read_text()
    assert table.with_part(page, "audit", table.table(report)) == page
    rows = control_rows.read(accuracy.ROWS)
    assert table.with_part(page, "accuracy", accuracy.table(rows)) == page
    signs = {row["name"]: table.sign(row) for row in report["rows"]}
    zero = {name for name, sign in signs.items() if not sign}
    assert zero == {"release", "kekmodel_detached"}
    assert signs["exact"] == signs["ricoshin"] == "right"


def test_accuracies_are_compared_with_a_control_of_the_same_labels():
    facts = dict(
        model="wrn-10-1",
        steps=3000,
        date="2026-11-30",
        revision="abc",
        versions=dict(tensorflow="2.21.0", keras="3.15.1"),
    )
    means = {
        "mpl off": 0.80,
        "mpl off, hard labels": 0.70,
        "mpl kekmodel": 0.60,
        "mpl usb": 0.82,
    }
    rows = [
        row(run, seed=seed, accuracy=mean + 0.01 * seed, **facts)
        for run, mean in means.items()
        for seed in (0, 1)
    ]
    unseen = [one | {"split": "validation", "accuracy": 0.1} for one in rows]
    text = accuracy.table(rows + unseen)
    mine = "| mpl kekmodel | 2 | 50.00 ± 0.00 | 60.50 ± 0.71 |  "
    assert f"{mine}| mpl off, hard labels | -10.00 |" in text
    mine = "| mpl usb | 2 | 50.00 ± 0.00 | 82.50 ± 0.71 |  "
    assert f"{mine}| mpl off | +2.00 |" in text
    assert text.endswith("2026-11-30; code at abc.\n")


@pytest.mark.long
def test_exact_is_the_finite_differences(tmp_path):
    path = tmp_path / "audit.json"
    result = run_script("benchmarks.audit.run", "--draws=3", f"--json={path}")
    assert result.returncode == 0, result.stderr[-2000:]
    rows = {row["name"]: row for row in json.loads(path.read_text())["rows"]}
    for name in ("exact", "ricoshin"):
        assert rows[name]["cosine"] > 1 - 1e-6
        np.testing.assert_allclose(rows[name]["largest_ratio"], 1, rtol=1e-4)
    for name in ("release", "kekmodel_detached"):
        assert rows[name]["cosine"] is None
    assert rows["usb"]["cosine"] != 0
