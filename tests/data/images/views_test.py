import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data.images import rand_augment, views
from meta_pseudo_labels.data.images.view_settings import ViewSettings

SEED = tf.constant([3, 4], tf.int64)
SPEC = data.DatasetSpec(
    name="mine",
    num_classes=2,
    image_size=16,
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
    flip=True,
)


def gradients(batch=64):
    """Images that grow brighter to the right: a mirrored one grows darker."""
    row = np.arange(16, dtype=np.uint8) * 8
    return tf.constant(np.tile(row[:, None], [batch, 16, 1, 3]))


def mirrored(images):
    middle = tf.cast(images[:, 4:12, 4:12], tf.int32)
    return (middle[:, 0, 0, 0] > middle[:, 0, -1, 0]).numpy()


def test_weak_view_flips_only_where_the_data_allows_it():
    allowed = views.weak_view(SPEC)(gradients(), SEED)
    assert 0 < mirrored(allowed).sum() < 64
    upright = views.weak_view(dataclasses.replace(SPEC, flip=False))
    assert not mirrored(upright(gradients(), SEED)).any()


@pytest.mark.parametrize(
    ("padding", "levels"),
    [(0, [64]), (1, [56, 64, 72]), (None, [48, 56, 64, 72, 80])],
)
def test_weak_view_shifts_by_as_many_pixels_as_it_is_told(padding, levels):
    spec = dataclasses.replace(SPEC, flip=False)
    settings = ViewSettings(magnitude=0, crop_padding=padding)
    # Brightness 8 * column at the center column 8; an eighth is 2.
    got = np.unique(views.weak(spec, settings)(gradients(500), SEED)[:, 8, 8])
    assert got.tolist() == levels


def test_strong_view_shifts_once_more():
    spec = dataclasses.replace(SPEC, flip=False)
    images = gradients(500)
    settings = ViewSettings(magnitude=0, cutout_share=0, crop_padding=0)
    unshifted = views.strong(spec, settings)(images, SEED)
    settings = dataclasses.replace(settings, crop_padding=1)
    seed = tf.random.split(SEED, 3)[2]
    want = views.weak_view(spec, crop_padding=1)(unshifted, seed)
    np.testing.assert_array_equal(
        views.strong(spec, settings)(images, SEED), want
    )
    assert not np.array_equal(unshifted, want)


@pytest.mark.parametrize("padding", [-1, 16])
def test_a_shift_that_leaves_nothing_is_refused(padding):
    with pytest.raises(ValueError, match=rf"{padding}: .* by 0 to 15 pixels"):
        views.weak_view(SPEC, crop_padding=padding)


@pytest.mark.parametrize("flip", [True, False])
def test_strong_view_is_the_list_of_quirk_31(flip):
    spec = dataclasses.replace(SPEC, flip=flip)
    images = gradients()
    seeds = tf.random.split(SEED, 3)
    want = rand_augment.rand_augment(
        images, seed=seeds[0], magnitude=16, translate_const=2, cutout_const=2
    )
    want = rand_augment.random_cutout(want, seed=seeds[1], half_size=4)
    want = views.weak_view(spec)(want, seeds[2])
    got = views.strong_view(spec, magnitude=16)(images, SEED)
    np.testing.assert_array_equal(got, want)


def test_labeled_strong_view_has_no_second_crop():
    """RandAugment, cutout and nothing else: release's `_cifar10_parser`."""
    images = gradients()
    seeds = tf.random.split(SEED, 2)
    want = rand_augment.rand_augment(
        images, seed=seeds[0], magnitude=16, translate_const=2, cutout_const=2
    )
    want = rand_augment.random_cutout(want, seed=seeds[1], half_size=4)
    settings = ViewSettings(magnitude=16)
    got = views.labeled_strong(SPEC, settings)(images, SEED)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("share", [-0.1, 1.1])
@pytest.mark.parametrize("view", [views.strong, views.labeled_strong])
def test_impossible_cutout_is_refused(view, share):
    with pytest.raises(ValueError, match=f"cutout_share must .* got {share}"):
        view(SPEC, ViewSettings(magnitude=1, cutout_share=share))


def test_chain_gives_each_operation_its_own_seed():
    seeds = []
    views.chain(*[lambda x, seed: seeds.append(tuple(seed.numpy())) or x] * 3)(
        gradients(1), SEED
    )
    assert len(set(seeds)) == 3


@pytest.mark.parametrize("shape", [[2, 3, 3], [5, 2, 3, 3], [0, 2, 3, 3]])
def test_normalize_by_the_formula(shape):
    images = np.random.RandomState(0).randint(0, 256, shape, np.uint8)
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 0.5]
    got = data.normalize(tf.constant(images), mean=mean, std=std)
    assert got.dtype == tf.float32
    np.testing.assert_allclose(
        got, (images / 255 - mean) / std, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "shape", [[3, 8, 8, 1], [3, 8, 8, 4], [3, 3, 8, 8], [3, 8, 8]]
)
def test_other_channels_are_refused(shape):
    """As flat rows, they would be taken for others of the same number."""
    with pytest.raises(ValueError, match="last axis must be the 3 channels"):
        data.normalize(np.zeros(shape, np.uint8), mean=[0.5] * 3, std=[0.5] * 3)


@pytest.mark.parametrize("change", [lambda x: x / 255, lambda x: x / 127.5 - 1])
def test_views_and_normalize_take_levels(change):
    """What was divided once would be divided twice, and black."""
    spec = data.DATASETS["cifar10"]
    levels = np.random.RandomState(0).randint(0, 256, [2, 32, 32, 3])
    images = change(levels).astype(np.float32)
    for wrong in (images, tf.constant(images), images * np.nan):
        with pytest.raises(ValueError, match="pass levels from 0 to 255, uint"):
            data.normalize(wrong, mean=spec.mean, std=spec.std)
    for view in (data.weak_view(spec), data.strong_view(spec, magnitude=5)):
        with pytest.raises(ValueError, match="got images of type float32"):
            view(images, [0, 1])
    # Floats of levels are what they say.
    found, want = (
        data.normalize(levels.astype(kind), mean=spec.mean, std=spec.std)
        for kind in (np.float32, np.uint8)
    )
    np.testing.assert_allclose(found, want, atol=1e-6)
