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
    size = [image_size, image_size]
    resized = np.empty([len(images), *size, 3], np.uint8)
    with tf.device("CPU:0"):
        for start in range(0, len(images), _CHUNK):
            part = slice(start, start + _CHUNK)
            # align_corners and half_pixel_centers are off: TensorFlow 1's grid.
            values = tf.raw_ops.ResizeBicubic(images=images[part], size=size)
            resized[part] = np.clip(np.rint(values), 0, 255)
    return resized


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
        # What tf.image.resize comes to, without the Python around it, which
        # takes three times as long for a small image.
        values = tf.raw_ops.ScaleAndTranslate(
            images=square[np.newaxis],
            size=[image_size] * 2,
            scale=np.full([2], image_size / side, np.float32),
            translation=np.zeros([2], np.float32),
            kernel_type="keyscubic",
            antialias=True,
        )
        return np.clip(np.rint(values[0]), 0, 255).astype(np.uint8)
