"""The sizes of pictures, by their headers: what decoding them would cost."""

import struct

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# Markers of JPEG: frames, which say the size; and those that stand alone.
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}
_END, _SCAN = 0xD9, 0xDA
# At least one bit codes the 8 x 8 pixels of a block, in one component of them.
_MOST_PIXELS_OF_A_BYTE = 8 * 64
# Going once more over all pixels takes that part of decoding a picture.
_SCANS_OF_A_DECODING = 16


def pixels(file):
    """Pixels of a picture in a file, by its header.

    Args:
      file: bytes.

    Returns:
      An integer; 0 for what is no JPEG or PNG, or has no size.
    """
    if file.startswith(_PNG) and len(file) >= 24:
        width, height = struct.unpack(">II", file[16:24])
        return width * height
    if file.startswith(_JPEG):
        return _jpeg_pixels(file)
    return 0


def work(file):
    """What decoding a file costs, in pixels of pictures as they are.

    A progressive JPEG may go over its pixels as often as it likes, by a few
    bytes each time.

    Args:
      file: see `pixels`.
    """
    scans = file.count(b"\xff\xda") if file.startswith(_JPEG) else 0
    return pixels(file) * max(1, scans // _SCANS_OF_A_DECODING)


def is_cut_off(file):
    """Whether a JPEG has fewer bytes than its pixels take at the least.

    TensorFlow makes the rest of such a picture grey, and says nothing.
    """
    if not file.startswith(_JPEG):
        return False
    return _jpeg_pixels(file) > _MOST_PIXELS_OF_A_BYTE * len(file)


def _jpeg_pixels(file):
    """As libjpeg finds them: what stands between segments is passed over."""
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
