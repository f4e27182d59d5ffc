import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import augment, rand_augment

COUNT = len(rand_augment.OPERATIONS)
SEED = tf.constant([1, 2], tf.int32)


def noise(batch=32, size=16):
    images = np.random.RandomState(0).randint(
        0, 256, [batch, size, size, 3], np.uint8
    )
    return tf.constant(images)


def augmented(images, seed=SEED, magnitude=16, **settings):
    return rand_augment.rand_augment(
        images,
        seed=seed,
        magnitude=magnitude,
        translate_const=2,
        cutout_const=2,
        **settings,
    )


def test_arguments_of_the_cifar_run():
    got = rand_augment.level_arguments(16, translate_const=4, cutout_const=4)
    assert got.factor == pytest.approx(2.98)
    assert got.degrees == pytest.approx(48)
    assert got.slope == pytest.approx(0.48)
    assert got.translate_pixels == pytest.approx(6.4)  # never rounded
    assert got.bits == 6  # int(6.4)
    assert got.threshold == 409  # int(409.6)
    assert got.cutout_half_size == 6  # int(6.4)


def test_arguments_of_the_imagenet_run():
    got = rand_augment.level_arguments(17, translate_const=100, cutout_const=40)
    assert got.factor == pytest.approx(3.16)
    assert got.degrees == pytest.approx(51)
    assert got.slope == pytest.approx(0.51)
    assert got.translate_pixels == pytest.approx(170)
    assert (got.bits, got.threshold, got.cutout_half_size) == (6, 435, 68)


@pytest.mark.parametrize("row, magnitude", [*enumerate([1, 5, 10, 16, 17])])
def test_arguments_equal_release(reference_dir, row, magnitude):
    with np.load(reference_dir / "augment_ops.npz") as file:
        stored = {
            name.removeprefix("arg/"): file[name][row]
            for name in file.files
            if name.startswith("arg/")
        }
    small = rand_augment.level_arguments(
        magnitude, translate_const=4, cutout_const=4
    )
    large = rand_augment.level_arguments(
        magnitude, translate_const=100, cutout_const=40
    )
    got = {
        "color": small.factor,
        "rotate_pos": small.degrees,
        "shear_x_pos": small.slope,
        "posterize": small.bits,
        "solarize": small.threshold,
        "translate_x_pos": small.translate_pixels,
        "translate_x_const100_pos": large.translate_pixels,
        "cutout": small.cutout_half_size,
        "cutout_const40": large.cutout_half_size,
    }
    for name, value in got.items():
        assert value == pytest.approx(stored[name], rel=1e-6), name


def test_negative_magnitude_is_refused():
    with pytest.raises(ValueError, match="magnitude is -1"):
        augmented(noise(), magnitude=-1)


def test_same_seed_same_images():
    images = noise()
    np.testing.assert_array_equal(augmented(images), augmented(images))


@pytest.mark.parametrize("other", [[1, 3], [2, 2], [2, 1]])
def test_other_seed_other_images(other):
    images = noise()
    different = augmented(images) != augmented(images, tf.constant(other))
    changed = tf.reduce_any(different, [1, 2, 3])
    assert np.mean(changed) > 0.5


def test_graph_equals_eager_and_keeps_the_shape():
    images = noise()
    graph = tf.function(augmented)
    got = graph(images)
    assert (got.dtype, got.shape) == (tf.uint8, images.shape)
    assert graph.get_concrete_function(images).output_shapes == images.shape
    np.testing.assert_array_equal(got, augmented(images))


def test_no_layers_change_nothing():
    images = noise()
    np.testing.assert_array_equal(augmented(images, num_layers=0), images)


