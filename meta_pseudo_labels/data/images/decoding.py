"""Decodes image files with TensorFlow's decoders, up to a given size."""

import os
import stat

import tensorflow as tf

from meta_pseudo_labels.data.images.headers import (
    START_BYTES,
    ImageError,
    image_kind,
    read_header,
)
from meta_pseudo_labels.data.images.levels import (
    DEEP,
    decode_deep,
    is_deep,
    to_8_bits,
)
from meta_pseudo_labels.data.images.orientation import upright

MAX_PIXELS = 64_000_000  # 8,000 x 8,000; 192 MB decoded.
_BYTES_PER_PIXEL = 8  # Of the largest kind, a PNG with 16 bits and alpha.


def decode_image(data, *, max_pixels=MAX_PIXELS, deep_levels=None):
    """Decodes an image to RGB.

    JPEG (dct_method INTEGER_ACCURATE; CMYK becomes RGB as TensorFlow does it),
    PNG, BMP, GIF and, if TensorFlow can decode it, WebP. The first frame of an
    animation is used. Gray becomes RGB, alpha is dropped (not blended), 16 bits
    become 8, see `levels.to_8_bits`. The picture is rotated or flipped as its
    Exif data says.

    Args:
      data: bytes, the whole file.
      max_pixels: largest height * width; the header tells it before anything
        is decoded.
      deep_levels: for 16-bit pictures, see `DatasetSpec`.

    Returns:
      [H, W, 3] uint8.

    Raises:
      ImageError: a ValueError, if the bytes are not such an image, or it is
        too large.
    """
    header = read_header(data)
    if header.pixels > max_pixels:
        raise ImageError(
            f"{header.kind} of {header.width} x {header.height} pixels; at "
            f"most {max_pixels} are decoded"
        )
    try:
        with tf.device("CPU:0"):
            if is_deep(data):
                image = to_8_bits(decode_deep(data), deep_levels)
            else:
                image = _DECODERS[header.kind](data, header)
            return upright(image.numpy(), header.orientation)
    except tf.errors.OpError as error:
        raise broken(header.kind, error) from error


def read_image_file(path, *, max_pixels=MAX_PIXELS):
    """Reads the bytes of an image file, after checking what it is.

    Args:
      path: a local file.
      max_pixels: a file of more than 8 times this many bytes is refused.

    Returns:
      bytes.

    Raises:
      ImageError: if it cannot be read, is not an image, or is too large.
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


def deep_extremes(path, *, max_pixels=MAX_PIXELS):
    """The lowest and the highest level of a 16-bit picture.

    Args:
      path: any file.
      max_pixels: see `decode_image`.

    Returns:
      Two ints; None for other files and for those that cannot be read.
    """
    try:
        if not os.path.isfile(path):
            return None
        with open(path, "rb") as file:
            if not is_deep(file.read(START_BYTES)):
                return None
        data = read_image_file(path, max_pixels=max_pixels)
        if read_header(data).pixels > max_pixels:
            return None
        with tf.device("CPU:0"):
            image = decode_deep(data).numpy()
    except (ImageError, OSError, tf.errors.OpError):
        return None  # Reading it again will tell what is wrong.
    return int(image.min()), int(image.max())


def broken(kind, error):
    """What TensorFlow raised on an image, as an `ImageError`."""
    text = error.message.split("\n")[0]
    _, deep, rest = text.partition(DEEP)  # Ours, within TensorFlow's words.
    if deep:
        return ImageError(f"{kind} of {deep}" + rest.rstrip("]'"))
    return ImageError(f"broken {kind}: " + text.rsplit("}} ", 1)[-1])


def _jpeg(data, header):
    del header
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


def _png(data, header):
    del header
    return tf.io.decode_png(data, channels=3)


def _gif(data, header):
    """Decodes only the first frame: the others would cost memory too.

    Its transparent color is drawn as its actual color, as for a PNG;
    TensorFlow would make it black.
    """
    start, end = header.first_frame
    frame = bytearray(data[start:end])
    if header.transparency is not None:
        frame[header.transparency] &= 0xFE
    trailer = b";"
    return tf.io.decode_gif(bytes(frame) + trailer)[0]


def _bmp(data, header):
    del header
    return _rgb(tf.io.decode_bmp(data))


def _webp(data, header):
    """Decodes only the first frame, as a file of its own.

    For animations without alpha, TensorFlow 2.21 writes past the end of its
    memory, and the process dies.
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
    """Three channels, from one (gray) or four (alpha last)."""
    if image.shape[-1] == 1:
        return tf.image.grayscale_to_rgb(image)
    return image[..., :3]


_DECODERS = dict(JPEG=_jpeg, PNG=_png, GIF=_gif, BMP=_bmp, WebP=_webp)
