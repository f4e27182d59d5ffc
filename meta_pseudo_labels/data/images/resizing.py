"""Resizing, done once when a data set is loaded.

`resize_images` is for arrays of small images and samples as the release does;
`square_image` is for pictures of any shape, which mostly become smaller.
"""

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.spec import FILL

_CHUNK = 1_000  # Images resized at a time: the float32 copy stays small.


def resize_images(images, image_size):
    """Resizes to image_size x image_size, like the release's CIFAR parser.

    Bicubic, without antialiasing and with the sampling grid of TensorFlow 1,
    in which output pixel x reads from x * old / new (`resize_bicubic` in
    `data_utils._cifar10_parser`). The release keeps the float32 result, which
    may leave 0..255; here it is rounded and clipped.

    Args:
      images: [N, H, W, 3] uint8.
      image_size: new height and width, pixels; None or the present size
        returns `images` themselves.

    Returns:
      [N, image_size, image_size, 3] uint8.

    Raises:
      ValueError: if `image_size` is below 1.
    """
    if image_size is None or images.shape[1:3] == (image_size, image_size):
        return images
    if image_size < 1:
        raise ValueError(f"image_size is {image_size}; give pixels, 1 or more.")
    shape = [len(images), image_size, image_size, 3]
    resized = np.empty(shape, np.uint8)
    with tf.device("CPU:0"):
        for start in range(0, len(images), _CHUNK):
            part = slice(start, start + _CHUNK)
            resized[part] = resized_as_released(images[part], image_size)
    return resized


def resized_as_released(images, image_size):
    """The operation of `resize_images`, eager or in a graph.

    Args:
      images: [N, H, W, 3] uint8, H and W at least 1.
      image_size: new height and width, pixels.

    Returns:
      [N, image_size, image_size, 3] uint8.
    """
    # align_corners and half_pixel_centers are off: TensorFlow 1's grid.
    values = tf.raw_ops.ResizeBicubic(images=images, size=[image_size] * 2)
    return _to_uint8(values)


def square_image(image, image_size, fit="crop", background=FILL):
    """Makes a square out of a picture of any shape.

    Bicubic, with antialiasing if the picture becomes smaller.

    Args:
      image: [H, W, 3] uint8, not empty.
      image_size: new height and width, pixels.
      fit: one of `spec.FITS`: "crop" scales the short side to image_size and
        keeps the center (which is cut out first, for the same result with less
        work); "pad" scales the long side and fills the rest with the
        background; "squash" scales each side by itself. If margins differ by a
        pixel, the left and the upper one are the smaller.
      background: level of what "pad" adds, 0..255.

    Returns:
      [image_size, image_size, 3] uint8; `image` itself if it has that shape.
    """
    height, width = image.shape[:2]
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    if image.shape[:2] == (image_size, image_size):
        return image
    with tf.device("CPU:0"):
        scaled = _fitted(image[np.newaxis], image_size, fit, background)
        return scaled[0].numpy()


def square_images(images, image_size, fit="crop", background=FILL):
    """`square_image` for a batch, in a graph that accepts any size.

    Args:
      images: [N, H, W, 3] uint8, H and W at least 1.
      image_size, fit, background: see `square_image`.

    Returns:
      [N, image_size, image_size, 3] uint8.
    """
    if fit == "crop":
        height, width = tf.unstack(tf.shape(images)[1:3])
        side = tf.minimum(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        images = images[:, top : top + side, left : left + side]
    return _fitted(images, image_size, fit, background)


def _fitted(images, image_size, fit, background):
    """[N, image_size, image_size, 3] uint8; for "crop" the input is square."""
    shape = tf.shape(images)[1:3]
    if fit != "pad":
        scale = tf.cast(image_size / shape, tf.float32)  # From float64.
        return _to_uint8(_scaled(images, scale, [image_size] * 2))
    scale = image_size / tf.reduce_max(shape)
    size = tf.cast(tf.round(tf.cast(shape, tf.float64) * scale), tf.int32)
    size = tf.maximum(size, 1)
    scale = tf.repeat(tf.cast(scale, tf.float32), 2)
    scaled = _to_uint8(_scaled(images, scale, size))
    before = (image_size - size) // 2
    margins = tf.stack([before, image_size - size - before], axis=1)
    return tf.pad(
        scaled,
        tf.pad(margins, [[1, 1], [0, 0]]),
        constant_values=tf.cast(background, tf.uint8),
    )


def _scaled(images, scale, size):
    """[N, *size, 3] float32; scale is [2] float32."""
    # What tf.image.resize does, without the Python around it, which takes three
    # times as long for a small image.
    return tf.raw_ops.ScaleAndTranslate(
        images=images,
        size=size,
        scale=scale,
        translation=np.zeros([2], np.float32),
        kernel_type="keyscubic",
        antialias=True,
    )


def _to_uint8(values):
    return tf.cast(tf.clip_by_value(tf.round(values), 0, 255), tf.uint8)
