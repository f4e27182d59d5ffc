"""Labeled images set apart for validation and for the feedback."""

import numpy as np
import pytest

from meta_pseudo_labels import data
from tests.data.variants_test import problem, shown


@pytest.mark.parametrize("part", ["feedback", "validation"])
def test_held_out_images_leave_the_training(part):
    """Four of each class, and all of them unlabeled too."""
    labels = [0, 1, 2] * 4
    before = problem(labels, unlabeled=(*range(12), 100))
    got = data.hold_out(before, 6, seed=0, part=part)
    held = shown(getattr(got, f"{part}_images"))
    assert getattr(got, f"{part}_labels").tolist() == [labels[n] for n in held]
    assert sorted(n % 3 for n in held) == [0, 0, 1, 1, 2, 2]
    rest = [n for n in range(12) if n not in held]
    assert shown(got.labeled_images) == rest
    assert got.labeled_labels.tolist() == [labels[n] for n in rest]
    assert got.labeled_indices.tolist() == [50 + n for n in rest]
    assert shown(got.unlabeled_images) == [*rest, 100]
    assert got.chosen.changes[part].tolist() == [50 + n for n in held]
    assert len(got.test_images) == 3
    assert len(before.labeled_images) == 12  # Nothing is changed in place.


def test_unlabeled_images_stay_where_none_was_labeled():
    before = problem([0, 1, 2] * 4)
    got = data.hold_out(before, 6, seed=0)
    assert got.unlabeled_images is before.unlabeled_images


def test_a_rest_goes_to_classes_that_the_seed_draws():
    more = set()
    for seed in range(20):
        got = data.hold_out(problem([0, 1, 2] * 4), 7, seed=seed)
        counts = np.bincount(got.feedback_labels, minlength=3)
        assert sorted(counts) == [2, 2, 3]
        more.add(int(counts.argmax()))
    assert more == {0, 1, 2}


@pytest.mark.parametrize(
    ("count", "held"), [(1, None), (2, [0, 1, 1]), (3, [0, 2, 1])]
)
def test_rare_classes_keep_their_last_image(count, held):
    """One image of class 0, five of class 1, two of class 2."""
    got = data.hold_out(problem([0, 1, 1, 1, 1, 1, 2, 2]), count, seed=0)
    counts = np.bincount(got.feedback_labels, minlength=3).tolist()
    assert counts == held if held else counts[0] == 0
    assert set(got.labeled_labels.tolist()) == {0, 1, 2}


def test_one_image_of_each_class_can_be_left():
    got = data.hold_out(problem([0, 1, 1, 1, 1, 1, 2, 2]), 5, seed=0)
    assert sorted(got.labeled_labels.tolist()) == [0, 1, 2]


@pytest.mark.parametrize("count", [-1, 0, 6, 8, 9])
def test_so_many_cannot_be_held_out(count):
    with pytest.raises(
        ValueError, match=f"num_validation is {count}; of 8 labeled .* 1 to 5"
    ):
        data.hold_out(
            problem([0, 1, 1, 1, 1, 1, 2, 2]), count, seed=0, part="validation"
        )


def test_parts_are_known_and_held_out_once():
    before = problem([0, 1, 2] * 4)
    with pytest.raises(ValueError, match="part is 'test'; choose one of"):
        data.hold_out(before, 3, seed=0, part="test")
    with pytest.raises(ValueError, match="already has feedback images"):
        data.hold_out(data.hold_out(before, 3, seed=0), 3, seed=0)


def test_splits_are_keyed_by_seed_and_part():
    before = problem([0, 1, 2] * 30)

    def indices(**settings):
        got = data.hold_out(before, 30, **settings)
        return set(got.chosen.changes[settings["part"]].tolist())

    feedback = indices(seed=5, part="feedback")
    assert feedback == indices(seed=5, part="feedback")
    # Of 30 in 90, draws that know nothing of each other share about 10.
    assert 2 < len(feedback & indices(seed=6, part="feedback")) < 20
    assert 2 < len(feedback & indices(seed=5, part="validation")) < 20
