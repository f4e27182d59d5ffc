import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.data.images import operations

LEVELS = [1, 5, 10, 16, 17]
INTEGER = ["posterize", "solarize"]
FACTOR = ["color", "contrast", "brightness", "sharpness"]
GEOMETRIC = ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"]


@pytest.fixture(scope="module")
def release(reference_dir):
    with np.load(reference_dir / "augment_ops.npz") as arrays:
        return dict(arrays)


def gray(rows):
    """One image [1, H, W, 3] whose channels all hold `rows`."""
    return tf.constant(np.repeat(np.uint8(rows)[None, ..., None], 3, axis=-1))


def channel(images):
    return images[0, :, :, 0].numpy().tolist()


def assert_equals_release(operation, release, name, level):
    """Eagerly and in a graph, which may reorder sums, as in tf.data."""
    row = LEVELS.index(level)
    images = tf.constant(release["images"])
    want = release[f"out/{name}"][row]
    graph = tf.function(operation, autograph=False)
    np.testing.assert_array_equal(operation(images), want)
    np.testing.assert_array_equal(graph(images), want)


def test_levels_are_those_of_the_file(release):
    assert release["levels"].tolist() == LEVELS


@pytest.mark.parametrize("name", ["autocontrast", "equalize", "invert"])
def test_operations_without_level_equal_release(release, name):
    assert_equals_release(getattr(operations, name), release, name, level=1)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", INTEGER)
