"""The levels of pictures: 16 bits to 8, and ranges that would be black.

Cameras and scanners with 10, 12 or 14 bits write 16-bit PNG files that use a
small part of the range; their upper 8 bits are black. So the range is measured
over all pictures to train on, and the same one is used for every picture that
the network is shown later. A PNG's sBIT chunk does not help: by the standard,
levels fill 16 bits whatever it says.
"""

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.images.headers import PNG_START

DEEP = "16 bits"  # How the refusal of such a picture begins.
WHOLE_RANGE = (0, 2**16 - 1)
_DEPTH = 24  # Where a PNG file stores the number of bits per channel.

# For pictures whose range is not known; in 8 bits, 64 and 16 levels.
_LEAST_WHITE, _LEAST_SPAN = 2**14, 2**12


def is_deep(data):
    """Whether a file, or the start of one, is a 16-bit PNG."""
    return data.startswith(PNG_START) and data[_DEPTH : _DEPTH + 1] == b"\x10"


def is_deep_in_graph(encoded):
    """`is_deep` of a file that is known to be whole, [] string."""
    start = tf.strings.substr(encoded, 0, len(PNG_START))
    depth = tf.strings.substr(encoded, _DEPTH, 1)
    return (start == PNG_START) & (depth == b"\x10")


def decode_deep(encoded):
    """The levels of such a file, [H, W, 3] uint16."""
    return tf.io.decode_png(encoded, channels=3, dtype=tf.uint16)


def deep_levels(lowest, highest):
    """The levels of 16-bit pictures that become black and white.

    Args:
      lowest, highest: extreme levels over all of them, 0 to 65535.

    Returns:
      The same; or the whole range if they use half of it or more.
    """
    span = highest - lowest
    return (lowest, highest) if 0 < span < 2**15 else WHOLE_RANGE


def to_8_bits(images, levels):
    """Brings levels of 16 bits to 8, eager or in a graph.

    Args:
      images: [..., 3] uint16.
      levels: `DatasetSpec.deep_levels`. For the whole range, the upper 8 bits
        are kept; another range is spread over 0 to 255, and what lies beyond it
        is clipped. For None the upper 8 bits are kept too, if they show a
        picture.

    Returns:
      [..., 3] uint8.

    Raises:
      tf.errors.InvalidArgumentError: for levels that would become black, one
        gray or white: the picture is of another kind than the training images.
    """
    lowest = tf.cast(tf.reduce_min(images), tf.int32)
    highest = tf.cast(tf.reduce_max(images), tf.int32)
    if levels is None:
        flat = (highest > lowest) & (highest - lowest < _LEAST_SPAN)
        wrong = (highest > 0) & (highest < _LEAST_WHITE) | flat
        known = "no picture of 16 bits was learned from"
    else:
        black, white = levels
        # Nothing but 0 is a picture with the shutter closed.
        out = (highest > 0) & (highest < black) | (lowest > white)
        wrong = (highest > 2 * white - black) | out
        known = f"those that were learned from have {black} to {white}"
    refusal = tf.strings.format(
        DEEP + " with levels from {} to {}, but " + known + "; convert it to 8 "
        "bits, or to levels like theirs",
        (lowest, highest),
    )
    held = tf.Assert(~wrong, [refusal])
    with tf.control_dependencies([held] if held is not None else []):
        images = tf.identity(images)
    if levels in (None, WHOLE_RANGE):
        return tf.cast(
            tf.bitwise.right_shift(images, tf.constant(8, tf.uint16)), tf.uint8
        )
    values = tf.clip_by_value(tf.cast(images, tf.float32), black, white) - black
    return tf.cast(
        tf.round(values * np.float32(255 / (white - black))), tf.uint8
    )
