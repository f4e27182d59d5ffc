"""Another image size, made once when a data set is loaded."""

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
