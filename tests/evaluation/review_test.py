"""Rankings of a review, worked by hand on small arrays."""

import keras
import numpy as np
import pytest

from meta_pseudo_labels.data.spec import DatasetSpec
from meta_pseudo_labels.evaluation.review import (
    doubts,
    leave_one_out,
    look,
    next_to_label,
    uncertainty,
)


def test_leaving_one_out_is_what_fitting_without_it_gives():
    random = np.random.RandomState(0)
    x, labels = random.normal(size=(9, 3)), np.arange(9) % 3
    found = leave_one_out(x, labels, 3)
    # By hand: the same penalty, mean and images, the fifth left out.
    centered = x - x.mean(axis=0)
    penalty = 0.1 * np.square(centered).sum() / 9
    rows = np.hstack([centered, np.ones([9, 1])])
    rest = np.delete(np.arange(9), 4)
    weights = np.linalg.solve(
        rows[rest].T @ rows[rest] + penalty * np.diag([1, 1, 1, 0]),
        rows[rest].T @ np.eye(3)[labels[rest]],
    )
    np.testing.assert_allclose(found[4], rows[4] @ weights, rtol=1e-6)


def test_a_label_among_those_of_another_class_is_doubted_most():
    x = np.repeat([[1.0, 0.0], [0.0, 1.0]], 4, axis=0)
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    others = leave_one_out(x, labels, 2)
    doubt, suggested, _ = doubts(np.full([8, 2], 0.5), others, labels)
    assert doubt.argmax() == 3 and suggested[3] == 0
    assert (doubt >= 0).all() and (doubt <= 1).all()


def test_doubt_is_what_networks_and_neighbors_leave_of_a_label():
    # Of the networks 0.9 and 0.2, of the neighbors 3/4 and 0 of 1.
    doubt, suggested, odds = doubts(
        np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]]),
        np.array([[0.6, 0.2, -1.0], [0.0, 1.0, 0.0]]),
        np.array([0, 0]),
    )
    np.testing.assert_allclose(doubt, [1 - 0.825, 1 - 0.1], atol=1e-9)
    assert suggested.tolist() == [1, 1]
    np.testing.assert_allclose(
        odds, [[0.825, 0.175, 0], [0.1, 0.65, 0.25]], atol=1e-9
    )


def test_uncertainty_is_entropy_and_what_networks_disagree_by():
    student = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    teacher = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    total, disagreement = uncertainty(student, teacher)
    np.testing.assert_allclose(total, np.log(2) * np.array([1, 1, 0]))
    np.testing.assert_allclose(
        disagreement, np.log(2) * np.array([1, 0, 0]), atol=1e-12
    )
    alone, none = uncertainty(student)
    np.testing.assert_allclose(alone, np.log(2) * np.array([0, 1, 0]))
    assert not none.any()


def test_what_is_labeled_next_is_uncertain_and_unlike_the_rest():
    features = np.array([[0.0], [3.0], [3.1], [1.0]])
    scores = np.array([9.0, 1.0, 1.0, 2.0])
    # The first is labeled; then 3.1 * 1 wins against 1 * 2, and of the rest
    # min(1, 2.1) * 2 against 0.1 * 1.
    found = next_to_label(scores, features, np.array([[0.0]]), 3)
    assert found.tolist() == [2, 3, 1]


def test_as_many_are_chosen_as_there_are():
    assert len(next_to_label([], np.zeros([0, 2]), np.zeros([1, 2]), 5)) == 0
    same = next_to_label([1, 1], np.zeros([2, 2]), np.zeros([0, 2]), 5)
    assert sorted(same) == [0, 1]


@pytest.mark.parametrize("flat", [True, False])
def test_a_network_is_looked_at_before_its_last_layer(flat):
    inputs = keras.Input([2, 2, 3])
    x = keras.layers.Flatten()(inputs)
    x = keras.layers.Dense(5)(x)
    if flat:
        x = keras.layers.Dense(2)(x)
    else:
        x = keras.layers.Reshape([5, 1])(x)
        x = keras.layers.GlobalMaxPooling1D(data_format="channels_first")(x)
    spec = DatasetSpec(
        name="arrays",
        num_classes=2 if flat else 5,
        image_size=2,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        flip=True,
    )
    network = keras.Model(inputs, x)
    images = np.arange(36, dtype=np.uint8).reshape(3, 2, 2, 3)
    probabilities, features = look(network, images, spec, batch_size=2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1)
    assert features.shape == (3, 5)
    none = look(network, images[:0], spec, batch_size=2)
    assert [len(rows) for rows in none] == [0, 0]


def test_many_networks_are_not_taken_for_one_that_is_retraced(
    tensorflow_log, monkeypatch
):
    """TensorFlow warned of "5 out of the last 5 calls" at the fifth."""
    # It does so twice in a process, so that earlier tests may use that up.
    monkeypatch.setattr(keras.Model, "predict", None)
    images = np.zeros([3, 4, 4, 3], np.uint8)
    spec = DatasetSpec(
        name="made",
        num_classes=2,
        image_size=4,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        flip=False,
    )
    for _ in range(8):
        inputs = keras.Input([4, 4, 3])
        logits = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
        look(keras.Model(inputs, logits), images, spec, batch_size=2)
    assert "retracing" not in tensorflow_log.text
