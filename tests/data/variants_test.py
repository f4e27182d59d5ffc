import dataclasses
import json

import numpy as np
import pytest

from meta_pseudo_labels import data
from meta_pseudo_labels.data import sharded_data
from meta_pseudo_labels.data.streams import records


def images(*numbers):
    """An image of one color for each number."""
    color = np.array(numbers, np.uint8)[:, None, None, None]
    return np.tile(color, [1, 8, 8, 3])


def shown(pictures):
    return pictures[:, 0, 0, 0].tolist()


def problem(labels, *, num_classes=3, unlabeled=(100, 101)):
    """Labeled images 0, 1, ...; their numbers in the source begin at 50."""
    labels = np.array(labels, np.int32)
    spec = data.DatasetSpec(
        name="mine",
        num_classes=num_classes,
        image_size=8,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        flip=True,
        class_names=tuple("abcdefghij"[:num_classes]),
    )
    return data.ImageData(
        spec=spec,
        labeled_images=images(*(n % 256 for n in range(len(labels)))),
        labeled_labels=labels,
        unlabeled_images=images(*unlabeled),
        test_images=images(*range(200, 200 + num_classes)),
        test_labels=np.arange(num_classes, dtype=np.int32),
        labeled_indices=np.arange(50, 50 + len(labels)),
    )


def sharded():
    three = records.Records(
        ("a",), np.zeros([3], np.int32), np.arange(3, dtype=np.int64), None
    )
    return sharded_data.ShardedData(
        spec=data.DATASETS["imagenet2012"],
        labeled_images=three,
        unlabeled_images=three,
        test_images=three,
    )


# The first classes alone.


def test_foreign_images_lose_their_label_and_stay():
    got = data.keep_classes(problem([0, 2, 1, 2, 0]), 2)
    assert got.spec.num_classes == 2 and got.spec.class_names == ("a", "b")
    assert shown(got.labeled_images) == [0, 2, 4]
    assert got.labeled_labels.tolist() == [0, 1, 0]
    assert got.labeled_indices.tolist() == [50, 52, 54]
    assert shown(got.unlabeled_images) == [100, 101, 1, 3]
    assert shown(got.test_images) == [200, 201]
    assert got.test_labels.tolist() == [0, 1]


def test_foreign_images_that_are_unlabeled_already_come_once():
    """In some sources the unlabeled images are all images."""
    whole = problem([0, 2, 1, 2, 0], unlabeled=(0, 1, 2, 3, 4, 100))
    got = data.keep_classes(whole, 2)
    assert shown(got.unlabeled_images) == [0, 1, 2, 3, 4, 100]


def test_all_classes_may_be_kept():
    before = problem([0, 2, 1], num_classes=3)
    got = data.keep_classes(before, 3)
    assert got.spec == before.spec
    assert shown(got.labeled_images) == [0, 1, 2]
    assert shown(got.unlabeled_images) == [100, 101]


@pytest.mark.parametrize("count", [-1, 0, 1, 4])
def test_so_many_classes_cannot_be_kept(count):
    with pytest.raises(ValueError, match=f"is {count}; give 2 to 3, the numb"):
        data.keep_classes(problem([0, 1, 2]), count)


def test_some_label_must_be_of_a_known_class():
    with pytest.raises(ValueError, match="no labeled image is in the first 2"):
        data.keep_classes(problem([2, 2, 2]), 2)


# Wrong labels.


