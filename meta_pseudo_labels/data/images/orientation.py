"""Pictures turned as the camera was held, by the orientation in Exif data.

`headers.read_header` finds it in Python. Here it is found in a graph, for
exported models and for records. Both look at the same bytes.
"""

import functools

import tensorflow as tf

from meta_pseudo_labels.data.images.headers import (
    EXIF,
    EXIF_WITHIN,
    JPEG_FRAMES,
    MOST_CHUNKS,
    ORIENTATION_TAG,
)

_SWAPS, _FLIPS_ROWS, _FLIPS_COLUMNS = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)
_APP1 = b"\xff\xe1"
_MOST_ENTRIES = 1_000  # Of a directory; cameras write a few dozen.


def upright(image, orientation):
    """Rotates or flips a picture by its orientation (Exif 2.3, 4.6.4).

    Args:
      image: [height, width, channels], a NumPy array.
      orientation: 1 to 8.

    Returns:
      The picture; from 5 on, height and width are swapped.
    """
    if orientation in _SWAPS:
        image = image.swapaxes(0, 1)
    if orientation in _FLIPS_ROWS:
        image = image[::-1]
    if orientation in _FLIPS_COLUMNS:
        image = image[:, ::-1]
    return image


def upright_in_graph(image, encoded, *, is_jpeg=None):
    """`upright`, with the orientation from a JPEG or PNG file.

    Args:
      image: [height, width, 3], the decoded file, or a part of it.
      encoded: [] string, the file; its header must be valid.
      is_jpeg: True if the file is known to be a JPEG.
    """

    def turn(image, orientation, among, turned):
        found = tf.reduce_any(orientation == tf.constant(among))
        return tf.cond(found, lambda: turned(image), lambda: image)

    def turned(orientation):
        swap, rows, columns = (
            lambda x: tf.transpose(x, [1, 0, 2]),
            lambda x: x[::-1],
            lambda x: x[:, ::-1],
        )
        swapped = turn(image, orientation, _SWAPS, swap)
        flipped = turn(swapped, orientation, _FLIPS_ROWS, rows)
        return turn(flipped, orientation, _FLIPS_COLUMNS, columns)

    return _by_orientation(encoded, turned, lambda: image, is_jpeg=is_jpeg)


def may_have_exif(encoded):
    """Whether a JPEG file has the bytes with which Exif data begins, [] bool.

    Args:
      encoded: see `upright_in_graph`.
    """
    return tf.size(_split_at(encoded, EXIF, within=EXIF_WITHIN)) > 1


def _by_orientation(encoded, found, none, *, is_jpeg=None):
    """Applies `found` to a file's orientation; `none()` if it has none."""

    # Searching for a few bytes costs next to nothing; walking over the parts of
    # a file costs as much as decoding a small one. Most files have no Exif.
    def in_jpeg():
        return _if_there(
            encoded, EXIF, _in_jpeg, found, none, within=EXIF_WITHIN
        )

    def in_png():
        return _if_there(encoded, b"eXIf", _in_png, found, none, within=-1)

    return (
        in_jpeg()
        if is_jpeg
        else tf.cond(tf.io.is_jpeg(encoded), in_jpeg, in_png)
    )


def _if_there(encoded, name, walk, found, none, *, within):
    """Calls `found` if a file has the bytes of a name, otherwise `none`.

    Args:
      encoded: the file.
      name: the bytes that mark Exif data.
      walk: a function from the file, [size] uint8, and what precedes the name,
        [] string, to where its Exif data begins, [] int32, 0 for nowhere.
      found, none: see `_by_orientation`.
      within: number of bytes of the file to search; -1 for all.
    """
    pieces = _split_at(encoded, name, within=within)
    return tf.cond(
        tf.size(pieces) > 1,
        lambda: found(_looking(walk)(encoded, pieces[0])),
        none,
    )


def _split_at(encoded, name, *, within):
    """What precedes and what follows a name; one piece if it is absent.

    Args:
      encoded, name, within: see `_if_there`.
    """
    start = tf.strings.substr(encoded, 0, within)
    return tf.raw_ops.StringSplitV2(input=[start], sep=name, maxsplit=1).values


@functools.cache
def _looking(walk):
    """A function of a file and what precedes the name, see `_if_there`.

    It is a `tf.function`, as tracing it takes half a second: so it is traced
    once, not for every data set.
    """

    def look(encoded, before):
        data = tf.io.decode_raw(encoded, tf.uint8)
        place = walk(data, before)
        return tf.cond(
            (place > 0) & (place + 8 <= tf.size(data)),
            lambda: _in_exif(data, place),
            lambda: tf.constant(1),
        )

    return tf.function(
        look,
        input_signature=2 * [tf.TensorSpec([], tf.string)],
        autograph=False,
    )


