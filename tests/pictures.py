"""Picture files of every sort, made with Pillow."""

import io
import struct

import numpy as np
from PIL import Image

TAG = 0x0112  # Of the orientation.


def colors(height=20, width=30):
    """[height, width, 3] uint8 without a symmetry, smooth as photographs."""
    row, column = np.mgrid[:height, :width]
    levels = [
        255 * column / (width - 1),
        255 * row / (height - 1),
        128 + 60 * np.sin(column / 5),
    ]
    return np.stack(levels, axis=-1).astype(np.uint8)


def encoded(pixels, kind="PNG", mode=None, **settings):
    """The file of some pixels, bytes; of a list of them, an animation."""
    first, *more = [
        Image.fromarray(one).convert(mode) if mode else Image.fromarray(one)
        for one in (pixels if isinstance(pixels, list) else [pixels])
    ]
    if more:
        settings |= dict(save_all=True, append_images=more)
    file = io.BytesIO()
    first.save(file, kind, **settings)
    return file.getvalue()


def turned(orientation, kind="JPEG", pixels=None, **settings):
    """A file whose Exif data has an orientation."""
    exif = Image.Exif()
    exif[0x010F] = "A maker of cameras"
    exif[TAG] = orientation
    pixels = colors() if pixels is None else pixels
    return encoded(pixels, kind, exif=exif.tobytes(), **settings)


def as_big_endian(jpeg):
    """A JPEG whose Exif data has no other entry, in Motorola's order."""
    start = jpeg.index(b"Exif\0\0")
    (length,) = struct.unpack_from(">H", jpeg, start - 2)
    orientation = Image.open(io.BytesIO(jpeg)).getexif()[TAG]
    tiff = struct.pack(">2sHIH", b"MM", 42, 8, 1)
    tiff += struct.pack(">HHIHHI", TAG, 3, 1, orientation, 0, 0)
    segment = b"Exif\0\0" + tiff
    head = jpeg[: start - 2] + struct.pack(">H", len(segment) + 2)
    return head + segment + jpeg[start - 2 + length :]


def deep(levels, kind="PNG"):
    """A PNG of 16 bits, [H, W] gray or [H, W, 3]; TensorFlow writes colors."""
    import tensorflow as tf

    levels = np.atleast_3d(np.asarray(levels, np.uint16))
    return tf.io.encode_png(levels).numpy()
