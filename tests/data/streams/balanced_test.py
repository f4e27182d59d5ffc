"""Labeled batches in which every class comes equally often."""

import collections
import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data.streams import keyed, records
from tests.batch_parts import assert_equal, part, take
from tests.data.streams.pipeline_test import SETTINGS, counts, problem

# Classes 0, 1 and 4 of five, with nine, three and two examples; in no order.
LABELS = np.int32([0, 4, 0, 1, 0, 0, 1, 0, 0, 4, 0, 1, 0, 0])
ROUNDS = 9  # Of an epoch.


def drawn(labels, *, rounds, first=0, seed=3):
    """Examples and times of whole rounds, [rounds, classes] each."""
    classes = len(set(labels.tolist()))

    @tf.function(autograph=False)  # Several times faster than without.
    def draw(step):
        return keyed.balanced_examples(
            step,
            batch_size=rounds * classes,
            labels=labels,
            seed=seed,
            stream=keyed.LABELED,
        )

    found = draw(tf.constant(first, tf.int64))
    return [x.numpy().reshape(-1, classes) for x in found]


@pytest.fixture(scope="module")
def uneven():
    """Images told apart by their color, and three held out for feedback."""
    got = problem(labeled=len(LABELS))
    return dataclasses.replace(
        got,
        labeled_labels=LABELS,
        feedback_images=got.unlabeled_images[6:9],
        feedback_labels=np.int32([2, 3, 3]),
    )


def of(images, **settings):
    settings = SETTINGS | dict(magnitude=0, cutout_share=0) | settings
    return data.training_dataset(images, **settings, balanced=True)


@pytest.fixture(scope="module")
def batches(uneven):
    """The first steps of six labeled images; tests leave them as they are."""
    return take(of(uneven, batch_size=6), 6)


def test_every_round_shows_every_class_once():
    examples, _ = drawn(LABELS, rounds=90)
    assert np.sort(LABELS[examples]).tolist() == [[0, 1, 4]] * 90
    # In all six orders.
    assert len({tuple(row) for row in LABELS[examples].tolist()}) == 6


@pytest.mark.parametrize("label", [0, 1, 4])
def test_examples_of_a_class_take_turns(label):
    """Nine draws an epoch: one of nine each, three of three, 4 or 5 of two."""
    own = np.flatnonzero(LABELS == label)
    shown = drawn(LABELS, rounds=ROUNDS * 20)[0]
    epochs = shown[LABELS[shown] == label].reshape(20, ROUNDS)
    times = np.stack([np.sum(epochs == one, axis=1) for one in own])
    assert np.ptp(times, axis=0).max() == ROUNDS % len(own)
    assert np.ptp(np.cumsum(times, axis=1), axis=0).max() <= 1
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 15
    # What makes the odd one is not always the same.
    assert times.sum(axis=1).tolist() == [20 * ROUNDS / len(own)] * len(own)


def test_the_times_of_an_example_are_counted():
    seen = collections.defaultdict(list)
    for example, time in zip(
        *map(np.ravel, drawn(LABELS, rounds=ROUNDS * 4)), strict=True
    ):
        seen[example].append(time)
    assert {len(seen[one]) for one in np.flatnonzero(LABELS == 4)} == {18}
    for times in seen.values():
        assert sorted(times) == list(range(len(times)))


def test_a_large_class_is_shuffled_without_a_table():
    labels = np.repeat([0, 1], [1_500, 3])
    examples, _ = drawn(labels, rounds=1_500)
    few = examples[labels[examples] == 1]
    assert sorted(examples[labels[examples] == 0]) == list(range(1_500))
    assert np.bincount(few)[1_500:].tolist() == [500] * 3
    later, _ = drawn(labels, rounds=10, first=150)  # The second epoch.
    assert later[labels[later] == 0].tolist() != examples[:10].tolist()


def test_batches_hold_the_classes_equally_often(batches):
    for batch in batches:
        assert sorted(batch["labels"].tolist()) == [0, 0, 1, 1, 4, 4]
        # Of the two classes that were held out.
        assert sorted(batch["feedback_labels"]) == [2, 2, 2, 3, 3, 3]
        assert LABELS[counts(batch["labeled"])].tolist() == list(
            batch["labels"]
        )


@pytest.mark.long
def test_the_unlabeled_part_stays_as_it_is(uneven):
    plain = data.training_dataset(uneven, **SETTINGS)
    balanced = data.training_dataset(uneven, **SETTINGS, balanced=True)
    for one, other in zip(take(plain, 2), take(balanced, 2), strict=True):
        for key in ("weak", "strong"):
            np.testing.assert_array_equal(one[key], other[key])


def test_the_stream_goes_on_from_a_step(uneven, batches):
    assert_equal(take(of(uneven, batch_size=6, start_step=4), 2), batches[4:])


def test_replicas_see_what_one_device_would(uneven, batches):
    second = of(uneven, batch_size=6, share=data.Share(3, 1, 1))
    assert_equal(take(second, 2), [part(b, 1, 3) for b in batches[:2]])


@pytest.mark.long
def test_images_are_mirrored_every_other_time(uneven, batches):
    """The same ones come in the same order."""
    got = take(of(uneven, batch_size=6, alternate_flips=True), 6)
    for one, other in zip(got, batches, strict=True):
        assert counts(one["labeled"]) == counts(other["labeled"])


def test_finetuning_is_balanced_too(uneven):
    stream = data.finetuning_dataset(uneven, 6, 0, balanced=True)
    shown = [labels for _, labels in take(stream, 3)]
    assert np.sort(shown).tolist() == [[0, 0, 1, 1, 4, 4]] * 3
    plain = take(data.finetuning_dataset(uneven, 14, 0), 1)[0][1]
    assert sorted(plain) == sorted(LABELS)


def test_labels_in_files_are_refused(uneven):
    in_files = data.ShardedData(
        spec=uneven.spec,
        labeled_images=[None],
        unlabeled_images=[None],
        test_images=records.no_records(),
    )
    for make in (
        lambda: of(in_files),
        lambda: data.finetuning_dataset(in_files, 6, 0, balanced=True),
    ):
        with pytest.raises(ValueError, match="'mine' stays in its files"):
            make()
