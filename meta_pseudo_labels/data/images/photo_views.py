"""Views of photographs of any size: from JPEG bytes to small uint8 squares.

As in the release (`data_utils._imagenet_parser`, `imagenet_10_percent_uda`):

    labeled   Inception crop, flip
    weak      Inception crop, flip
    strong    the same crop, a flip of its own, RandAugment; no extra cutout
    test      center crop of 224/256 of the short side

Only the crops are decoded, without the rest of the picture, and resized with
bicubic interpolation. Flip and RandAugment work on batches, see views.py.
"""

import tensorflow as tf

from meta_pseudo_labels.data.images import views
from meta_pseudo_labels.data.images.decoding import MAX_PIXELS
from meta_pseudo_labels.data.images.orientation import (
    may_have_exif,
    upright_in_graph,
)
from meta_pseudo_labels.data.images.resizing import resized_as_released

# RandAugment's constants on ImageNet, pixels at magnitude 10 (quirk 26).
TRANSLATE_CONST, CUTOUT_CONST = 100, 40
_CENTER = 224 / 256  # The share of the short side used in evaluation.


def weak(spec, settings):
    """A flip, if the data allows it, of crops from `decode_random_crop`.

    Args:
      spec: `DatasetSpec` of the images.
      settings: `ViewSettings`, none of which are used here.

    Raises:
      ValueError: for crop_padding, as these crops are not shifted by pixels.
    """
    if settings.crop_padding is not None:
        raise ValueError(
            f"crop_padding: {spec.name!r} is read from files, whose views are "
            "crops of another kind. Leave it out."
        )
    return views.flip() if spec.flip else lambda images, seed, rows=None: images


def strong(spec, settings):
    """A flip of its own and RandAugment, of the same crop as the weak view.

    Args:
      spec: `DatasetSpec` of the images.
      settings: `ViewSettings`.
    """
    return views.chain(weak(spec, settings), labeled_strong(spec, settings))


def labeled_strong(spec, settings):
    """What the release's --use_augment adds to a labeled image's weak view."""
    return views.augmentation(
        settings,
        translate_const=TRANSLATE_CONST,
        cutout_const=CUTOUT_CONST,
        fill=spec.background,
    )


def decode_random_crop(
    encoded, *, image_size, seed, max_pixels=MAX_PIXELS, plain=False
):
    """An Inception crop, resized.

    A crop has 8 to 100 % of the area and an aspect ratio of 3/4 to 4/3. If none
    is found in ten attempts, the center crop is used, as in the release.

    Args:
      encoded: [] string, a JPEG image; a gray one becomes RGB.
      image_size: height and width to resize to, pixels.
      seed: [2] integers, fixes the crop.
      max_pixels: the number of pixels above which the image is refused.
      plain: whether an image with Exif data, which may have to be rotated or
        flipped, is an error. For each record TensorFlow prepares all that a
        function might do with it, and preparing that took as long as decoding.

    Returns:
      [image_size, image_size, 3] uint8.
    """
    shape = _checked_shape(encoded, max_pixels=max_pixels)
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seed,
        min_object_covered=0.1,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    # The operation returns the whole image if it finds no crop.
    found = tf.reduce_any(size[:2] != shape[:2])
    window = tf.concat([begin[:2], size[:2]], axis=0)
    window = tf.where(found, window, center_window(shape))
    return _decode_window(encoded, window, image_size=image_size, plain=plain)


def decode_center_crop(
    encoded, *, image_size, max_pixels=MAX_PIXELS, plain=False
):
    """The central square of 224/256 of the short side, resized.

    Args and returns: see `decode_random_crop`.
    """
    shape = _checked_shape(encoded, max_pixels=max_pixels)
    window = center_window(shape)
    return _decode_window(encoded, window, image_size=image_size, plain=plain)


def _checked_shape(encoded, *, max_pixels):
    """Height, width and channels, [3] int32, read without decoding."""
    shape = tf.image.extract_jpeg_shape(encoded)
    pixels = tf.reduce_prod(tf.cast(shape[:2], tf.int64))
    check = tf.debugging.assert_less_equal(
        pixels,
        tf.constant(max_pixels, tf.int64),
        message="The image is too large to be decoded.",
    )
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(shape)


def center_window(shape):
    """Top, left, height and width of the center crop, [4] int32.

    Args:
      shape: [2] int32 or more, height and width first.
    """
    short = tf.cast(tf.reduce_min(shape[:2]), tf.float32)
    side = tf.cast(_CENTER * short, tf.int32)
    side = tf.maximum(side, 1)  # An image of one pixel is its own center.
    corner = (shape[:2] - side + 1) // 2
    return tf.concat([corner, [side, side]], axis=0)


def _decode_window(encoded, window, *, image_size, plain):
    """Decodes a part of a JPEG image and resizes it, rounded to uint8.

    The sampling grid is that of TensorFlow 1's `resize_bicubic`, see
    `resizing.resize_images`. The release keeps the float32 result, which may
    leave 0..255, and truncates it if RandAugment follows. It also ignores the
    orientation in Exif data, which few pictures of ImageNet have.
    """
    image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
    if plain:
        check = tf.Assert(
            ~may_have_exif(encoded), ["It may have to be turned."]
        )
        with tf.control_dependencies([check] if check is not None else []):
            image = tf.identity(image)
    else:
        image = upright_in_graph(image, encoded, is_jpeg=True)
    image = resized_as_released(image[tf.newaxis], image_size)[0]
    return tf.ensure_shape(image, [image_size, image_size, 3])
