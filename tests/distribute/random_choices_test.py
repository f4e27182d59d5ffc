"""The random choices have the release's distribution (quirks 26, 30, 31).

Seeds are fixed, so nothing here is flaky. A count is held against the
probabilities by Pearson's chi-square, at a level where a right program fails
for one seed in a million; `test_the_tolerance_is_not_too_wide` shows what such
a test finds.
"""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from meta_pseudo_labels import data
from meta_pseudo_labels.data.images import rand_augment, views

SEED = tf.constant([1, 2], tf.int32)
OPERATIONS = len(rand_augment.OPERATIONS)
IMAGES = 60_000
LAYERS = 8  # More than the release's two, to see the shape of probability.
ONE_IN_A_MILLION = 1e-6


def assert_distributed(values, probabilities):
    """Raises AssertionError unless the values, 0, 1, ..., are so likely.

    Args:
      values: integers of any shape, independent draws.
      probabilities: of each value; they sum to 1.
    """
    values, probabilities = np.ravel(values), np.ravel(probabilities)
    counts = np.bincount(values, minlength=len(probabilities))
    assert len(counts) == len(probabilities)
    expected = len(values) * probabilities
    assert expected.min() > 5 and expected.sum() == pytest.approx(len(values))
    statistic = np.sum((counts - expected) ** 2 / expected)
    limit = stats.chi2.isf(ONE_IN_A_MILLION, len(probabilities) - 1)
    assert statistic < limit, counts.tolist()


def assert_uniform(values, count):
    assert_distributed(values, np.full([count], 1 / count))


def pairs(first, second, count):
    """One number for two draws; uniform where these are and independent."""
    return np.asarray(first) * count + np.asarray(second)


@pytest.fixture(scope="module")
def draws():
    """Draws of `LAYERS` layers for images of 4 x 2 pixels, as arrays."""
    images = tf.zeros([IMAGES, 4, 2, 3], tf.uint8)
    layers = rand_augment.draw_layers(images, seed=SEED, num_layers=LAYERS)
    return [
        (d.operation.numpy(), d.sign.numpy(), d.center.numpy()) for d in layers
    ]


@pytest.fixture(scope="module")
def applied(draws):
    """[LAYERS, IMAGES] bool: whether the image undergoes the layer."""
    return np.stack([operation < OPERATIONS for operation, _, _ in draws])


def probability_of_layers(low, high):
    """How many of the layers are applied: C(n,k) times the mean p^k q^(n-k).

    The mean over p uniform in [low, high), by an exact quadrature.
    """
    nodes, weights = np.polynomial.legendre.leggauss(LAYERS)
    p = (low + high) / 2 + (high - low) / 2 * nodes
    return [
        math.comb(LAYERS, k)
        * np.sum(weights / 2 * p**k * (1 - p) ** (LAYERS - k))
        for k in range(LAYERS + 1)
    ]


def test_the_tolerance_is_not_too_wide(draws, applied):
    """Wrong distributions that are near the right one are found."""
    operation = draws[0][0]
    wrong = np.ones(OPERATIONS + 1)
    wrong[OPERATIONS] = OPERATIONS  # As many skipped as applied: right.
    assert_distributed(operation, wrong / wrong.sum())
    wrong[3] = 1.2
    with pytest.raises(AssertionError):
        assert_distributed(operation, wrong / wrong.sum())
    with pytest.raises(AssertionError):
        assert_uniform(operation[operation < OPERATIONS], OPERATIONS + 1)
    for low, high in ((0.25, 0.75), (0.22, 0.78), (0.5, 0.5), (0.2, 0.82)):
        with pytest.raises(AssertionError):
            assert_distributed(
                applied.sum(axis=0), probability_of_layers(low, high)
            )


def test_one_of_fifteen_operations_is_drawn_uniformly(draws):
    assert OPERATIONS == 15
    for operation, _, _ in draws:
        assert_uniform(operation[operation < OPERATIONS], OPERATIONS)


def test_probability_is_uniform_and_shared_by_the_layers(applied):
    """U(.2, .8) for an image: the number of its layers tells (quirk 26)."""
    assert_distributed(applied.sum(axis=0), probability_of_layers(0.2, 0.8))
    # By hand, for two layers: E[p^2] = .5^2 + .6^2 / 12 = .28.
    for layer in range(1, LAYERS):
        both = applied[0] + 2 * applied[layer]
        assert_distributed(both, [0.28, 0.22, 0.22, 0.28])


def test_images_have_probabilities_of_their_own(applied):
    """Neighbors in the batch agree by chance: E[p]^2 = .25."""
    both = applied[0, ::2] + 2 * applied[0, 1::2]
    assert_uniform(both, 4)


