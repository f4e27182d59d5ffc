"""Operations on batches of uint8 images, pixel for pixel as in the release.

Every function takes images [B, H, W, 3] uint8 and returns the same shape and
type. Three ideas keep them short and fast:

* a geometric operation chooses, for each output pixel, a source pixel;
* a point operation is plain arithmetic or a table of 256 entries;
* `apply_by_group` sends each image of a batch to the one operation it needs.

Source: `augment.py` of the release; "quirk N" refers to the notes kept with
its reference outputs. The random policy is in rand_augment.py. KerasCV's layers
are no substitute: tests/data/images/operations_keras_cv_test.py shows where
they differ, and why.
"""

import itertools
import math

import tensorflow as tf

from meta_pseudo_labels.data.spec import FILL


def apply_by_group(images, group, operations):
    """Applies `operations[group[b]]` to image b.

    Args:
      images: [B, H, W, 3] uint8.
      group: [B] int32, each in [0, len(operations)).
      operations: functions of (images [n, H, W, 3], positions [n] int32),
        where `positions` are the places of these images in the batch. None
        leaves the images alone. n may be 0.

    Returns:
      [B, H, W, 3] uint8.
    """
    count = len(operations)
    positions = tf.range(tf.shape(images)[0])
    positions = tf.dynamic_partition(positions, group, count)
    parts = tf.dynamic_partition(images, group, count)
    groups = zip(operations, parts, positions, strict=True)
    parts = [
        part if operation is None else operation(part, place)
        for operation, part, place in groups
    ]
    merged = tf.dynamic_stitch(positions, parts)
    return tf.ensure_shape(merged, images.shape)


# Point operations.


def invert(images):
    """Returns 255 - x."""
    return tf.constant(255, tf.uint8) - images


def posterize(images, bits):
    """Keeps the `bits` high bits of every value.

    0 bits keep one bit, as the release's shift by 8 is clamped to 7 (quirk 28);
    8 bits or more keep all.
    """
    shift = min(max(8 - bits, 0), 7)
    return tf.bitwise.bitwise_and(
        images, tf.constant((255 << shift) & 255, tf.uint8)
    )


def solarize(images, threshold):
    """Inverts values >= `threshold`, an integer taken modulo 256 (quirk 28).

    So the threshold 256, meant to change nothing, inverts everything.
    """
    threshold = tf.constant(threshold % 256, tf.uint8)
    mask = tf.cast(images >= threshold, tf.uint8) * tf.constant(255, tf.uint8)
    return tf.bitwise.bitwise_xor(images, mask)  # x ^ 255 is 255 - x.


def autocontrast(images):
    """Stretches each channel of each image to the range 0 to 255."""
    low = tf.cast(tf.reduce_min(images, [1, 2], keepdims=True), tf.float32)
    high = tf.cast(tf.reduce_max(images, [1, 2], keepdims=True), tf.float32)
    flat = high <= low
    scale = tf.where(flat, 1.0, 255.0 / (high - low))
    offset = tf.where(flat, 0.0, -low * scale)
    stretched = tf.cast(images, tf.float32) * scale + offset
    return tf.cast(tf.clip_by_value(stretched, 0.0, 255.0), tf.uint8)


