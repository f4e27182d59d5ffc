import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.data.images import operations, rand_augment

MAGNITUDES = [1, 5, 10, 16, 17]
BLENDS = ("color", "contrast", "brightness", "sharpness")
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


@pytest.fixture(scope="module")
def stored_arguments(reference_dir):
    """By operation as the file names it: [5] amounts, NaN where none."""
    with np.load(reference_dir / "augment_ops.npz") as file:
        assert file["levels"].tolist() == MAGNITUDES
        return {
            name.removeprefix("arg/"): file[name]
            for name in file.files
            if name.startswith("arg/")
        }


# Of each operation of the file: the field, for which constants, which sign.
ARGUMENTS = {
    **{name: ("factor", 4, 1) for name in BLENDS},
    "posterize": ("bits", 4, 1),
    "solarize": ("threshold", 4, 1),
    "cutout": ("cutout_half_size", 4, 1),
    "cutout_const40": ("cutout_half_size", 40, 1),
} | {
    f"{name}_{text}": (field, const, sign)
    for text, sign in (("pos", 1), ("neg", -1))
    for name, field, const in (
        ("rotate", "degrees", 4),
        ("shear_x", "slope", 4),
        ("shear_y", "slope", 4),
        ("translate_x", "translate_pixels", 4),
        ("translate_y", "translate_pixels", 4),
        ("translate_x_const100", "translate_pixels", 100),
        ("translate_y_const100", "translate_pixels", 100),
    )
}


def test_every_argument_of_the_file_is_compared(stored_arguments):
    without = {"autocontrast", "equalize", "invert"}
    never_drawn = {"identity", "solarize_add"}  # Not among the 15, quirk 26.
    assert stored_arguments.keys() == ARGUMENTS.keys() | without | never_drawn
    assert all(np.isnan(stored_arguments[name]).all() for name in without)


@pytest.mark.parametrize("row, magnitude", [*enumerate(MAGNITUDES)])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_equal_release(stored_arguments, name, row, magnitude):
    field, const, sign = ARGUMENTS[name]
    arguments = rand_augment.level_arguments(
        magnitude, translate_const=const, cutout_const=const
    )
    got = sign * getattr(arguments, field)
    assert got == pytest.approx(stored_arguments[name][row], rel=1e-6)


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
        "Invert": lambda x, sign, center: operations.invert(x),
        "Rotate": lambda x, sign, center: operations.rotate(
            x, sign * arguments.degrees
        ),
        "TranslateY": lambda x, sign, center: operations.translate_y(
            x, sign * arguments.translate_pixels
        ),
        "Posterize": lambda x, sign, center: operations.posterize(x, 3),
        "Color": lambda x, sign, center: operations.color(x, 1.72),
        "Cutout": lambda x, sign, center: operations.cutout(
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


def test_random_crop_fills_with_gray():
    images = tf.zeros([64, 4, 4, 3], tf.uint8)
    got = rand_augment.pad_and_random_crop(images, seed=SEED, pad=2)
    assert np.unique(got).tolist() == [0, 128]


def test_random_cutout_never_exceeds_its_square():
    images = tf.zeros([500, 12, 12, 3], tf.uint8)
    got = rand_augment.random_cutout(images, seed=SEED, half_size=3)
    sizes = np.sum(got[..., 0] == 128, axis=(1, 2))
    # From the corner [0, 3) x [0, 3) to the whole square of side 6.
    assert (sizes.min(), sizes.max()) == (9, 36)
