import numpy as np
import pytest
from sklearn.datasets import load_digits

from meta_pseudo_labels import data
from meta_pseudo_labels.data.sources import digits


def test_scans_are_scaled_to_uint8_rgb():
    images, labels = digits.read_scans()
    source = load_digits()
    assert (images.shape, images.dtype) == ((1797, 8, 8, 3), np.uint8)
    assert images.min() == 0 and images.max() == 255
    # 8 of 16 is 127.5, to the even 128; 1 of 16 is 15.9.
    assert np.unique(images[source.images == 8]).tolist() == [128]
    assert np.unique(images[source.images == 1]).tolist() == [16]
    np.testing.assert_array_equal(labels, source.target)


def test_split_is_fixed_and_complete():
    test, pool = digits.split()
    assert (len(test), len(pool)) == (500, 1297)
    assert sorted([*test, *pool]) == list(range(1797))
    labels = load_digits().target
    assert np.bincount(labels[test]).tolist() == [50] * 10
    # Results of different versions are comparable only while this holds.
    assert test[:8].tolist() == [1, 2, 4, 5, 6, 9, 14, 17]


def test_four_labels_per_class_and_all_others_unlabeled():
    got = data.load("digits", num_labeled=40, seed=0)
    assert np.bincount(got.labeled_labels).tolist() == [4] * 10
    assert len(got.unlabeled_images) == 1257
    images, labels = digits.read_scans()
    np.testing.assert_array_equal(
        got.labeled_images, images[got.labeled_indices]
    )
    np.testing.assert_array_equal(
        got.labeled_labels, labels[got.labeled_indices]
    )
    test, pool = digits.split()
    assert set(got.labeled_indices) < set(pool)
    others = np.setdiff1d(pool, got.labeled_indices)
    np.testing.assert_array_equal(got.unlabeled_images, images[others])
    np.testing.assert_array_equal(got.test_images, images[test])


def test_seed_moves_the_labels_and_not_the_test_split():
    first, second = (
        data.load("digits", num_labeled=40, seed=seed) for seed in (0, 1)
    )
    assert set(first.labeled_indices) != set(second.labeled_indices)
    np.testing.assert_array_equal(first.test_images, second.test_images)


@pytest.mark.parametrize("num_labeled", [1297, None])
def test_whole_pool_may_be_labeled(num_labeled):
    got = data.load("digits", num_labeled=num_labeled, seed=0)
    assert len(got.labeled_images) == 1297
    assert got.unlabeled_images.shape == (0, 8, 8, 3)


def test_the_first_labels_are_those_of_the_pool():
    got = data.load("digits", num_labeled=7, seed=3, label_subset="first")
    _, pool = digits.split()
    assert got.labeled_indices.tolist() == pool[:7].tolist()
    assert len(got.unlabeled_images) == 1290


def test_another_size_resizes_every_part():
    got = data.load("digits", num_labeled=40, seed=0, image_size=16)
    native = data.load("digits", num_labeled=40, seed=0)
    assert got.spec.image_size == 16 and native.spec.image_size == 8
    assert got.labeled_images.shape == (40, 16, 16, 3)
    assert got.unlabeled_images.shape == (1257, 16, 16, 3)
    assert got.test_images.shape == (500, 16, 16, 3)
    # TensorFlow 1's grid: every second pixel is one of the source.
    np.testing.assert_array_equal(
        got.test_images[:, ::2, ::2], native.test_images
    )


def test_facts_are_those_of_the_training_pool():
    images, _ = digits.read_scans()
    pool = images[digits.split()[1]] / 255
    spec = data.DATASETS["digits"]
    np.testing.assert_allclose(pool.mean((0, 1, 2)), spec.mean, atol=1e-6)
    np.testing.assert_allclose(pool.std((0, 1, 2)), spec.std, atol=1e-6)
    assert not spec.flip


@pytest.mark.parametrize("num_labeled", [0, 41, 1250])
def test_impossible_numbers_of_labels_are_refused(num_labeled):
    with pytest.raises(ValueError, match=f"num_labeled is {num_labeled}"):
        data.load("digits", num_labeled=num_labeled, seed=0)


def test_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match="unknown data set 'mnist'.*digits"):
        data.load("mnist", num_labeled=40, seed=0)


def test_flip_may_be_said_otherwise():
    flips = [
        data.load("digits", num_labeled=40, seed=0, flip=flip).spec.flip
        for flip in (None, True, False)
    ]
    assert flips == [False, True, False]
