"""KerasCV 0.9's layers beside the release's outputs, operation by operation.

Largest difference from augment_ops.npz in levels of 0..255, at magnitudes 1, 5,
10, 16, 17 (the layers' float32 truncated to uint8), and the layer's time as a
multiple of ours on uint8 [128, 32, 32, 3], per-image amounts, two busy cores:
the range of three runs of `test_ours_are_as_fast`.

    operation      KerasCV layer            difference             time
    AutoContrast   AutoContrast             0                      1.7 to 1.8
    Invert         Solarization(0)          0                      3.7 to 5.6
    Solarize       Solarization             0 with threshold % 256 2.4 to 2.9
    Posterize      Posterization            0; refuses 0 bits      2.1 to 2.3
    Rotate         RandomRotation           0                      1.15
    ShearX, ShearY RandomShear              0                      1.14
    TranslateX, Y  RandomTranslation        0 at 32x32             1.15
    Cutout         RandomCutout             0                      1.9 to 2.0
    Equalize       Equalization             64
    Color          RandomColorDegeneration  1, 0, 2, 2, 3
    Sharpness      RandomSharpness          1, 0, 2, 3, 3
    Contrast       RandomContrast           181, 0, 135, 255, 255
    Brightness     RandomBrightness         51, 0, 229, 255, 255

Why ours serve also where the pixels are the same:
* They are faster, as they stay in uint8 (the layers return float32).
* A layer asks for TensorFlow's global random generator when it is built, even
  with a seed and though `augment_images` draws nothing. In a run with
  `enable_op_determinism` that is an error; elsewhere it makes a variable, after
  which devices cannot be set up any more.
* RandomTranslation takes a share of the side: 15.5 pixels of 224 come back as
  a number that rounds to another pixel.
"""

import time

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.data.images import operations as augment
from tests.data.images import keras_cv_operations as kcv


@pytest.fixture(scope="module")
def release(reference_dir):
    with np.load(reference_dir / "augment_ops.npz") as arrays:
        return dict(arrays)


def difference(got, release, key, row):
    """Largest difference from the release, in levels of 0..255."""
    truncated = tf.cast(tf.clip_by_value(got, 0, 255), tf.int32)
    return int(np.abs(truncated - release[f"out/{key}"][row]).max())


@pytest.mark.parametrize("row", range(5))
@pytest.mark.parametrize(
    "key, operation",
    [
        ("autocontrast", kcv.autocontrast),
        ("rotate_pos", kcv.rotate),
        ("rotate_neg", kcv.rotate),
        ("shear_x_pos", kcv.shear_x),
        ("shear_x_neg", kcv.shear_x),
        ("shear_y_pos", kcv.shear_y),
        ("shear_y_neg", kcv.shear_y),
        ("translate_x_pos", kcv.translate_x),
        ("translate_x_neg", kcv.translate_x),
        ("translate_y_pos", kcv.translate_y),
        ("translate_y_neg", kcv.translate_y),
        ("translate_x_const100_pos", kcv.translate_x),
        ("translate_y_const100_neg", kcv.translate_y),
    ],
)
def test_same_pixels(release, key, operation, row):
    images = tf.cast(release["images"], tf.float32)
    got = operation(images, float(release[f"arg/{key}"][row]))
    assert difference(got, release, key, row) == 0


def test_inverted_pixels_are_the_same(release):
    images = tf.cast(release["images"], tf.float32)
    assert difference(kcv.solarize(images, 0), release, "invert", 0) == 0


@pytest.mark.parametrize("row, as_given", [*enumerate([0, 0, 255, 255, 255])])
def test_solarize_needs_the_release_s_threshold(release, row, as_given):
    """KerasCV compares in float32: 256 inverts nothing (quirk 28)."""
    images = tf.cast(release["images"], tf.float32)
    threshold = int(release["arg/solarize"][row])
    got = kcv.solarize(images, threshold % 256)
    assert difference(got, release, "solarize", row) == 0
    got = kcv.solarize(images, threshold)
    assert difference(got, release, "solarize", row) == as_given


@pytest.mark.parametrize("row", range(1, 5))
def test_posterized_pixels_are_the_same(release, row):
    images = tf.cast(release["images"], tf.float32)
    got = kcv.posterize(images, release["arg/posterize"][row])
    assert difference(got, release, "posterize", row) == 0


def test_posterize_refuses_the_release_s_zero_bits(release):
    assert release["arg/posterize"][0] == 0
    with pytest.raises(ValueError, match="Received bits: 0"):
        kcv.posterize(tf.zeros([1, 4, 4, 3]), 0)


