"""The sizes of pictures, from their headers: what decoding them would cost."""

import struct

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# Markers of JPEG: frames, which give the size; and those that stand alone.
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}
_END, _SCAN = 0xD9, 0xDA
# It takes at least one bit to code a block of 8 x 8 pixels in one component.
_MOST_PIXELS_OF_A_BYTE = 8 * 64
# Decoding a picture takes as long as this many passes over all its pixels.
_SCANS_OF_A_DECODING = 16


def pixels(file):
    """Pixels of a picture in a file, from its header.

    Args:
      file: bytes.

    Returns:
      An integer; 0 for what is not a JPEG or PNG, or has no size.
    """
    if file.startswith(_PNG) and len(file) >= 24:
        width, height = struct.unpack(">II", file[16:24])
        return width * height
    if file.startswith(_JPEG):
        return _jpeg_pixels(file)
    return 0


def work(file):
    """What decoding a file costs, in pixels of ordinary pictures.

    A progressive JPEG may go over its pixels any number of times, with only a
    few bytes each time.

    Args:
      file: see `pixels`.
    """
    scans = file.count(b"\xff\xda") if file.startswith(_JPEG) else 0
    return pixels(file) * max(1, scans // _SCANS_OF_A_DECODING)


def is_cut_off(file):
    """Whether a JPEG has fewer bytes than its pixels need at least.

    TensorFlow makes the rest of such a picture gray without saying so.
    """
    if not file.startswith(_JPEG):
        return False
    return _jpeg_pixels(file) > _MOST_PIXELS_OF_A_BYTE * len(file)


def _jpeg_pixels(file):
    """As libjpeg finds them: what stands between segments is skipped."""
    place = 2
    while True:
        place = file.find(b"\xff", place)
        if place < 0 or place + 9 > len(file):
            return 0
        marker = file[place + 1]
        if marker in _FRAMES:
            height, width = struct.unpack(">HH", file[place + 5 : place + 9])
            return width * height
        if marker in (_SCAN, _END):
            return 0
        if marker in (0x00, 0xFF):
            place += 1
        elif marker in _ALONE:
            place += 2
        else:
            place += 2 + int.from_bytes(file[place + 2 : place + 4], "big")