def equalize(images):
    """Flattens the histogram of each channel of each image, as Pillow does."""
    planes = tf.shape(images)[0] * 3
    # Each channel of each image has its own run of 256 histogram cells.
    offset = tf.reshape(tf.range(planes) * 256, [-1, 1, 1, 3])
    cells = tf.cast(images, tf.int32) + offset
    histogram = tf.math.unsorted_segment_sum(
        tf.ones_like(cells), cells, planes * 256
    )
    histogram = tf.reshape(histogram, [-1, 256])  # [B * 3, 256]
    brightest = tf.reshape(tf.reduce_max(images, [1, 2]), [-1, 1])
    brightest = tf.gather(histogram, tf.cast(brightest, tf.int32), batch_dims=1)
    pixels = images.shape[1] * images.shape[2]
    step = (pixels - brightest) // 255  # [B * 3, 1]
    below = tf.cumsum(histogram, axis=1, exclusive=True)
    table = (below + step // 2) // tf.maximum(step, 1)
    # The darkest entry is 0 whatever the rounding.
    table = tf.where(tf.range(256) == 0, 0, tf.clip_by_value(table, 0, 255))
    table = tf.where(step == 0, tf.range(256), table)
    table = tf.cast(tf.reshape(table, [-1]), tf.uint8)
    return tf.gather(table, cells)


# Blends of an image with a degenerate version of it.


def blend(degenerate, images, factor):
    """Returns degenerate + factor * (images - degenerate), saturating.

    With a factor above 1, results can leave the range 0 to 255. The release
    clips to [0, 255] values that it holds in [0, 1], that is, not at the top,
    and its cast to uint8 is then undefined: scalar code wraps modulo 256,
    vectorized code saturates (quirk 27). This one saturates: it is what the
    release's clip was for, what Pillow's ImageEnhance does, and it does not
    turn white to black. The cast truncates x * 255.5, like
    `convert_image_dtype`.

    Args:
      degenerate: uint8, the shape of `images`.
      images: uint8 of any shape.
      factor: Python float >= 0; 1 returns `images` as they are.
    """
    if factor == 1:
        return images
    degenerate = tf.image.convert_image_dtype(degenerate, tf.float32)
    difference = tf.image.convert_image_dtype(images, tf.float32) - degenerate
    blended = (degenerate + factor * difference) * 255.5
    return tf.cast(tf.clip_by_value(blended, 0.0, 255.0), tf.uint8)


def brightness(images, factor):
    """Blends with black."""
    return _blend_with_constant(images, factor, value=0)


def contrast(images, factor):
    """Blends with one gray: pixels / 256, at most 255 (quirk 29).

    The release sums a histogram where it wants the mean of the image, so the
    gray is 4 for every 32x32 image.
    """
    pixels = images.shape[1] * images.shape[2]
    return _blend_with_constant(images, factor, value=min(pixels // 256, 255))


def _blend_with_constant(images, factor, *, value):
    levels = tf.constant(list(range(256)), tf.uint8)
    table = blend(tf.fill([256], tf.constant(value, tf.uint8)), levels, factor)
    return tf.gather(table, tf.cast(images, tf.int32))


def color(images, factor):
    """Blends with the gray version of the image."""
    gray = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(images))
    return blend(gray, images, factor)


def sharpness(images, factor):
    """Blends with a smoothed version; the outermost pixels stay.

    The filter is 3x3 ones with a 5 in the middle, divided by 13. Its nine
    float32 products are added row by row: in this order the sum falls on the
    same side of the truncation to uint8 as the release's.
    """
    height, width = images.shape[1:3]
    values = tf.cast(images, tf.float32)
    ones, fives = values * (1 / 13), values * (5 / 13)
    smooth = tf.zeros((), tf.float32)
    for top, left in itertools.product(range(3), repeat=2):
        weighted = fives if top == left == 1 else ones
        smooth += weighted[:, top : top + height - 2, left : left + width - 2]
    smooth = tf.cast(tf.clip_by_value(smooth, 0.0, 255.0), tf.uint8)
    border = [[0, 0], [1, 1], [1, 1], [0, 0]]
    inner = tf.pad(tf.ones_like(smooth, tf.bool), border)
    smooth = tf.where(inner, tf.pad(smooth, border), images)
    return blend(smooth, images, factor)


# Geometric operations. Amounts are one number, or one per image, [B].


def rotate(images, degrees, *, fill=FILL):
    """Rotates about the center, counter-clockwise for positive `degrees`."""
    height, width = images.shape[1:3]
    radians = tf.convert_to_tensor(degrees, tf.float32) * (math.pi / 180)
    cos, sin = tf.cos(radians), tf.sin(radians)
    right, bottom = width - 1.0, height - 1.0
    x_offset = (right - (cos * right - sin * bottom)) / 2
    y_offset = (bottom - (sin * right + cos * bottom)) / 2
    return _affine(images, cos, -sin, x_offset, sin, cos, y_offset, fill=fill)


def shear_x(images, slope, *, fill=FILL):
    """Moves row y left by slope * y pixels."""
    return _affine(images, 1, slope, 0, 0, 1, 0, fill=fill)


def shear_y(images, slope, *, fill=FILL):
    """Moves column x up by slope * x pixels."""
    return _affine(images, 1, 0, 0, slope, 1, 0, fill=fill)


def translate_x(images, pixels, *, fill=FILL):
    """Moves content left by `pixels`, a float (quirk 29)."""
    return _affine(images, 1, 0, pixels, 0, 1, 0, fill=fill)


def translate_y(images, pixels, *, fill=FILL):
    """Moves content up by `pixels`, a float (quirk 29)."""
    return _affine(images, 1, 0, 0, 0, 1, pixels, fill=fill)


def _affine(images, a, b, c, d, e, f, *, fill):
    """Reads pixel (x, y) from (a x + b y + c, d x + e y + f), the nearest."""
    batch = tf.shape(images)[:1]
    columns = [
        tf.broadcast_to(tf.cast(value, tf.float32), batch)
        for value in (a, b, c, d, e, f, 0, 0)
    ]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack(columns, axis=1),
        output_shape=images.shape[1:3],
        fill_value=fill,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )


def mirror(images):
    """Swaps left and right."""
    return tf.reverse(images, [2])


def mirror_where(mirrored, images):
    """Swaps left and right of some images; mirrored: [B] bool."""
    return apply_by_group(
        images,
        tf.cast(mirrored, tf.int32),
        [None, lambda images, _: mirror(images)],
    )


def crop(images, *, top, left, fill=FILL):
    """Reads pixel (y, x) from (y + top, x + left), or `fill` if outside.

    Args:
      images: [B, H, W, 3] uint8.
      top, left: [B] int32, may be negative.
      fill: level outside of the image, 0..255.
    """
    height, width = images.shape[1:3]
    rows = tf.range(height) + top[:, tf.newaxis]
    columns = tf.range(width) + left[:, tf.newaxis]
    inside_rows = (rows >= 0) & (rows < height)
    inside_columns = (columns >= 0) & (columns < width)
    source = rows[:, :, tf.newaxis] * width + columns[:, tf.newaxis]
    return _gather_pixels(
        images,
        source,
        inside_rows[:, :, tf.newaxis] & inside_columns[:, tf.newaxis],
        fill=fill,
    )


def cutout(images, *, center, half_size, fill=FILL):
    """Fills the square of rows and columns [c - half_size, c + half_size).

    Args:
      images: [B, H, W, 3] uint8.
      center: [B, 2] int32, row and column; the square is clipped (quirk 30).
      half_size: Python int, half the side in pixels; 0 changes nothing.
      fill: level of the square, 0..255.
    """
    height, width = images.shape[1:3]
    rows = tf.range(height) - center[:, :1]
    columns = tf.range(width) - center[:, 1:]
    in_rows = (rows >= -half_size) & (rows < half_size)
    in_columns = (columns >= -half_size) & (columns < half_size)
    hole = in_rows[:, :, tf.newaxis] & in_columns[:, tf.newaxis]
    return _gather_pixels(images, tf.range(height * width), ~hole, fill=fill)


def _gather_pixels(images, source, inside, *, fill):
    """Builds images out of source pixels, with `fill` where not `inside`.

    Faster than tf.where and tf.pad, which broadcast over the three channels.

    Args:
      images: [B, H, W, 3] uint8.
      source: int32 that reshapes to [B, H, W] or [H, W]: y * W + x.
      inside: [B, H, W] bool.
    """
    batch, height, width = tf.shape(images)[0], *images.shape[1:3]
    outside = tf.fill([1, 3], tf.constant(fill, tf.uint8))
    pixels = tf.concat([tf.reshape(images, [-1, 3]), outside], axis=0)
    first = tf.range(batch)[:, tf.newaxis, tf.newaxis] * (height * width)
    source = tf.reshape(source, [-1, height, width]) + first
    return tf.gather(pixels, tf.where(inside, source, height * width * batch))