def test_layers_draw_their_operations_apart(draws, applied):
    for layer in range(1, LAYERS):
        both = applied[0] & applied[layer]
        first, second = draws[0][0][both], draws[layer][0][both]
        assert_uniform(pairs(first, second, OPERATIONS), OPERATIONS**2)


def test_signs_are_even_whatever_the_operation(draws):
    for operation, sign, _ in draws:
        assert set(np.unique(sign)) == {-1, 1}
        positive = (sign > 0).astype(int)
        assert_uniform(positive, 2)
        seen = operation < OPERATIONS
        assert_uniform(
            pairs(operation[seen], positive[seen], 2), OPERATIONS * 2
        )
    first, second = (draws[layer][1] > 0 for layer in (0, 1))
    assert_uniform(pairs(first, second, 2), 4)


def test_centers_are_uniform_over_the_image(draws):
    cells = [pairs(c[:, 0], c[:, 1], 2) for _, _, c in draws]
    for cell in cells:
        assert_uniform(cell, 4 * 2)
    assert_uniform(pairs(cells[0], cells[1], 8), 64)


def test_random_cutout_is_centered_uniformly():
    """In 32x32 with the release's half side of 8: seen by its corners."""
    images = tf.zeros([20_000, 32, 32, 3], tf.uint8)
    got = rand_augment.random_cutout(images, seed=SEED, half_size=8).numpy()
    hole = got[..., 0] == 128
    rows, columns = hole.any(axis=2), hole.any(axis=1)
    for line in (rows, columns):
        # A hole that begins at 0 and ends at e is centered at e - 8.
        first, end = line.argmax(axis=1), 32 - line[:, ::-1].argmax(axis=1)
        center = np.where(first > 0, first + 8, end - 8)
        assert_uniform(center, 32)
    sizes = hole.sum(axis=(1, 2))
    assert (sizes.min(), sizes.max()) == (8 * 8, 16 * 16)


def spots(count, size):
    """Black images with one white pixel, left of the center."""
    images = np.zeros([count, size, size, 3], np.uint8)
    images[:, size // 2, size // 2 - 1] = 255
    return tf.constant(images)


def landed(images):
    """Row and column of the white pixel of each image."""
    places = np.argwhere(images[..., 0] == 255)
    assert len(places) == len(images)
    return places[:, 1], places[:, 2]


def test_half_of_the_images_are_flipped():
    images = spots(20_000, 4)
    got = rand_augment.random_flip(images, seed=SEED).numpy()
    _, columns = landed(got)
    assert_uniform(columns - 1, 2)


@pytest.mark.parametrize("pad", [1, 4])
def test_every_crop_is_equally_likely(pad):
    size = 32
    got = rand_augment.pad_and_random_crop(
        spots(20_000, size), seed=SEED, pad=pad
    ).numpy()
    rows, columns = landed(got)
    down, right = rows - (size // 2 - pad), columns - (size // 2 - 1 - pad)
    side = 2 * pad + 1
    assert_uniform(pairs(down, right, side), side**2)


def test_jitter_of_the_cifar_run():
    """Flip, pad 32 // 8 = 4 with 128, crop: 2 * 81 views, all alike."""
    spec = data.DATASETS["cifar10"]
    got = views.weak_view(spec)(spots(20_000, 32), SEED).numpy()
    rows, columns = landed(got)
    # Upright the spot starts at column 15, mirrored at 16; columns 11..20.
    down = rows - 12
    assert_uniform(down, 9)
    flips = np.convolve(np.ones(9), [1, 1]) / 18  # The sum of both draws.
    assert_distributed(columns - 11, flips)
    # Shifted down by d rows, the d first rows are gray; likewise for up.
    gray_rows = np.all(got == 128, axis=(2, 3)).sum(axis=1)
    np.testing.assert_array_equal(gray_rows, np.abs(rows - 16))
    assert np.unique(got).tolist() == [0, 128, 255]


def test_flip_and_crop_are_independent():
    """A second pixel beside the first tells the flip from the shift."""
    images = spots(20_000, 16).numpy()
    images[:, 8, 8] = 254  # To the right of the first unless mirrored.
    spec = data.DatasetSpec(
        name="mine",
        num_classes=1,
        image_size=16,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        flip=True,
    )
    got = views.weak_view(spec)(tf.constant(images), SEED).numpy()
    rows, columns = landed(got)
    (_, _, second) = np.nonzero(got[..., 0] == 254)
    flipped = (second < columns).astype(int)
    down, right = rows - 6, np.minimum(columns, second) - 5
    assert_uniform(pairs(flipped, pairs(down, right, 5), 25), 2 * 25)
