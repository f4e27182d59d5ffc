"""From any picture to what evaluation shows a model, as a graph.

For models that are exported: what the sources do to their test images in
Python or while they read, done by TensorFlow alone. There are three ways:

    ImageNet            the centre crop of 224/256 of the short side, see
                        `imagenet_views.decode_center_crop`
    folders, tfds:...   the short side scaled, then the centre cropped, see
                        `resizing.square_image`
    the other sources   all their images have one size, and are resized as the
                        release does, see `resizing.resize_images`; a picture
                        of another size is treated as one of a folder
"""

import tensorflow as tf

from meta_pseudo_labels.data.images import photo_views
from meta_pseudo_labels.data.images.decoding import MAX_PIXELS
from meta_pseudo_labels.data.images.resizing import (
    resized_as_released,
    square_images,
)
from meta_pseudo_labels.data.sources import folders, imagenet, tfds_any
from meta_pseudo_labels.data.spec import DATASETS

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_START = 24  # Bytes up to the end of width and height.


def prepare_images(images, spec):
    """Brings decoded pictures to the model's size, as evaluation does.

    Pictures of the model's own size are taken for prepared ones and stay as
    they are, those of ImageNet too.

    Args:
      images: [batch, height, width, 3] uint8, any height and width.
      spec: `DatasetSpec` of the model.

    Returns:
      [batch, image_size, image_size, 3] uint8.

    Raises:
      tf.errors.InvalidArgumentError: for pictures without a pixel.
    """
    height, width = tf.unstack(tf.shape(images)[1:3])
    size = spec.image_size
    some = tf.Assert(tf.minimum(height, width) > 0, ["images have no pixels"])
    with tf.control_dependencies([some] if some is not None else []):
        images = tf.identity(images)
    prepared = tf.cond(
        (height == size) & (width == size),
        lambda: images,
        lambda: _resized(images, spec),
    )
    return tf.ensure_shape(prepared, [None, size, size, 3])


def prepare_encoded(encoded, spec, *, max_pixels=MAX_PIXELS):
    """Decodes a picture and brings it to the model's size, as evaluation does.

    Args:
      encoded: [] string, a JPEG or PNG file. As in `decoding.decode_image`
        grey becomes RGB, alpha is dropped, of 16 bits the upper 8 stay.
      spec: `DatasetSpec` of the model.
      max_pixels: larger pictures are refused before they are decoded.

    Returns:
      [image_size, image_size, 3] uint8.

    Raises:
      tf.errors.InvalidArgumentError: where it is no such picture, a broken
        one, or too large.
    """
    encoded, is_jpeg = _checked(encoded, max_pixels=max_pixels)
    size = spec.image_size
    if spec.name in imagenet.NAMES:
        # Evaluation decodes the crop alone, which changes pixels at its edge.
        prepared = tf.cond(
            is_jpeg,
            lambda: photo_views.decode_center_crop(
                encoded, image_size=size, max_pixels=max_pixels
            ),
            lambda: _resized(_decoded(encoded, spec), spec)[0],
        )
    else:
        prepared = prepare_images(_decoded(encoded, spec), spec)[0]
    return tf.ensure_shape(prepared, [size, size, 3])


def pixels_from_floats(images):
    """Rounds pictures of floats in 0..255 to uint8.

    Raises:
      tf.errors.InvalidArgumentError: for a value that is not finite or out of
        0..255, as those of images that were normalised already.
    """
    in_range = tf.Assert(
        tf.reduce_all((images >= 0) & (images <= 255)),  # False for NaN.
        ["images must hold levels from 0 to 255, not normalised ones"],
    )
    with tf.control_dependencies([in_range] if in_range is not None else []):
        return tf.cast(tf.round(images), tf.uint8)


def description(spec):
    """What `prepare_encoded` does to a picture; for people."""
    size = f"{spec.image_size} x {spec.image_size} pixels"
    if spec.name in imagenet.NAMES:
        return (
            "centre crop of 224/256 of the short side, resized to "
            f"{size}, bicubic"
        )
    square = f"short side scaled, centre cropped, to {size}, bicubic"
    own = _own_size(spec)
    if own in (None, spec.image_size):
        return square
    return f"from {own} x {own} resized to {size}, bicubic; others: {square}"


def _own_size(spec):
    """The size of all images of a source; None where they differ."""
    row = DATASETS.get(spec.name)
    return row and row.image_size


def _resized(images, spec):
    """[batch, height, width, 3] uint8 to [batch, size, size, 3] uint8."""
    size, own = spec.image_size, _own_size(spec)
    if spec.name in imagenet.NAMES:
        top, left, height, width = tf.unstack(
            photo_views.center_window(tf.shape(images)[1:])
        )
        images = images[:, top : top + height, left : left + width]
        return resized_as_released(images, size)
    if own in (None, size):
        return square_images(images, size)
    shape = tf.shape(images)
    return tf.cond(
        (shape[1] == own) & (shape[2] == own),
        lambda: resized_as_released(images, size),
        lambda: square_images(images, size),
    )


def _checked(encoded, *, max_pixels):
    """The file, once its header is known to be good; and if it is a JPEG."""
    is_jpeg = tf.io.is_jpeg(encoded)
    is_png = tf.strings.substr(encoded, 0, len(_PNG)) == _PNG
    is_png &= tf.strings.length(encoded) >= _PNG_START
    known = tf.Assert(
        is_jpeg | is_png, ["not a JPEG or PNG file, by its first bytes"]
    )
    with tf.control_dependencies([known] if known is not None else []):
        encoded = tf.identity(encoded)
    size = tf.cond(
        is_jpeg,
        lambda: tf.image.extract_jpeg_shape(encoded)[:2],
        lambda: tf.io.decode_raw(
            tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False
        ),
    )
    size = tf.cast(tf.ensure_shape(size, [2]), tf.int64)
    fits = tf.reduce_all(size > 0) & (tf.reduce_prod(size) <= max_pixels)
    small = tf.Assert(
        fits, [f"a picture has no pixels, or more than {max_pixels}"]
    )
    with tf.control_dependencies([small] if small is not None else []):
        return tf.identity(encoded), is_jpeg


def _decoded(encoded, spec):
    """[1, height, width, 3] uint8 of a JPEG or PNG file."""
    exact = spec.name == folders.NAME or spec.name.startswith(tfds_any.PREFIX)
    # TFDS decodes its sets in the faster way, and so does our ImageNet. The
    # operation takes PNG too.
    image = tf.io.decode_jpeg(
        encoded,
        channels=3,
        dct_method="INTEGER_ACCURATE" if exact else "",
    )
    return image[tf.newaxis]
