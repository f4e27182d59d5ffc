"""What the first bytes of an image file tell, before anything is decoded.

Kind and size are read here in Python, so that a file of a megabyte that
unpacks to gigabytes is refused and not decoded. The bytes determine the kind;
the file's name does not matter.

Pillow would tell kind, size and orientation too, but not where the first frame
ends, past which TensorFlow must not read, nor what TensorFlow decodes wrongly.
And it cannot do the decoding: an exported model has only TensorFlow's decoders,
and must see the pixels that training saw.
"""

import contextlib
import dataclasses
import struct

START_BYTES = 32  # Enough to tell the kind.
PNG_START = b"\x89PNG\r\n\x1a\n"
EXIF = b"Exif\0\0"
EXIF_WITHIN = 2**17  # Bytes of a JPEG; at most XMP precedes it.
ORIENTATION_TAG = 0x0112
JPEG_FRAMES = sorted({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
MOST_CHUNKS = 10_000  # Of a file that are searched for its Exif data.
KINDS = ("JPEG", "PNG", "GIF", "BMP", "WebP")

_GRAY_PALETTE = bytes(level for i in range(256) for level in (i, i, i, 0))
_BGR_MASKS = (0xFF0000, 0xFF00, 0xFF)


class ImageError(ValueError):
    """Bytes that are not an image that can be read; the message says why."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What an image is.

    Attributes:
      kind: one of `KINDS`.
      height, width: pixels, >= 1.
      first_frame: where the bytes of the first frame begin and end, for kinds
        that may have several; None for the others.
      orientation: 1 to 8, how to rotate or flip the picture, see
        `orientation.upright`; 1 means not at all.
      transparency: position of the byte of a GIF whose lowest bit makes one
        color of the first frame transparent; None if there is no such byte.
    """

    kind: str
    height: int
    width: int
    first_frame: tuple[int, int] | None = None
    orientation: int = 1
    transparency: int | None = None

    @property
    def pixels(self):
        return self.height * self.width


def image_kind(start):
    """The kind of an image, from its first `START_BYTES` bytes.

    Returns:
      One of `KINDS`.

    Raises:
      ImageError: if it is none of them.
    """
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith(PNG_START):
        return "PNG"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if start.startswith(b"BM"):
        return "BMP"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "WebP"
    if not start:
        raise ImageError("empty file")
    raise ImageError(f"not one of {', '.join(KINDS)}")


def read_header(data):
    """Reads the header of an image.

    Args:
      data: bytes, the whole file.

    Returns:
      `Header`.

    Raises:
      ImageError: if the kind is unknown, the header broken, or the image of a
        sort that TensorFlow would decode wrongly.
    """
    kind = image_kind(data[:START_BYTES])
    readers = dict(JPEG=_jpeg, PNG=_png, GIF=_gif, BMP=_bmp, WebP=_webp)
    try:
        header = readers[kind](data)
    except (struct.error, IndexError) as error:
        raise ImageError(f"{kind} that ends in its header") from error
    if header.height < 1 or header.width < 1:
        raise ImageError(f"{kind} of {header.width} x {header.height} pixels")
    return header


def _jpeg(data):
    """Walks over the segments to the frame header (ITU T.81, annex B).

    It skips stray bytes between segments just as libjpeg does, so that both
    find the same frame header.
    """
    place, exif = 2, b""
    while True:
        place = data.find(b"\xff", place)
        if place < 0:
            raise ImageError("JPEG without a frame header")
        marker = data[place + 1]
        if marker == 0xFF:  # A fill byte.
            place += 1
        elif marker in (0xD9, 0xDA):  # The end, or pixels.
            raise ImageError("JPEG without a frame header")
        elif marker <= 0x01 or 0xD0 <= marker <= 0xD8:  # Without a segment.
            place += 2
        elif marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return Header("JPEG", height, width, orientation=_orientation(exif))
        else:
            (length,) = struct.unpack_from(">H", data, place + 2)
            end = place + 2 + max(length, 2)
            if marker == 0xE1 and place + 10 <= EXIF_WITHIN:
                if data[place + 4 : place + 10] == EXIF:
                    exif = exif or data[place + 10 : end]
            place = end


def _png(data):
    if data[12:16] != b"IHDR":
        raise ImageError("PNG without a header")
    width, height = struct.unpack_from(">II", data, 16)
    exif = _chunk(data, b"eXIf", place=8, form=">I4x", around=12)
    return Header("PNG", height, width, orientation=_orientation(exif))


def _gif(data):
    """Walks over the blocks to the end of the first frame (GIF89a)."""
    width, height = struct.unpack_from("<HH", data, 6)
    place = 13 + _color_table(data[10])
    transparency = None
    while data[place] == 0x21:  # Extensions.
        if data[place + 1] == 0xF9:
            transparency = place + 3
        place = _after_blocks(data, place + 2)
    if data[place] != 0x2C:
        raise ImageError("GIF without a frame")
    frame = struct.unpack_from("<HHHHB", data, place + 1)
    left, top, frame_width, frame_height, flags = frame
    # One more byte: the size of a code.
    end = _after_blocks(data, place + 11 + _color_table(flags))
    return Header(
        "GIF",
        max(height, top + frame_height),
        max(width, left + frame_width),
        first_frame=(0, end),
        transparency=transparency,
    )


def _color_table(flags):
    """Size in bytes of the color table that follows, if any."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(data, place):
    """Where a row of blocks ends: each begins with its length, the last 0."""
    while data[place]:
        place += 1 + data[place]
    return place + 1


def _bmp(data):
    """Refuses kinds that TensorFlow mistakes for others and decodes wrongly."""
    (pixels,) = struct.unpack_from("<I", data, 10)
    (size,) = struct.unpack_from("<I", data, 14)
    if size < 40:
        raise ImageError("BMP of OS/2, which is not read")
    width, height = struct.unpack_from("<ii", data, 18)
    _, bits, compression = struct.unpack_from("<HHI", data, 26)
    if compression == 3 and bits == 32:
        plain = struct.unpack_from("<III", data, 54) == _BGR_MASKS
    else:
        plain = compression == 0 and bits in (8, 24, 32)
    if bits == 8:
        palette = data[14 + size : pixels]
        plain = plain and palette == _GRAY_PALETTE[: len(palette)]
    if not plain:
        raise ImageError(
            "BMP that is compressed or has a palette; only gray, RGB and RGBA "
            "of 8 bits a channel are read"
        )
    return Header("BMP", abs(height), width)


def _webp(data):
    """Walks over the chunks to the first frame (RIFF; RFC 9649)."""
    place = 12
    while True:
        chunk = data[place : place + 4]
        (length,) = struct.unpack_from("<I", data, place + 4)
        start, end = place, place + 8 + length + length % 2
        if chunk == b"ANMF":  # The frame's own chunks follow 16 bytes.
            place += 8 + 16
        elif chunk not in (b"VP8 ", b"VP8L"):
            place = end
        elif end > len(data) + length % 2:
            raise ImageError("WebP that ends in its first frame")
        else:
            break
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, start + 14)
        width, height = width & 0x3FFF, height & 0x3FFF
    else:
        (bits,) = struct.unpack_from("<I", data, start + 9)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    exif = _chunk(data, b"EXIF", place=12, form="<4xI", around=8, even=True)
    return Header(
        "WebP",
        height,
        width,
        first_frame=(start, end),
        orientation=_orientation(exif.removeprefix(EXIF)),
    )


def _chunk(data, name, *, place, form, around, even=False):
    """The content of the first chunk of a name; empty if there is none.

    Args:
      data: bytes with a row of chunks, from `place` to the end.
      form: struct format of the length and the name, 4 bytes each.
      around: bytes of a chunk beside its content.
      even: whether chunks are padded to an even length.
    """
    for _ in range(MOST_CHUNKS):
        if place + 8 > len(data):
            break
        (length,) = struct.unpack_from(form, data, place)
        if name in data[place : place + 8]:
            return data[place + 8 : place + 8 + length]
        place += around + length + (length % 2 if even else 0)
    return b""


def _orientation(exif):
    """The orientation that Exif data holds, 1 to 8; 1 if it has none.

    It is in the first directory of the data, which is laid out as a TIFF file.
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    with contextlib.suppress(struct.error):
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == ORIENTATION_TAG:
                form = "I" if kind == 4 else "H"
                (found,) = struct.unpack_from(order + form, exif, entry + 8)
                return found if 1 <= found <= 8 else 1
    return 1
