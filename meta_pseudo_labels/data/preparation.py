"""From any picture to what evaluation shows a model, as a graph.

For exported models: TensorFlow alone does what the sources do to their test
images in Python or while reading. Each source defines what that is, see
`sources.Source`.
"""

import tensorflow as tf

from meta_pseudo_labels.data.images.decoding import MAX_PIXELS
from meta_pseudo_labels.data.images.headers import PNG_START
from meta_pseudo_labels.data.sources import source_of

_PNG_SIZES = 24  # Bytes up to the end of width and height.


def prepare_images(images, spec):
    """Brings decoded pictures to the model's size, as evaluation does.

    Pictures that already have the model's size count as prepared and stay as
    they are, even those of ImageNet.

    Args:
      images: [batch, height, width, 3] uint8, any height and width.
      spec: `DatasetSpec` of the model.

    Returns:
      [batch, image_size, image_size, 3] uint8.

    Raises:
      tf.errors.InvalidArgumentError: if the pictures have no pixels.
    """
    some = tf.reduce_min(tf.shape(images)[1:3]) > 0
    images = _where(some, images, "images have no pixels")
    prepared = source_of(spec).prepare(images, spec)
    size = spec.image_size
    return tf.ensure_shape(prepared, [None, size, size, 3])


def prepare_encoded(encoded, spec, *, max_pixels=MAX_PIXELS):
    """Decodes a picture and brings it to the model's size, as evaluation does.

    Args:
      encoded: [] string, a JPEG or PNG file. As in `decoding.decode_image`,
        gray becomes RGB, alpha is dropped, 16 bits become 8, and pictures
        are rotated or flipped according to their Exif data.
      spec: `DatasetSpec` of the model.
      max_pixels: larger pictures are refused before they are decoded.

    Returns:
      [image_size, image_size, 3] uint8.

    Raises:
      tf.errors.InvalidArgumentError: if it is not such a picture, broken or
        too large, or its 16-bit levels differ from those of the training
        images, see `levels.to_8_bits`.
    """
    encoded, is_jpeg = _checked(encoded, max_pixels=max_pixels)
    prepared = source_of(spec).prepare_file(
        encoded, spec, is_jpeg=is_jpeg, max_pixels=max_pixels
    )
    size = spec.image_size
    return tf.ensure_shape(prepared, [size, size, 3])


def pixels_from_floats(images):
    """Rounds float pictures in 0..255 to uint8.

    Args:
      images: [..., height, width, 3] float32.

    Raises:
      tf.errors.InvalidArgumentError: if a value is not finite or outside
        0..255, as in images that are already normalized; or if a picture was
        divided by 255, which would make it black.
    """
    images = _where(
        tf.reduce_all((images >= 0) & (images <= 255)),  # False for NaN.
        images,
        "images must hold levels from 0 to 255, not normalized ones",
    )
    # A picture of zeros is black; it is not a sign of another range.
    rank = images.shape.rank
    of_picture = list(range(max(0, rank - 3), rank))
    brightest = tf.reduce_max(images, axis=of_picture)
    images = _where(
        tf.reduce_all((brightest > 1) | (brightest == 0)),
        images,
        "images must hold levels from 0 to 255; one has none above 1, as if "
        "divided by 255: multiply it by 255, or send whole levels as uint8",
    )
    return tf.cast(tf.round(images), tf.uint8)


def description(spec):
    """What `prepare_encoded` does to a picture, for people to read."""
    return source_of(spec).describe(spec)


def _where(condition, value, refusal):
    """The value, after checking that a condition holds."""
    held = tf.Assert(condition, [refusal])
    with tf.control_dependencies([held] if held is not None else []):
        return tf.identity(value)


def _checked(encoded, *, max_pixels):
    """The file, after a check of its header; and whether it is a JPEG."""
    is_jpeg = tf.io.is_jpeg(encoded)
    is_png = tf.strings.substr(encoded, 0, len(PNG_START)) == PNG_START
    is_png &= tf.strings.length(encoded) >= _PNG_SIZES
    encoded = _where(
        is_jpeg | is_png, encoded, "not a JPEG or PNG file, by its first bytes"
    )
    size = tf.cond(
        is_jpeg,
        lambda: tf.image.extract_jpeg_shape(encoded)[:2],
        lambda: tf.io.decode_raw(
            tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False
        ),
    )
    size = tf.cast(tf.ensure_shape(size, [2]), tf.int64)
    fits = tf.reduce_all(size > 0) & (tf.reduce_prod(size) <= max_pixels)
    refusal = f"a picture has no pixels, or more than {max_pixels}"
    return _where(fits, encoded, refusal), is_jpeg