def _in_jpeg(data, before):
    """Where the Exif data of a JPEG begins; see `_if_there`."""
    length = tf.strings.length(before)
    padded = tf.strings.join([before, bytes(24)])
    # Right at the start, or after the 18 bytes that JFIF has there.
    first = tf.strings.substr(padded, 2, 2) == _APP1
    second = tf.strings.substr(padded, 2, 4) == b"\xff\xe0\x00\x10"
    second &= tf.strings.substr(padded, 20, 2) == _APP1
    return tf.cond(
        ((length == 6) & first) | ((length == 24) & second),
        lambda: length + len(EXIF),
        lambda: _walk_jpeg(data),
    )


def _walk_jpeg(data):
    exif = tf.constant(list(EXIF))
    frames = tf.constant([0xD9, 0xDA, *JPEG_FRAMES])

    def step(place, found, ended):
        window = tf.cast(data[place : place + 10], tf.int32)
        marker = window[1]
        filling = (window[0] != 0xFF) | (marker == 0xFF)
        alone = (marker <= 0x01) | ((marker >= 0xD0) & (marker <= 0xD8))
        length = tf.maximum(256 * window[2] + window[3], 2) + 2
        move = tf.where(filling, 1, tf.where(alone, 2, length))
        here = ~filling & (marker == 0xE1) & (place + 10 <= EXIF_WITHIN)
        here &= tf.reduce_all(window[4:] == exif)
        ended = ~filling & tf.reduce_any(marker == frames)
        return place + move, tf.where(here, place + 10, found), here | ended

    return _walk(data, step, start=2, window=10)


def _in_png(data, before):
    """Where the Exif data of a PNG begins; see `_if_there`."""
    del before

    def step(place, found, ended):
        length = tf.cast(_number(data, place, 4), tf.int32)
        here = tf.reduce_all(
            data[place + 4 : place + 8] == tf.constant(list(b"eXIf"), tf.uint8)
        )
        # A broken length must not lead back.
        move = tf.where(length < 0, tf.size(data), 12 + length)
        ended = here | (move > tf.size(data) - place)
        return place + move, tf.where(here, place + 8, found), ended

    return _walk(data, step, start=8, window=8)


def _walk(data, step, *, start, window):
    """Goes from one part of a file to the next until one is found."""
    last = tf.size(data) - window
    _, found, _ = tf.while_loop(
        lambda place, found, ended: ~ended & (place <= last),
        step,
        (tf.constant(start), tf.constant(0), tf.constant(False)),
        maximum_iterations=MOST_CHUNKS,
    )
    return found


def _in_exif(data, place):
    """The orientation in Exif data, which is laid out as a TIFF file."""
    size = tf.size(data)
    mark = tf.cast(data[place], tf.int32)
    little = mark == ord("I")
    known = (mark == tf.cast(data[place + 1], tf.int32)) & (
        little | (mark == ord("M"))
    )
    start = _number(data, place + 4, 4, little)
    known &= start < tf.cast(size - place - 2, tf.int64)
    first = place + tf.where(known, tf.cast(start, tf.int32), 0)
    count = tf.minimum(
        tf.cast(_number(data, first, 2, little), tf.int32), _MOST_ENTRIES
    )
    entries = first + 2 + 12 * tf.range(count)
    entries = entries[entries + 12 <= size]
    tags = _number(data, entries, 2, little)
    among = entries[tags == ORIENTATION_TAG][:1]
    is_long = _number(data, among + 2, 2, little) == 4
    found = tf.where(
        is_long,
        _number(data, among + 8, 4, little),
        _number(data, among + 8, 2, little),
    )
    found = found[(found >= 1) & (found <= 8)]
    none = (tf.size(found) == 0) | ~known
    return tf.cond(
        none, lambda: tf.constant(1), lambda: tf.cast(found[0], tf.int32)
    )


def _number(data, places, count, little=False):
    """The numbers of `count` bytes at some places; any shape, int64."""
    places = tf.convert_to_tensor(places)[..., tf.newaxis] + tf.range(count)
    found = tf.cast(tf.gather(data, places), tf.int64)
    powers = [256**power for power in range(count)]
    powers = tf.where(little, powers, powers[::-1])
    return tf.reduce_sum(found * tf.cast(powers, tf.int64), axis=-1)
