"""From the bodies of requests to values: inflated and parsed within bounds.

Bounds are applied along the way, so a refused body costs no more than an
accepted one; and no step keeps Python from the other threads for long, as zlib
and json do with large input.
"""

import collections
import json
import re
import zlib

ENCODINGS = ("identity", "gzip", "x-gzip")

_AT_ONCE = 200_000  # Commas, brackets, escapes that json may parse at once.
_ROW = 1_000_000  # Characters of a row of pixels, or of a list of numbers.
_MOST_ITEMS = 100_000  # Of a longer list; no picture has a row that wide.
_DEEPEST = 64
_MOST_ENTRIES = 1_000  # Of an object: a name for each input.
_MOST_OBJECTS = 100_000
_MOST_ESCAPES = 1_000_000  # Some write / as \/; base64 has one in 64 letters.
_BLANKS = re.compile(r"[ \t\n\r]*")
# Numbers, or lists of numbers.
_FLAT = re.compile(
    r"""\[ [^][{"]* \] | \[ \s* \[ [^][{"]* \]
    (?: \s* , \s* \[ [^][{"]* \] )* \s* \]""",
    re.VERBOSE,
)


class BadRequest(ValueError):
    """An error that the client can fix; the message says how."""


class TooLarge(ValueError):
    """A body that is larger than allowed, once it is inflated."""


def inflate(body, encoding, *, most):
    """The bytes that were sent compressed.

    Args:
      body: bytes.
      encoding: as in the header Content-Encoding, one of ENCODINGS.
      most: the largest number of bytes.

    Raises:
      BadRequest: if it is not compressed this way, or lacks its end.
      TooLarge: for more bytes; the rest is not inflated.
    """
    if encoding == "identity":
        return body
    inflating = zlib.decompressobj(zlib.MAX_WBITS + 16)  # gzip.
    try:
        content = inflating.decompress(body, most + 1)
    except zlib.error as error:
        raise BadRequest(f"The body is not {encoding}: {error}.") from error
    if len(content) > most:
        raise TooLarge(f"The body is larger than {most} bytes when inflated.")
    if not inflating.eof:
        raise BadRequest(f"The body in {encoding} lacks its end.")
    if inflating.unused_data:
        raise BadRequest(f"The body continues after the end of its {encoding}.")
    return content


def read_json(body, *, most_rows, most_numbers):
    """The value in a body of JSON.

    Args:
      body: bytes of UTF-8 without a byte-order mark; json itself would also
        accept UTF-16.
      most_rows: the largest number of entries of a list that is a value of the
        outermost object, or of an object in it: images.
      most_numbers: the largest number of values and lists in all.

    Raises:
      BadRequest: if it is not JSON, names something twice in one object, or
        there are more.
    """
    commas, lists, objects, escapes = map(body.count, (b",", b"[", b"{", b"\\"))
    for count, most, what in (
        (max(commas, lists), most_numbers, "values"),
        (objects, _MOST_OBJECTS, "objects"),
        (escapes, _MOST_ESCAPES, "escapes"),
    ):
        if count > most:
            raise BadRequest(
                f"The body holds {count} {what} or more; send at most {most}."
            )
    try:
        text = body.decode("utf-8")
        if commas + lists + objects + escapes <= _AT_ONCE:
            return json.loads(text, **_STRICTLY)
        return _Reader(text, most_rows).read()
    except BadRequest:
        raise
    except (ValueError, RecursionError) as error:  # So are UTF-8 errors.
        raise BadRequest(f"The body is not JSON: {error}") from error


def _no_constant(name):
    raise ValueError(f"{name} is not a number in JSON")


def _object_of(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise BadRequest(_TWICE.format(twice))
    return found


_TWICE = "An object has {!r} twice; it is not clear which one counts."
_STRICTLY = dict(parse_constant=_no_constant, object_pairs_hook=_object_of)


class _Reader:
    """Reads large JSON in small steps, each by json itself.

    Between two steps Python runs other threads.

    Args:
      text: a string.
      most_rows: see `read_json`.
    """

    def __init__(self, text, most_rows):
        self._text = text
        self._most_rows = most_rows
        self._decoder = json.JSONDecoder(**_STRICTLY)

    def read(self):
        value, end = self._value(self._after_blanks(0), 0, rows=False)
        if self._after_blanks(end) != len(self._text):
            raise self._error("Extra data", end)
        return value

    def _value(self, start, depth, *, rows):
        """The value that begins somewhere, and where it ends."""
        first = self._text[start : start + 1]
        if depth > _DEEPEST:
            raise BadRequest(f"Lists are nested more than {_DEEPEST} deep.")
        if first == "[":
            return self._list(start, depth, rows=rows)
        if first == "{":
            return self._object(start, depth)
        return self._decoder.raw_decode(self._text, start)

    def _list(self, start, depth, *, rows):
        flat = _FLAT.match(self._text, start, start + _ROW)
        if flat:
            items = self._decoder.decode(flat[0])
            self._check_length(items, rows=rows, is_flat=True)
            return items, flat.end()
        items, end = [], start
        while end == start or self._text[end] == ",":
            begin = self._after_blanks(end + 1)
            item, end = self._value(begin, depth + 1, rows=False)
            items.append(item)
            self._check_length(items, rows=rows)
            end = self._expect(",]", end)
        return items, end + 1

    def _check_length(self, items, *, rows, is_flat=False):
        if rows and len(items) > self._most_rows:
            raise BadRequest(
                f"More than {self._most_rows} images in one request; send at "
                f"most {self._most_rows}."
            )
        if len(items) > _MOST_ITEMS and not is_flat:
            raise BadRequest(f"A list has more than {_MOST_ITEMS} entries.")
        if not items:
            raise BadRequest("A list of numbers or images is empty.")

    def _object(self, start, depth):
        found, end = {}, start
        first = self._after_blanks(start + 1)
        if self._text[first : first + 1] == "}":
            return found, first + 1
        while end == start or self._text[end] == ",":
            begin = self._after_blanks(end + 1)
            if self._text[begin : begin + 1] != '"':
                raise self._error("Expecting property name", begin)
            name, end = self._decoder.raw_decode(self._text, begin)
            if name in found:
                raise BadRequest(_TWICE.format(name))
            begin = self._after_blanks(self._expect(":", end) + 1)
            found[name], end = self._value(begin, depth + 1, rows=depth < 2)
            if len(found) > _MOST_ENTRIES:
                raise BadRequest(
                    f"An object has more than {_MOST_ENTRIES} entries."
                )
            end = self._expect(",}", end)
        return found, end + 1

    def _after_blanks(self, start):
        return _BLANKS.match(self._text, start).end()

    def _expect(self, characters, start):
        """Where one of the characters stands, after blanks."""
        place = self._after_blanks(start)
        found = self._text[place : place + 1]
        if not found or found not in characters:
            raise self._error(f"Expecting one of {characters!r}", place)
        return place

    def _error(self, what, place):
        return json.JSONDecodeError(what, self._text, place)
