"""Batches of inputs of any kind, with two views of the unlabeled ones."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import MetaPseudoLabels, data

LABELED, UNLABELED = 5, 12


def numbered(count, start=0):
    """[count, 2] float32: rows that tell their own number."""
    numbers = np.arange(start, start + count, dtype=np.float32)
    return np.stack([numbers, -numbers], axis=1)


def stream(**settings):
    defaults = dict(
        labeled=numbered(LABELED),
        labels=np.arange(LABELED),
        unlabeled=numbered(UNLABELED, start=100),
        strong=lambda inputs, seed: 2 * inputs,
        batch_size=2,
        unlabeled_ratio=3,
        seed=0,
    )
    return data.two_view_dataset(**defaults | settings)


def batches(count, **settings):
    return list(stream(**settings).take(count).as_numpy_iterator())


def noise(inputs, seed):
    return inputs + tf.random.stateless_normal(tf.shape(inputs), seed)


def test_every_epoch_shows_every_example_once():
    found = batches(5)
    labels = np.concatenate([batch["labels"] for batch in found])
    assert sorted(labels) == sorted([*range(LABELED)] * 2)
    assert sorted(labels[:LABELED]) == [*range(LABELED)]
    weak = np.concatenate([batch["weak"] for batch in found[:4]])[:, 0]
    assert sorted(weak[:UNLABELED]) == [*range(100, 112)]
    assert sorted(weak[UNLABELED:]) == [*range(100, 112)]
    assert weak[:UNLABELED].tolist() != weak[UNLABELED:].tolist()


def test_labels_and_views_are_of_the_same_examples():
    for batch in batches(3):
        assert set(batch) == {"labeled", "labels", "weak", "strong"}
        np.testing.assert_array_equal(batch["labeled"][:, 0], batch["labels"])
        assert batch["weak"].shape == (6, 2)
        # No weak view: the examples as they are.
        np.testing.assert_array_equal(batch["weak"][:, 1], -batch["weak"][:, 0])
        np.testing.assert_array_equal(batch["strong"], 2 * batch["weak"])


def test_the_order_is_that_of_the_image_pipelines():
    levels = np.arange(UNLABELED, dtype=np.uint8)
    images = np.tile(levels[:, None, None, None], [1, 8, 8, 3])
    problem = data.from_arrays(
        images[:LABELED], np.arange(LABELED), images, flip=False
    )
    settings = dict(batch_size=2, unlabeled_ratio=3, seed=7)
    theirs = data.training_dataset(problem, magnitude=0, **settings)
    ours = stream(unlabeled=numbered(UNLABELED), **settings)
    for one, other in zip(theirs.take(4), ours.take(4), strict=True):
        np.testing.assert_array_equal(one["labels"], other["labels"])
        # The middle of an image is no edge of any view's.
        middle = np.round((one["weak"][:, 4, 4, 0] * 0.5 + 0.5) * 255)
        np.testing.assert_array_equal(middle, other["weak"][:, 0])


@pytest.mark.long
def test_a_stream_from_a_later_step_is_the_tail():
    views = dict(weak=noise, strong=noise)
    whole = batches(5, **views)
    for one, other in zip(
        whole[3:], batches(2, start_step=3, **views), strict=True
    ):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])
    other = batches(5, seed=1, **views)
    assert np.any(other[0]["strong"] != whole[0]["strong"])


def test_draws_are_new_in_every_view_and_step():
    same = dict(labeled=np.ones([6, 2]), unlabeled=np.ones([6, 2]))
    found = batches(
        2, **same, labels=np.zeros(6, int), weak=noise, strong=noise
    )
    draws = []
    for batch in found:
        draws += [batch["labeled"] - 1, batch["weak"] - 1]
        draws += [batch["strong"] - batch["weak"]]
    draws = np.concatenate([part.ravel() for part in draws])
    assert len(np.unique(draws.round(6))) == len(draws) == 2 * 2 * (2 + 6 + 6)


def test_float64_becomes_what_keras_computes_in():
    wide = dict(labeled=np.ones([6, 2]), unlabeled=np.ones([6, 2]))
    (batch,) = batches(1, **wide, labels=np.eye(6), weak=noise)
    assert {array.dtype for array in batch.values()} == {np.dtype("float32")}


def test_inputs_may_be_nested():
    def nest(rows):
        return {"numbers": rows, "words": (rows[:, 0].astype(np.int64),)}

    (batch,) = batches(
        1,
        labeled=nest(numbered(LABELED)),
        unlabeled=nest(numbered(UNLABELED)),
        strong=lambda inputs, seed: inputs,
    )
    for name in ("labeled", "weak", "strong"):
        rows, (words,) = batch[name]["numbers"], batch[name]["words"]
        assert words.dtype == np.int64
        np.testing.assert_array_equal(rows[:, 0], words)


def test_labels_may_be_probabilities():
    rows = np.eye(LABELED, dtype=np.float32)
    (batch,) = batches(1, labels=rows)
    np.testing.assert_array_equal(
        batch["labels"], rows[batch["labeled"][:, 0].astype(int)]
    )


def test_without_unlabeled_examples_there_are_no_views():
    (batch,) = batches(1, unlabeled=None, unlabeled_ratio=0)
    assert set(batch) == {"labeled", "labels"}


def test_a_view_may_branch_as_functions_of_tensorflow_may():
    def flipped_by_chance(inputs, seed):
        if tf.random.stateless_uniform([], seed) < 0.5:
            return -inputs
        return inputs

    signs = {
        float(np.sign(batch["strong"][0, 0]))
        for batch in batches(20, strong=flipped_by_chance)
    }
    assert signs == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(labels=np.arange(4)), "4 labels for 5 labeled"),
        (dict(labeled=numbered(0), labels=[]), "labeled holds no example"),
        (dict(unlabeled=None), "unlabeled holds no example"),
        (dict(unlabeled=[[0.1, 0.2], [0.3, 0.4]]), "unlabeled is made of sin"),
        (
            dict(labeled={"a": numbered(5), "b": numbered(4)}),
            r"labeled have \[4, 5\] rows",
        ),
        (dict(unlabeled_ratio=-1), "unlabeled_ratio is -1"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(start_step=-1), "start_step is -1"),
        (
            dict(strong=lambda inputs, seed: tf.cast(inputs, "float64")),
            r"'strong': '\[2\] float64'",
        ),
        (dict(weak=lambda inputs, seed: inputs[:, :1]), None),
        (dict(unlabeled=numbered(5)[:, :1]), r"'labeled': '\[2\] float32'"),
    ],
)
def test_refuses_what_cannot_be_a_batch(settings, message):
    if message is None:  # A view of another shape is fine where both have it.
        assert batches(1, **settings)[0]["strong"].shape == (6, 1)
        return
    with pytest.raises(ValueError, match=message):
        stream(**settings)


def test_learners_train_on_numbers_of_words():
    """Integer inputs, [batch, words], through the feedback's two gradients."""
    random = np.random.default_rng(0)
    words = random.integers(2, 20, [UNLABELED, 6])
    masked = stream(
        labeled=words[:LABELED],
        labels=np.arange(LABELED) % 2,
        unlabeled=words,
        strong=lambda inputs, seed: tf.where(
            tf.random.stateless_uniform(tf.shape(inputs), seed) < 0.5,
            tf.ones_like(inputs),
            inputs,
        ),
    )
    learner = MetaPseudoLabels(reader(), reader(), log_every=1)
    learner.compile("sgd")
    before = learner.student.get_weights()
    logs = [learner.train_step(batch) for batch in masked.take(2)]
    assert float(logs[-1]["mpl/feedback_grad_ratio"]) > 0
    for old, new in zip(before, learner.student.get_weights(), strict=True):
        assert np.any(old != new) and np.isfinite(new).all()


def reader():
    return keras.Sequential(
        [
            keras.Input((6,), dtype="int64"),
            keras.layers.Embedding(20, 4),
            keras.layers.Conv1D(4, 3, activation="relu"),
            keras.layers.GlobalMaxPooling1D(),
            keras.layers.Dense(2),
        ]
    )
