"""Another image size, made once when a data set is loaded.

`resize_images` is for arrays of small images and samples as the release does;
`square_image` is for pictures of any shape, which are mostly made smaller.
"""

import numpy as np
import tensorflow as tf

_CHUNK = 1_000  # Images resized at a time: the float32 copy stays small.


def resize_images(images, image_size):
    """Resizes to image_size x image_size, as the release's CIFAR parser.

    Bicubic, without antialiasing and with the sampling grid of TensorFlow 1,
    where output pixel x reads from x * old / new (`resize_bicubic` in
    `data_utils._cifar10_parser`). The release keeps the float32 result, which
    may leave 0..255; this one is rounded and clipped.

    Args:
      images: [N, H, W, 3] uint8.
      image_size: new height and width, pixels; None or the present one
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


def square_image(image, image_size):
    """Scales the short side to image_size, then crops the centre.

    Bicubic, with antialiasing where the picture becomes smaller. The central
    square is cut out first, which gives the same at less work; where the
    margins differ by a pixel, the left and the upper one are the smaller.

    Args:
      image: [H, W, 3] uint8, not empty.
      image_size: new height and width, pixels.

    Returns:
      [image_size, image_size, 3] uint8; `image` itself if it has that shape.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if side == image_size:
        return square
    with tf.device("CPU:0"):
        scale = np.full([2], image_size / side, np.float32)
        values = _scaled(square[np.newaxis], scale, image_size)
        return np.clip(np.rint(values[0]), 0, 255).astype(np.uint8)


def square_images(images, image_size):
    """`square_image` of a batch, in a graph that takes any size.

    Args:
      images: [N, H, W, 3] uint8, H and W at least 1.
      image_size: new height and width, pixels.

    Returns:
      [N, image_size, image_size, 3] uint8.
    """
    height, width = tf.unstack(tf.shape(images)[1:3])
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[:, top : top + side, left : left + side]
    scale = tf.cast(image_size / side, tf.float32)  # From float64.
    return _to_uint8(_scaled(square, tf.stack([scale, scale]), image_size))


def _scaled(squares, scale, image_size):
    """[N, image_size, image_size, 3] float32; scale is [2] float32."""
    # What tf.image.resize comes to, without the Python around it, which takes
    # three times as long for a small image.
    return tf.raw_ops.ScaleAndTranslate(
        images=squares,
        size=[image_size] * 2,
        scale=scale,
        translation=np.zeros([2], np.float32),
        kernel_type="keyscubic",
        antialias=True,
    )


def _to_uint8(values):
    return tf.cast(tf.clip_by_value(tf.round(values), 0, 255), tf.uint8)
