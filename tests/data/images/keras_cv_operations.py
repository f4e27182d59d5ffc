"""KerasCV 0.9's layers in the shape of our operations.

Each takes images [B, H, W, 3] float32 in 0..255 and the release's amount, and
gives it to the layer through `augment_images(images, transformations)`: the
one way to give an amount per image.
"""

import keras_cv
import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.images import operations

GEOMETRY = dict(
    interpolation="nearest", fill_mode="constant", fill_value=operations.FILL
)
RANGE = (0, 255)
layers = keras_cv.layers


def each(images, value, *shape):
    """`value` for each image: float32 [batch, *shape]."""
    return tf.fill([len(images), *shape], tf.cast(value, tf.float32))


def autocontrast(images, _):
    return layers.AutoContrast(RANGE).augment_images(images)


def solarize(images, threshold):
    layer = layers.Solarization(RANGE)
    amounts = {
        "thresholds": each(images, threshold, 1, 1, 1),
        "additions": each(images, 0, 1, 1, 1),
    }
    return layer.augment_images(images, amounts)


def posterize(images, bits):
    return layers.Posterization(RANGE, bits=int(bits)).augment_image(images)


def rotate(images, degrees):
    radians = each(images, degrees) * (np.pi / 180)
    layer = layers.RandomRotation(1.0, **GEOMETRY)
    return layer.augment_images(images, {"angles": radians})


def shear_x(images, slope):
    layer = layers.RandomShear(x_factor=1.0, **GEOMETRY)
    amounts = {"shear_x": each(images, slope, 1), "shear_y": None}
    return layer.augment_images(images, amounts)


def shear_y(images, slope):
    layer = layers.RandomShear(y_factor=1.0, **GEOMETRY)
    amounts = {"shear_x": None, "shear_y": each(images, slope, 1)}
    return layer.augment_images(images, amounts)


def translate_x(images, pixels):
    return _translate(images, right=-pixels, down=0)


def translate_y(images, pixels):
    return _translate(images, right=0, down=-pixels)


def _translate(images, *, right, down):
    layer = layers.RandomTranslation(1.0, 1.0, **GEOMETRY)
    height, width = images.shape[1:3]
    amounts = {
        "width_translations": each(images, right / width, 1),
        "height_translations": each(images, down / height, 1),
    }
    return layer.augment_images(images, amounts)


def cutout(images, half_size, center):
    layer = layers.RandomCutout(
        1.0, 1.0, fill_mode="constant", fill_value=operations.FILL
    )
    sides = tf.fill([len(images)], 2 * int(half_size))
    amounts = {
        "centers_y": tf.constant(center[:, 0]),
        "centers_x": tf.constant(center[:, 1]),
        "rectangles_height": sides,
        "rectangles_width": sides,
    }
    return layer.augment_images(images, amounts)


def equalize(images, _):
    return layers.Equalization(RANGE).augment_images(images)


def color(images, factor):
    layer = layers.RandomColorDegeneration(1.0)
    return layer.augment_images(images, each(images, 1 - factor, 1, 1, 1))


def sharpness(images, factor):
    layer = layers.RandomSharpness(1.0, RANGE)
    return layer.augment_images(images, each(images, 1 - factor, 1, 1, 1))


def contrast(images, factor):
    layer = layers.RandomContrast(RANGE, 1.0)
    return layer.augment_images(images, each(images, factor, 1, 1, 1))


def brightness(images, factor):
    """The layer adds; this much it adds to a white pixel."""
    layer = layers.RandomBrightness(1.0, RANGE)
    return layer.augment_images(
        images, each(images, 255 * (factor - 1), 1, 1, 1)
    )
