import numpy as np
import pytest

from meta_pseudo_labels.data.labels import balanced_indices, labeled_positions

LABELS = np.array([0, 1, 2] * 10 + [0] * 7)


def choose(num_labeled, seed=0):
    return balanced_indices(
        LABELS, num_labeled=num_labeled, num_classes=3, seed=seed
    )


def test_every_class_gets_its_share():
    chosen = choose(12)
    assert chosen.dtype == np.int64
    assert np.bincount(LABELS[chosen]).tolist() == [4, 4, 4]
    assert len(set(chosen)) == 12 and np.all(np.diff(chosen) > 0)


def test_the_seed_draws():
    assert choose(12, seed=1).tolist() == choose(12, seed=1).tolist()
    assert choose(12, seed=1).tolist() != choose(12, seed=2).tolist()


def test_more_labels_contain_the_fewer():
    assert set(choose(6)) < set(choose(12))


def test_all_labels():
    assert choose(len(LABELS)).tolist() == list(range(len(LABELS)))


@pytest.mark.parametrize(
    "num_labeled, message",
    [
        (0, "positive multiple of the 3 classes"),
        (-3, "positive multiple"),
        (7, "num_labeled is 7"),
        (33, "rarest class has 10; give at most 30"),
        (36, "at most 30, or 37"),
    ],
)
def test_impossible_numbers_are_refused(num_labeled, message):
    with pytest.raises(ValueError, match=message):
        choose(num_labeled)


def subset(num_labeled, label_subset, seed=0):
    return labeled_positions(
        LABELS,
        num_labeled=num_labeled,
        num_classes=3,
        seed=seed,
        label_subset=label_subset,
    )


def test_subsets_by_name():
    assert subset(12, "balanced").tolist() == choose(12).tolist()
    # 7 is no multiple of 3: the release does not mind.
    assert subset(7, "first", seed=5).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert subset(7, "first").dtype == np.int64


@pytest.mark.parametrize("label_subset", ["balanced", "first"])
def test_none_labels_all(label_subset):
    got = subset(None, label_subset)
    assert got.tolist() == list(range(len(LABELS)))


@pytest.mark.parametrize("num_labeled", [0, -1, 38])
def test_impossible_first_ones_are_refused(num_labeled):
    with pytest.raises(ValueError, match=f"is {num_labeled}; give 1 to 37"):
        subset(num_labeled, "first")


def test_unknown_subset_is_refused():
    with pytest.raises(ValueError, match="'last'; choose one of balanced, fi"):
        subset(3, "last")
