"""Bodies within bounds: inflated, and parsed in small steps."""

import gzip
import json
import threading
import time
import zlib

import numpy as np
import pytest

from meta_pseudo_labels.export.serving import reading
from meta_pseudo_labels.export.serving.reading import (
    BadRequest,
    TooLarge,
    inflate,
    read_json,
)

LIMITS = dict(most_rows=8, most_numbers=2_000_000)
ZIPPED = gzip.compress(b"content", mtime=0)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("identity", b"content"),
        ("gzip", ZIPPED),
        ("x-gzip", ZIPPED),
    ],
)
def test_bodies_are_inflated(encoding, body):
    assert inflate(body, encoding, most=7) == b"content"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"no gzip", "is not gzip"),
        (b"", "lacks its end"),
        (ZIPPED[:-1], "lacks its end"),
        (ZIPPED[:-5] + b"\0\0\0\0\0", "is not gzip"),  # Its checksum.
        (ZIPPED + b"more", "continues after"),
        (ZIPPED + ZIPPED, "continues after"),
        (zlib.compress(b"content"), "is not gzip"),
    ],
)
def test_what_is_not_compressed_so_is_told(body, words):
    with pytest.raises(BadRequest, match=words):
        inflate(body, "gzip", most=100)


def test_no_more_is_inflated_than_may_be(monkeypatch):
    given = []
    make = zlib.decompressobj

    class Counting:
        def __init__(self, bits):
            self.real = make(bits)

        def decompress(self, body, most):
            content = self.real.decompress(body, most)
            given.append(len(content))
            return content

    monkeypatch.setattr(reading.zlib, "decompressobj", Counting)
    bomb = gzip.compress(b"\0" * 10_000_000, mtime=0)
    with pytest.raises(TooLarge, match="larger than 1000 bytes"):
        inflate(bomb, "gzip", most=1_000)
    assert given == [1_001]


VALUES = [
    {"instances": [[[[1, 2, 3], [4, 5, 6]]]] * 3, "signature_name": "x"},
    {"inputs": {"a": [1.5e3, -0, None, True], "b": [[], {}, {"b64": "A[{"}]}},
    [],
    {},
    "text",
    3,
    [[[1], [2, 3]], [["]", "["], '\\" é \u2028']],
    {"a": {"b": {"c": [{"d": 1}, {"d": 2}]}}},
    [1, [2, [3, [4, 5], 6], 7], 8],
    [[0.5, 1], [2, "x"], [3, [4]]],
]


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("indent", [None, 1])
def test_large_json_is_read_as_small_json_is(monkeypatch, value, indent):
    body = json.dumps(value, indent=indent, ensure_ascii=False).encode()
    assert read_json(body, **LIMITS) == value
    monkeypatch.setattr(reading, "_AT_ONCE", -1)  # All of it is large.
    if value == VALUES[1] or value == []:
        with pytest.raises(BadRequest, match="is empty"):
            read_json(body, **LIMITS)
        return
    assert read_json(b"\n" + body + b" ", **LIMITS) == value


@pytest.mark.parametrize("row", [1, 30])
def test_rows_longer_than_a_step_are_read_too(monkeypatch, row):
    monkeypatch.setattr(reading, "_AT_ONCE", -1)
    monkeypatch.setattr(reading, "_ROW", row)
    value = {"instances": [[[[1, 2, 3], [4, 5, 6]] * 5]]}
    assert read_json(json.dumps(value).encode(), **LIMITS) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a"',
        b'{"a":',
        b'{"a":1',
        b'{"a":1,',
        b'{"a":1,}',
        b'{"a" 1}',
        b"{a:1}",
        b"{1:1}",
        b"[1",
        b"[1,",
        b"[1,]",
        b"[[1,2],[3,,4]]",
        b"[[1,2] [3]]",
        b"[[[1,2]],",
        b"[1]]",
        b"[1] 2",
        b"[NaN]",
        b"[[1],[-Infinity]]",
        b"[01]",
        b"[+1]",
        b"[1.]",
        b'["a',
        b'["\x01"]',
        b"\xff",
        "[1]".encode("utf-16"),
        "[1]".encode("utf-8-sig"),
    ],
)
def test_what_is_no_json_is_none_in_steps_either(monkeypatch, body):
    for at_once in (reading._AT_ONCE, -1):
        monkeypatch.setattr(reading, "_AT_ONCE", at_once)
        with pytest.raises(BadRequest, match="is not JSON: "):
            read_json(body, **LIMITS)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [1], "instances": [2]}',
        b'{"instances": [{"b64": "a", "b64": "b"}]}',
    ],
)
def test_a_name_that_is_there_twice_is_told(monkeypatch, body):
    """json would take the last one, TensorFlow Serving the first."""
    for at_once in (reading._AT_ONCE, -1):
        monkeypatch.setattr(reading, "_AT_ONCE", at_once)
        with pytest.raises(BadRequest, match="has '(instances|b64)' twice"):
            read_json(body, **LIMITS)


MANY = 1_900_000
LARGE = {
    "2000001 values or more": b"[" + b"0," * 2_000_001 + b"0]",
    "values or more": b'{"instances":[' + b"[]" * 2_000_001 + b"]}",
    "objects or more": b'{"instances":[' + b"{}," * 200_000 + b"0]}",
    "escapes or more": b'{"instances":["' + b"\\n" * 1_100_000 + b'"]}',
    "More than 8 images": b'{"instances":[' + b"[[[0]]]," * 600_000 + b"0]}",
    "More than 8 im": b'{"inputs":{"a":[' + b"0," * MANY + b"0]}}",
    "100000 entries": b'{"inputs":[[[' + b"[0,0,0]," * 600_000 + b"0]]]}",
    "100000 ent": b'{"inputs":[{"b64":[' + b"[0],0," * 900_000 + b"0]}]}",
    "1000 entries": b"{"
    + b",".join(b'"%d":0' % i for i in range(MANY // 2))
    + b"}",
    "is empty": b'{"instances":[[[' + b"[]," * 1_900_000 + b"0]]]}",
    "64 deep": b'{"a":' + b"[" * 300_000,
    "64 dee": b'{"a":' * 90_000 + b"[0" + b",0" * 200_000,
    "is not JSON": b'{"instances":[[[' + b"[0,0,0]," * 99_000,
}


@pytest.mark.parametrize("words", LARGE)
def test_large_bodies_are_refused_before_much_is_done(words):
    """And no step keeps Python from the other threads for long."""
    longest, ended = [0.0], threading.Event()

    def watch():
        while not ended.is_set():
            before = time.monotonic()
            time.sleep(0.01)
            longest[0] = max(longest[0], time.monotonic() - before)

    watching = threading.Thread(target=watch)
    watching.start()
    before = time.process_time()
    try:
        with pytest.raises(BadRequest, match=words.rstrip()) as caught:
            read_json(LARGE[words], **LIMITS)
    finally:
        took = time.process_time() - before
        ended.set()
        watching.join()
    assert len(str(caught.value)) < 200
    # Generous: it is a tenth of that on a quiet machine.
    assert took < 10 and longest[0] < 5


def test_a_large_picture_is_read_in_steps():
    image = np.random.default_rng(0).integers(0, 256, [400, 500, 3]).tolist()
    body = json.dumps({"instances": [image]}).encode()
    assert body.count(b",") > reading._AT_ONCE
    assert read_json(body, **LIMITS) == {"instances": [image]}
