"""Images that are held out, in the streams of batches."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data.images import views
from meta_pseudo_labels.data.streams import keyed
from tests.batch_parts import assert_equal, take
from tests.data.streams.pipeline_test import SETTINGS, counts, problem


@pytest.fixture(scope="module")
def judged():
    """The problem with three images held out, of classes 4, 3 and 2."""
    got = problem()
    return dataclasses.replace(
        got,
        feedback_images=got.unlabeled_images[6:9],
        feedback_labels=np.int32([4, 3, 2]),
    )


def test_held_out_images_join_the_batch(judged):
    """The other parts of the stream stay as they are, bit for bit."""
    batches = take(data.training_dataset(problem(), **SETTINGS), 9)
    got = take(data.training_dataset(judged, **SETTINGS), 9)
    for one, other in zip(got, batches, strict=True):
        assert one.keys() == other.keys() | {"feedback", "feedback_labels"}
        for key, want in other.items():
            np.testing.assert_array_equal(one[key], want)
        assert one["feedback"].shape == (3, 8, 8, 3)
        assert one["feedback_labels"].dtype == np.int32
        # Each batch is one epoch of the three images.
        assert sorted(counts(one["feedback"])) == [6, 7, 8]
        assert [10 - n for n in counts(one["feedback"])] == list(
            one["feedback_labels"]
        )
    assert len({tuple(batch["feedback_labels"]) for batch in got}) > 2
    tail = data.training_dataset(judged, **SETTINGS, start_step=5)
    assert_equal(take(tail, 3), got[5:8])


@pytest.mark.long
def test_held_out_images_get_weak_views_of_their_own(judged):
    """Also where the labeled ones get strong views."""
    stream = data.training_dataset(judged, **SETTINGS, augment_labeled=True)
    (batch,) = take(stream, 1)
    shown = [counts(batch["feedback"]).index(n) for n in (6, 7, 8)]
    order = np.argsort(shown)
    view = views.weak_view(judged.spec)

    def weak(stream):
        key = keyed.key(7, stream, keyed.WEAK, 0)
        got = view(tf.constant(judged.feedback_images[order]), key)
        return data.normalize(got, mean=judged.spec.mean, std=judged.spec.std)

    np.testing.assert_allclose(batch["feedback"], weak(keyed.FEEDBACK), 1e-6)
    assert np.any(batch["feedback"] != weak(keyed.LABELED))


def test_held_out_images_are_in_no_other_stream(judged):
    settings = SETTINGS | dict(unlabeled_ratio=0)
    (batch,) = take(data.training_dataset(judged, **settings), 1)
    assert batch.keys() == {"labeled", "labels"}
    for images, _ in take(data.finetuning_dataset(judged, 5, 0), 3):
        assert sorted(counts(images)) == [0, 1, 2, 3, 4]


def test_validation_shows_its_images_once_in_order(judged):
    held = dataclasses.replace(
        judged,
        validation_images=judged.unlabeled_images[9:],
        validation_labels=np.int32([1, 0]),
    )
    ((images, labels),) = take(data.validation_dataset(held, batch_size=5), 2)
    assert counts(images) == [9, 10] and labels.tolist() == [1, 0]
    with pytest.raises(ValueError, match="'mine' has no validation images"):
        data.validation_dataset(judged, batch_size=5)