@pytest.mark.parametrize("row", range(5))
@pytest.mark.parametrize("key", ["cutout", "cutout_const40"])
def test_cut_out_pixels_are_the_same(release, key, row):
    images = tf.cast(release["images"], tf.float32)
    center = release[f"center_yx/{key}"][row].astype(np.int32)
    got = kcv.cutout(images, release[f"arg/{key}"][row], center)
    assert difference(got, release, key, row) == 0


@pytest.mark.parametrize(
    "operation, largest",
    [
        # The histogram's smallest bin is left out, not its last.
        (kcv.equalize, [64] * 5),
        # Gray and smooth versions are not truncated to whole levels, and the
        # result is truncated without the factor 255.5 / 255.
        (kcv.color, [1, 0, 2, 2, 3]),
        (kcv.sharpness, [1, 0, 2, 3, 3]),
        # About each channel's mean; the release's gray is pixels / 256.
        (kcv.contrast, [181, 0, 135, 255, 255]),
        # A sum, where the release has a product.
        (kcv.brightness, [51, 0, 229, 255, 255]),
    ],
)
def test_other_pixels(release, operation, largest):
    key = operation.__name__
    images = tf.cast(release["images"], tf.float32)
    got = []
    for row in range(5):
        amount = release[f"arg/{key}"][row]  # NaN for equalize
        got.append(difference(operation(images, amount), release, key, row))
    assert got == largest


def test_translation_by_a_share_rounds_elsewhere():
    images = np.random.RandomState(0).randint(0, 256, [1, 4, 224, 3], np.uint8)
    ours = augment.translate_x(images, 15.5)
    np.testing.assert_array_equal(ours[:, :, :208], images[:, :, 16:])
    got = kcv.translate_x(tf.cast(images, tf.float32), 15.5)
    np.testing.assert_array_equal(got[:, :, 1:], ours[:, :, 1:])
    np.testing.assert_array_equal(got[:, :, 0], images[:, :, 15])


def test_layers_cannot_be_built_in_a_deterministic_run(monkeypatch):
    """They ask for TensorFlow's global generator, with or without a seed."""
    asked = []

    def refuse():
        asked.append(True)
        raise RuntimeError("not with enable_op_determinism")

    monkeypatch.setattr(tf.random, "get_global_generator", refuse)
    for settings in ({}, {"seed": 0}):
        with pytest.raises(RuntimeError, match="enable_op_determinism"):
            kcv.layers.RandomShear(x_factor=0.3, **settings)
    assert len(asked) == 2


def _pairs(images):
    """By name: our operation and KerasCV's, uint8 to uint8."""
    center = np.tile(np.int32([[3, 20]]), [len(images), 1])
    pairs = {
        "autocontrast": (
            augment.autocontrast,
            lambda x: kcv.autocontrast(x, None),
            (),
        ),
        "invert": (augment.invert, lambda x: kcv.solarize(x, 0), ()),
        "solarize": (augment.solarize, kcv.solarize, (153,)),
        "posterize": (augment.posterize, kcv.posterize, (4,)),
        "rotate": (augment.rotate, kcv.rotate, (30.0,)),
        "shear_x": (augment.shear_x, kcv.shear_x, (0.3,)),
        "translate_x": (augment.translate_x, kcv.translate_x, (4.0,)),
        "cutout": (
            lambda x, half: augment.cutout(x, center=center, half_size=half),
            lambda x, half: kcv.cutout(x, half, center),
            (6,),
        ),
    }
    for name, (ours, theirs, arguments) in pairs.items():
        yield (
            name,
            tf.function(lambda x, f=ours, a=arguments: f(x, *a)),
            tf.function(
                lambda x, f=theirs, a=arguments: tf.cast(
                    f(tf.cast(x, tf.float32), *a), tf.uint8
                )
            ),
        )


@pytest.mark.long
def test_ours_are_as_fast(capsys):
    images = np.random.RandomState(0).randint(
        0, 256, [128, 32, 32, 3], np.uint8
    )
    images = tf.constant(images)
    ratios = {}
    for name, *operations in _pairs(images):
        np.testing.assert_array_equal(*[f(images) for f in operations])
        seconds = [[], []]
        for _ in range(100):  # Taken in turn, so that both meet the same load.
            for operation, taken in zip(operations, seconds, strict=True):
                start = time.perf_counter()
                operation(images)
                taken.append(time.perf_counter() - start)
        ours, theirs = (np.median(taken) for taken in seconds)
        ratios[name] = theirs / ours
    with capsys.disabled():
        print({name: round(float(ratio), 2) for name, ratio in ratios.items()})
    assert np.exp(np.mean(np.log([*ratios.values()]))) > 1