def test_each_operation_happens_as_drawn():
    """One layer equals the operation applied by hand to each image alone."""
    images = noise(batch=128, size=8)
    arguments = rand_augment.level_arguments(
        9, translate_const=2, cutout_const=2
    )
    (draws,) = rand_augment.draw_layers(images, seed=SEED, num_layers=1)
    got = augmented(images, magnitude=9, num_layers=1)
    by_hand = {
        "Invert": lambda x, sign, center: augment.invert(x),
        "Rotate": lambda x, sign, center: augment.rotate(
            x, sign * arguments.degrees
        ),
        "TranslateY": lambda x, sign, center: augment.translate_y(
            x, sign * arguments.translate_pixels
        ),
        "Posterize": lambda x, sign, center: augment.posterize(x, 3),
        "Color": lambda x, sign, center: augment.color(x, 1.72),
        "Cutout": lambda x, sign, center: augment.cutout(
            x, center=center[None], half_size=1
        ),
    }
    names = [*rand_augment.OPERATIONS, "none"]
    seen = set()
    for i, which in enumerate(draws.operation.numpy()):
        want = images[i]
        if names[which] in by_hand:
            operation = by_hand[names[which]]
            want = operation(images[i][None], draws.sign[i], draws.center[i])[0]
        elif names[which] != "none":
            continue
        seen.add(names[which])
        np.testing.assert_array_equal(got[i], want)
    assert seen == {*by_hand, "none"}


@pytest.fixture(scope="module")
def many_draws():
    """Two layers for 60,000 images."""
    images = tf.zeros([60_000, 4, 2, 3], tf.uint8)
    return rand_augment.draw_layers(images, seed=SEED, num_layers=2)


def test_operations_are_drawn_uniformly(many_draws):
    for draws in many_draws:
        counts = np.bincount(draws.operation, minlength=COUNT + 1)
        # A mean probability of 1/2, so 1/30 each: 2000 +- 44.
        assert np.all(np.abs(counts[:COUNT] - 2_000) < 5 * 44)
        assert abs(counts[COUNT] - 30_000) < 5 * 123


def test_both_layers_of_an_image_share_one_probability(many_draws):
    """With p ~ U(.2, .8), E[p^2] = .25 + .6^2 / 12 = .28, not .25."""
    first, second = (d.operation.numpy() < COUNT for d in many_draws)
    assert abs(np.mean(first & second) - 0.28) < 5 * 0.0018


def test_layers_draw_their_operations_apart(many_draws):
    first, second = (d.operation.numpy() for d in many_draws)
    both = (first < COUNT) & (second < COUNT)
    assert abs(np.mean(first[both] == second[both]) - 1 / COUNT) < 0.01


def test_signs_and_centers(many_draws):
    sign, center = many_draws[0].sign.numpy(), many_draws[0].center.numpy()
    assert set(np.unique(sign)) == {-1, 1}
    assert abs(sign.mean()) < 5 / np.sqrt(60_000)
    cells = np.bincount(center[:, 0] * 2 + center[:, 1], minlength=8)
    assert len(cells) == 8
    assert np.all(np.abs(cells - 7_500) < 5 * 81)


def test_random_flip_mirrors_half():
    images = noise(batch=2_000, size=4)
    got = rand_augment.random_flip(images, seed=SEED).numpy()
    same = np.all(got == images, axis=(1, 2, 3))
    mirrored = np.all(got == images[:, :, ::-1], axis=(1, 2, 3))
    assert np.all(same ^ mirrored)
    assert abs(mirrored.mean() - 0.5) < 5 * 0.0112


def test_random_crop_reaches_every_offset_alike():
    places = np.zeros([4_500, 5, 5, 3], np.uint8)
    places[:, 2, 2] = 255  # ends up at 2 - offset
    got = rand_augment.pad_and_random_crop(
        tf.constant(places), seed=SEED, pad=1
    ).numpy()
    landed = np.argwhere(got[..., 0] == 255)[:, 1:]
    assert len(landed) == 4_500
    assert landed.min() == 1 and landed.max() == 3
    counts = np.bincount(landed[:, 0] * 5 + landed[:, 1])
    counts = counts[counts > 0]
    assert len(counts) == 9
    assert np.all(np.abs(counts - 500) < 5 * 21)


def test_random_crop_fills_with_grey():
    images = tf.zeros([64, 4, 4, 3], tf.uint8)
    got = rand_augment.pad_and_random_crop(images, seed=SEED, pad=2)
    assert np.unique(got).tolist() == [0, 128]


def test_random_cutout_never_exceeds_its_square():
    images = tf.zeros([500, 12, 12, 3], tf.uint8)
    got = rand_augment.random_cutout(images, seed=SEED, half_size=3)
    sizes = np.sum(got[..., 0] == 128, axis=(1, 2))
    # From the corner [0, 3) x [0, 3) to the whole square of side 6.
    assert (sizes.min(), sizes.max()) == (9, 36)