@pytest.mark.parametrize(
    ("share", "wrong"), [(0.3, 3), (0.25, 3), (0.24, 2), (0.05, 1), (0.99, 10)]
)
def test_so_many_labels_are_wrong(share, wrong):
    before = problem([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    got = data.spoil_labels(before, share, seed=3)
    changed = got.labeled_labels != before.labeled_labels
    assert changed.sum() == wrong
    assert (
        got.chosen.changes["wrong"].tolist()
        == before.labeled_indices[changed].tolist()
    )
    # The rest of the problem is untouched.
    assert got.labeled_images is before.labeled_images
    assert got.unlabeled_images is before.unlabeled_images
    assert got.test_labels is before.test_labels


def test_a_larger_share_spoils_the_same_labels_and_more():
    before = problem([0, 1, 2, 3, 4] * 40, num_classes=5)
    some = data.spoil_labels(before, 0.2, seed=1).labeled_labels
    more = data.spoil_labels(before, 0.5, seed=1).labeled_labels
    changed = some != before.labeled_labels
    assert changed.sum() == 40
    np.testing.assert_array_equal(some[changed], more[changed])


def test_wrong_classes_are_uniform_over_the_others():
    before = problem([1] * 4000, num_classes=5)
    got = data.spoil_labels(before, 0.9, seed=0)
    counts = np.bincount(got.labeled_labels, minlength=5)
    assert counts[1] == 400
    # 900 expected of each other, with a deviation of 26.
    assert np.abs(counts[[0, 2, 3, 4]] - 900).max() < 100


def test_noise_is_keyed_by_the_seed():
    before = problem([0, 1, 2] * 20)
    first, again, other = (
        data.spoil_labels(before, 0.4, seed=seed).labeled_labels.tolist()
        for seed in (7, 7, 8)
    )
    assert first == again != other


@pytest.mark.parametrize("share", [-0.1, 0, 1, 1.5, float("nan")])
def test_shares_out_of_range_are_refused(share):
    with pytest.raises(ValueError, match=f"label_noise is {share}; give a sh"):
        data.spoil_labels(problem([0, 1, 2]), share, seed=0)


def test_noise_must_be_possible():
    with pytest.raises(ValueError, match="0.1 of 3 labeled .* at least 0.33"):
        data.spoil_labels(problem([0, 1, 2]), 0.1, seed=0)
    with pytest.raises(ValueError, match="label_noise needs a second class"):
        data.spoil_labels(problem([0] * 3, num_classes=1), 0.5, seed=0)


# All of them, one after another.

LABELS = [0, 1, 2, 3] * 10
EVERYTHING = dict(
    known_classes=3, label_noise=0.2, num_validation=6, num_feedback=3
)


def vary(seed=0, **settings):
    whole = problem(LABELS, num_classes=4, unlabeled=(*range(40), 100))
    return data.vary(whole, seed=seed, **settings)


def labels_by_index(got, *parts):
    """What label each image of the source now has."""
    found = dict(zip(got.labeled_indices, got.labeled_labels, strict=True))
    for part in parts:
        indices = got.chosen.changes[part]
        labels = getattr(got, f"{part}_labels")
        found |= dict(zip(indices, labels, strict=True))
    return {int(index): int(label) for index, label in found.items()}


def test_nothing_asked_for_changes_nothing():
    before = problem([0, 1, 2])
    assert data.vary(before, seed=0) is before
    assert data.vary(files := sharded(), seed=0) is files


def test_counts_of_all_variants():
    """Of 40 labels 30 are known, 6 of these wrong, 6 + 3 held out."""
    got = vary(**EVERYTHING)
    assert len(got.labeled_images) == 21
    assert len(got.validation_images) == 6 and len(got.feedback_images) == 3
    # Those held out are gone, those of the fourth class are not.
    assert len(got.unlabeled_images) == 41 - 9
    assert set(range(3, 40, 4)) < set(shown(got.unlabeled_images))
    assert len(got.test_images) == 3
    labels = labels_by_index(got, "validation", "feedback")
    wrong = [i for i, label in labels.items() if label != LABELS[i - 50]]
    assert sorted(wrong) == got.chosen.changes["wrong"].tolist()
    assert len(labels) == 30 and len(wrong) == 6
    assert max(labels.values()) == 2


def test_later_variants_leave_earlier_draws_alone():
    whole = vary(**EVERYTHING)
    noise = vary(known_classes=3, label_noise=0.2)
    assert labels_by_index(noise) == labels_by_index(
        whole, "validation", "feedback"
    )
    for changes in (dict(num_feedback=0), dict(num_feedback=12)):
        got = vary(**EVERYTHING | changes)
        assert shown(got.validation_images) == shown(whole.validation_images)
        assert (
            got.validation_labels.tolist() == whole.validation_labels.tolist()
        )


def test_all_variants_are_keyed_by_the_seed():
    def choice(seed):
        return data.labeled_choice(vary(seed, **EVERYTHING))

    first = choice(0)
    assert first == choice(0)
    for part in ("wrong", "validation", "feedback"):
        assert first[part] != choice(1)[part]


@pytest.mark.parametrize(
    "settings",
    [
        dict(known_classes=3),
        dict(label_noise=0.5),
        dict(num_validation=1),
        dict(num_feedback=1),
    ],
)
def test_images_in_files_have_no_variants(settings):
    with pytest.raises(ValueError, match="'imagenet2012' stays in its files"):
        data.vary(sharded(), seed=0, **settings)


# The file that says which images keep their label.


def test_the_choice_of_labels_is_told_as_it_was_made():
    before = problem(LABELS, num_classes=4)
    plain = data.labeled_choice(before)
    got = data.labeled_choice(data.vary(before, seed=0, **EVERYTHING))
    assert {key: got[key] for key in plain} == plain
    assert set(got) - set(plain) == {"wrong", "validation", "feedback"}
    assert json.loads(json.dumps(got)) == got


def test_a_choice_of_labels_is_repeated_and_so_are_its_variants(tmp_path):
    path = tmp_path / "labeled.json"
    before = data.load("digits", num_labeled=60, seed=4)
    varied = data.vary(before, seed=4, **EVERYTHING)
    data.save_labeled_indices(varied, path)

    again = data.load("digits", num_labeled=None, seed=4, label_subset=path)

    np.testing.assert_array_equal(again.labeled_indices, before.labeled_indices)
    got = data.vary(again, seed=4, **EVERYTHING)
    for field in dataclasses.fields(data.ImageData):
        if field.name.endswith(("_images", "_labels", "_indices")):
            np.testing.assert_array_equal(
                getattr(got, field.name), getattr(varied, field.name)
            )
