"""Image files to pixels, by TensorFlow's decoders, within a stated size."""

import os
import stat

import tensorflow as tf

from meta_pseudo_labels.data.images.headers import (
    START_BYTES,
    ImageError,
    image_kind,
    read_header,
)

MAX_PIXELS = 64_000_000  # 8,000 x 8,000; 192 MB decoded.
_BYTES_PER_PIXEL = 8  # Of the largest sort, a PNG with 16 bits and alpha.


def decode_image(data, *, max_pixels=MAX_PIXELS):
    """Decodes an image to RGB.

    JPEG (dct_method INTEGER_ACCURATE; CMYK becomes RGB as TensorFlow does it),
    PNG, BMP, GIF and, where TensorFlow decodes it, WebP. Of an animation the
    first frame counts. Grey becomes RGB, alpha is dropped (not blended), of 16
    bits the upper 8 stay. Orientation in EXIF is not heeded.

    Args:
      data: bytes, the whole file.
      max_pixels: height * width at most; it is known from the header, before
        anything is decoded.

    Returns:
      [H, W, 3] uint8.

    Raises:
      ImageError: a ValueError, where the bytes are no such image or too large.
    """
    header = read_header(data)
    if header.pixels > max_pixels:
        raise ImageError(
            f"{header.kind} of {header.width} x {header.height} pixels; at "
            f"most {max_pixels} are decoded"
        )
    try:
        with tf.device("CPU:0"):
            return _DECODERS[header.kind](data, header).numpy()
    except tf.errors.OpError as error:
        reason = error.message.rsplit("}} ", 1)[-1].split("\n")[0]
        raise ImageError(f"broken {header.kind}: {reason}") from error


def read_image_file(path, *, max_pixels=MAX_PIXELS):
    """Reads the bytes of an image file, after a look at what it is.

    Args:
      path: a local file.
      max_pixels: a file of more than 8 times as many bytes is refused.

    Returns:
      bytes.

    Raises:
      ImageError: where it cannot be read, is no image, or is too large.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # A pipe would never end.
            raise ImageError("not a regular file")
        with open(path, "rb") as file:
            start = file.read(START_BYTES)
            image_kind(start)
            limit = _BYTES_PER_PIXEL * max_pixels + START_BYTES
            if status.st_size > limit:
                raise ImageError(
                    f"{status.st_size} bytes; at most {limit} are read"
                )
            return start + file.read(limit)
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error


def _jpeg(data, header):
    del header
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


def _png(data, header):
    del header
    return tf.io.decode_png(data, channels=3)


def _gif(data, header):
    """Decodes the first frame alone: the others would cost memory too."""
    start, end = header.first_frame
    trailer = b";"
    return tf.io.decode_gif(data[start:end] + trailer)[0]


def _bmp(data, header):
    del header
    return _rgb(tf.io.decode_bmp(data))


def _webp(data, header):
    """Decodes the first frame alone, as a file of its own.

    TensorFlow 2.21 writes past the end of its memory in animations that have
    no alpha, and the process dies.
    """
    if not hasattr(tf.io, "decode_webp"):
        raise ImageError(
            f"WebP, which TensorFlow {tf.__version__} does not decode"
        )
    start, end = header.first_frame
    chunk = data[start:end]
    size = (len(chunk) + 4).to_bytes(4, "little")
    return _rgb(tf.io.decode_webp(b"RIFF" + size + b"WEBP" + chunk)[0])


def _rgb(image):
    """Three channels, from one (grey) or four (alpha last)."""
    if image.shape[-1] == 1:
        return tf.image.grayscale_to_rgb(image)
    return image[..., :3]


_DECODERS = dict(JPEG=_jpeg, PNG=_png, GIF=_gif, BMP=_bmp, WebP=_webp)