def test_integer_operations_equal_release(release, name, level):
    argument = int(release[f"arg/{name}"][LEVELS.index(level)])
    assert_equals_release(
        lambda x: getattr(operations, name)(x, argument), release, name, level
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", FACTOR)
def test_blends_equal_release(release, name, level):
    argument = 1.8 * level / 10 + 0.1
    stored = release[f"arg/{name}"][LEVELS.index(level)]
    assert argument == pytest.approx(stored, rel=1e-6)
    assert_equals_release(
        lambda x: getattr(operations, name)(x, argument), release, name, level
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("sign", ["pos", "neg"])
@pytest.mark.parametrize(
    "name",
    [*GEOMETRIC, "translate_x_const100", "translate_y_const100"],
)
def test_geometric_operations_equal_release(release, name, sign, level):
    key = f"{name}_{sign}"
    argument = float(release[f"arg/{key}"][LEVELS.index(level)])
    operation = getattr(operations, name.removesuffix("_const100"))
    assert_equals_release(lambda x: operation(x, argument), release, key, level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["cutout", "cutout_const40"])
def test_cutout_equals_release(release, name, level):
    row = LEVELS.index(level)
    center = tf.constant(release[f"center_yx/{name}"][row])
    half_size = int(release[f"arg/{name}"][row])
    assert_equals_release(
        lambda x: operations.cutout(x, center=center, half_size=half_size),
        release,
        name,
        level,
    )


@pytest.mark.parametrize("name", FACTOR)
def test_blends_saturate_where_other_code_wraps(release, name):
    """The file holds the value before the cast: ours is min(value, 255)."""
    images = tf.constant(release["images"])
    got = getattr(operations, name)(images, 3.16)
    raw = release[f"raw_int/{name}"][LEVELS.index(17)]
    assert raw.max() > 255
    np.testing.assert_array_equal(got, np.minimum(raw, 255))


def test_geometric_amounts_may_differ_by_image(release):
    images = tf.constant(release["images"])
    degrees = np.float32([-48, 48] * 4)
    got = operations.rotate(images, tf.constant(degrees))
    row = LEVELS.index(16)
    np.testing.assert_array_equal(got[::2], release["out/rotate_neg"][row, ::2])
    np.testing.assert_array_equal(
        got[1::2], release["out/rotate_pos"][row, 1::2]
    )


@pytest.mark.parametrize(
    "name, arguments",
    [
        *((name, ()) for name in ("autocontrast", "equalize", "invert")),
        *((name, (4,)) for name in INTEGER),
        *((name, (1.9,)) for name in FACTOR),
        *((name, (np.zeros([0], np.float32),)) for name in GEOMETRIC),
    ],
)
def test_operations_take_no_images(name, arguments):
    """A group of `apply_by_group` is often empty."""
    nothing = tf.zeros([0, 8, 8, 3], tf.uint8)
    assert getattr(operations, name)(nothing, *arguments).shape == [0, 8, 8, 3]


def test_cutout_takes_no_images():
    nothing = tf.zeros([0, 8, 8, 3], tf.uint8)
    center = tf.zeros([0, 2], tf.int32)
    got = operations.cutout(nothing, center=center, half_size=2)
    assert got.shape == [0, 8, 8, 3]


def test_point_operations_by_hand():
    images = gray([[0, 100, 153, 255]])
    assert channel(operations.invert(images)) == [[255, 155, 102, 0]]
    assert channel(operations.posterize(images, 4)) == [[0, 96, 144, 240]]
    assert channel(operations.posterize(images, 0)) == [[0, 0, 128, 128]]
    assert channel(operations.posterize(images, 8)) == [[0, 100, 153, 255]]
    assert channel(operations.solarize(images, 153)) == [[0, 100, 102, 0]]
    # 409 is 153 modulo 256.
    assert channel(operations.solarize(images, 409)) == [[0, 100, 102, 0]]
    assert channel(operations.solarize(images, 256)) == [[255, 155, 102, 0]]


def test_autocontrast_stretches_each_channel_alone():
    images = tf.constant([[[[10, 0, 7], [20, 255, 7], [30, 51, 7]]]], tf.uint8)
    got = operations.autocontrast(images)
    assert got[0, 0].numpy().tolist() == [
        [0, 0, 7],
        [127, 255, 7],
        [255, 51, 7],
    ]


def test_brightness_by_hand():
    images = gray([[0, 100, 200]])
    # 100 / 255 * 0.5 * 255.5 = 50.1; 200 / 255 * 0.5 * 255.5 = 100.2
    assert channel(operations.brightness(images, 0.5)) == [[0, 50, 100]]
    # 200 / 255 * 2 * 255.5 = 400.8: saturates.
    assert channel(operations.brightness(images, 2.0)) == [[0, 200, 255]]
    assert channel(operations.brightness(images, 1.0)) == [[0, 100, 200]]


def test_contrast_blends_with_pixels_over_256():
    images = gray(np.full([32, 32], 204))
    # Gray 1024 / 256 = 4: (4 + 0.5 * 200) / 255 * 255.5 = 104.2
    assert np.unique(operations.contrast(images, 0.5)).tolist() == [104]


def test_moves_by_hand():
    images = gray([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert channel(operations.translate_x(images, 1.0)) == [
        [2, 3, 128],
        [5, 6, 128],
        [8, 9, 128],
    ]
    assert channel(operations.translate_y(images, -1.0)) == [
        [128, 128, 128],
        [1, 2, 3],
        [4, 5, 6],
    ]
    assert channel(operations.rotate(images, 90.0)) == [
        [3, 6, 9],
        [2, 5, 8],
        [1, 4, 7],
    ]
    assert channel(operations.shear_x(images, 1.0)) == [
        [1, 2, 3],
        [5, 6, 128],
        [9, 128, 128],
    ]
    assert channel(operations.mirror(images)) == [
        [3, 2, 1],
        [6, 5, 4],
        [9, 8, 7],
    ]


def test_crop_is_a_pad_and_a_slice():
    images = np.random.RandomState(0).randint(0, 256, [9, 5, 6, 3], np.uint8)
    top, left = np.int32([*range(-4, 5)]), np.int32([*range(4, -5, -1)])
    got = operations.crop(
        tf.constant(images), top=tf.constant(top), left=tf.constant(left)
    )
    padded = np.pad(
        images, [[0, 0], [4, 4], [4, 4], [0, 0]], constant_values=128
    )
    for i, (y, x) in enumerate(zip(top + 4, left + 4, strict=True)):
        np.testing.assert_array_equal(got[i], padded[i, y : y + 5, x : x + 6])


@pytest.mark.parametrize(
    "center, rows, columns",
    [
        ((2, 2), (0, 4), (0, 4)),  # [c - 2, c + 2), fully inside
        ((0, 0), (0, 2), (0, 2)),
        ((0, 4), (0, 2), (2, 5)),
        ((4, 0), (2, 5), (0, 2)),
        ((4, 4), (2, 5), (2, 5)),
        ((1, 3), (0, 3), (1, 5)),
    ],
)
def test_cutout_is_clipped_at_the_borders(center, rows, columns):
    images = gray(np.zeros([5, 5]))
    got = operations.cutout(images, center=tf.constant([center]), half_size=2)
    want = np.zeros([5, 5], int)
    want[slice(*rows), slice(*columns)] = 128
    assert channel(got) == want.tolist()


def test_cutout_of_nothing():
    images = gray(np.zeros([4, 4]))
    whole = operations.cutout(images, center=tf.constant([[1, 1]]), half_size=0)
    assert not whole.numpy().any()


def test_apply_by_group_keeps_places():
    images = tf.constant(np.arange(5, dtype=np.uint8)[:, None, None, None])
    images = tf.tile(images, [1, 2, 2, 3])

    def add_place(part, places):
        return part + tf.cast(places * 10, tf.uint8)[:, None, None, None]

    got = operations.apply_by_group(
        images,
        tf.constant([1, 0, 2, 1, 0]),
        [None, add_place, lambda part, _: operations.invert(part)],
    )
    assert got[:, 0, 0, 0].numpy().tolist() == [0, 1, 253, 33, 4]
