"""What keeps the server's memory bounded, in this process, by a small model."""

import asyncio
import contextlib
import gzip
import json
import logging
import socket
import time
import zlib

import numpy as np
import pytest

from meta_pseudo_labels.export.serving.models import Input

aiohttp = pytest.importorskip("aiohttp")
from aiohttp.test_utils import TestServer  # noqa: E402

from meta_pseudo_labels.export.serving.server import Limits, build_app  # noqa: E402

LIMITS = Limits(
    requests=4,
    workers=1,
    body_bytes=1_000_000,
    waiting_bytes=2_000_000,
    # Long beside any pause of a busy machine, short enough to wait for.
    body_seconds=3.0,
    finish_seconds=1.0,
)
PATH = "/v1/models/m:predict"
SLOW = 99  # Not soon answered, see `Numbers`.


class Numbers:
    """Answers a number with that many megabytes."""

    version = "3"
    metadata = {}
    inputs = {"serving_default": {"x": Input(np.dtype("uint8"), (None,))}}

    def predict(self, signature, arrays):
        if arrays["x"][0] == SLOW:
            time.sleep(3)
        size = int(arrays["x"][0]) * 1_000_000
        return {"text": np.array([b"a" * size], object)}


@contextlib.asynccontextmanager
async def serving():
    server = TestServer(build_app(Numbers(), name="m", limits=LIMITS))
    await server.start_server()
    session = aiohttp.ClientSession(server.make_url("/"))
    try:
        yield server, session
    finally:
        await session.close()
        await server.close()


async def ask(session, body, **headers):
    async with session.post(PATH, data=body, headers=headers) as response:
        return response.status, await response.json()


def body(number):
    return json.dumps({"instances": [number]}).encode()


async def is_answered_again(session):
    """Whether the server has room again within a minute."""
    for _ in range(600):
        status, _ = await ask(session, body(0))
        if status != 503:
            return status == 200
        await asyncio.sleep(0.1)
    return False


@contextlib.asynccontextmanager
async def client(server, head, content):
    """A connection that has sent this, and reads nothing."""
    raw = socket.create_connection((server.host, server.port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode()
    raw.sendall(head + content)
    try:
        yield raw
    finally:
        raw.close()


def test_a_compressed_body_counts_as_the_largest():
    """It is a few bytes on the way, and may be any number of them here."""

    async def run():
        async with serving() as (server, session):
            zipped = gzip.compress(body(0))
            encoding = {"Content-Encoding": "gzip"}
            assert (await ask(session, zipped, **encoding))[0] == 200
            bomb = gzip.compress(b" " * 2_000_000, mtime=0)
            assert len(bomb) < 10_000
            assert (await ask(session, bomb, **encoding))[0] == 413
            # Two that do not end take all the room.
            head = "Content-Encoding: gzip\r\nContent-Length: 9999"
            async with client(server, head, zipped):
                async with client(server, head, zipped):
                    await asyncio.sleep(0.1)
                    status, answer = await ask(session, body(0))
                    assert status == 503 and "try again" in answer["error"]
                    assert await is_answered_again(session)

    asyncio.run(run())


def test_answers_that_nobody_takes_keep_their_places_for_a_time():
    """So there are never more of them than places."""

    async def run():
        async with serving() as (server, session):
            async with contextlib.AsyncExitStack() as deaf:
                content = body(20)
                head = f"Content-Length: {len(content)}"
                for _ in range(LIMITS.requests):
                    await deaf.enter_async_context(
                        client(server, head, content)
                    )
                await asyncio.sleep(0.3)
                assert (await ask(session, body(0)))[0] == 503
                assert await is_answered_again(session)

    asyncio.run(run())


def test_a_client_that_leaves_is_no_fault_of_the_server(caplog):
    async def run():
        async with serving() as (server, session):
            async with client(server, "Content-Length: 900", b"{"):
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.1)
            assert (await ask(session, body(0)))[0] == 200

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert caplog.records == []


@pytest.mark.parametrize("version", ["1", "9" * 5_000])
def test_versions_of_any_length_are_not_there(version):
    async def run():
        async with serving() as (_, session):
            url = f"/v1/models/m/versions/{version}"
            async with session.get(url) as response:
                answer = await response.json()
                assert response.status == 404
                assert len(answer["error"]) < 100
            async with session.get("/v1/models/m/versions/03") as response:
                assert response.status == 200

    asyncio.run(run())


GZIP = gzip.compress(b'{"instances": [0]}', mtime=0)


@pytest.mark.parametrize(
    ("encoding", "body", "status", "words"),
    [
        ("GZIP", GZIP, 200, None),
        ("gzip", b"{}", 400, "is not gzip"),
        ("gzip", GZIP[:-3], 400, "lacks its end"),
        # TensorFlow Serving would take it for JSON.
        ("deflate", zlib.compress(b'{"instances": [0]}'), 415, "deflate"),
        (
            "gzip",
            gzip.compress(b"[" * 10**6 + b" ", mtime=0),
            413,
            "larger than",
        ),
        ("br", GZIP, 415, "identity, gzip"),
        ("gzip, gzip", gzip.compress(GZIP, mtime=0), 415, "gzip, gzip"),
    ],
)
def test_compressed_bodies_are_taken_or_told_why(
    encoding, body, status, words, caplog
):
    async def run():
        async with serving() as (_, session):
            return await ask(session, body, **{"Content-Encoding": encoding})

    found, answer = asyncio.run(run())
    assert found == status
    assert words is None or words in answer["error"]
    assert caplog.records == []


async def _until_closed(raw):
    """What a connection says until the server ends it, and in what time."""
    reader, writer = await asyncio.open_connection(sock=raw)
    start = time.monotonic()
    try:
        text = await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()
    return text.decode(), time.monotonic() - start


@pytest.mark.parametrize(
    ("head", "content", "status"),
    [
        ("Content-Length: 5000000", b"{", 413),
        ("Content-Length: 900000\r\nContent-Encoding: br", b"{", 415),
        (
            "Transfer-Encoding: chunked",
            b"fffff\r\n" + b" " * 0xFFFFF + b"\r\n",
            413,
        ),
    ],
)
def test_a_connection_ends_with_its_refusal(head, content, status):
    """It does not wait for the rest of what was refused."""

    async def run():
        async with serving() as (server, _):
            async with client(server, head, content) as raw:
                raw.setblocking(False)
                text, seconds = await _until_closed(raw.dup())
        assert text.startswith(f"HTTP/1.1 {status} ")
        assert "connection: close" in text.lower() and '"error"' in text
        assert seconds < 15  # Two, on a quiet machine.

    asyncio.run(run())


def test_requests_under_way_are_answered_as_the_server_ends():
    """Those that take too long, and those that wait, with a 503; in time."""

    async def run():
        async with serving() as (server, session):
            asked = [
                asyncio.ensure_future(ask(session, body(number)))
                for number in (0, SLOW, 0)
            ]
            assert (await asked[0])[0] == 200
            async with client(server, "Content-Length: 900", b"{") as raw:
                raw.setblocking(False)
                await asyncio.sleep(0.5)
                start = time.monotonic()
                await server.close()
                seconds = time.monotonic() - start
                text, _ = await _until_closed(raw.dup())
            assert text.startswith("HTTP/1.1 503 ")
            for status, answer in await asyncio.gather(*asked[1:]):
                assert status == 503 and "stopping" in answer["error"]
            assert seconds < 2.8  # It did not wait for the slow one.

    asyncio.run(run())


def test_what_a_client_asked_that_left_is_not_worked_on():
    async def run():
        async with serving() as (server, session):
            slow = asyncio.ensure_future(ask(session, body(SLOW)))
            await asyncio.sleep(0.3)
            content = body(SLOW)
            head = f"Content-Length: {len(content)}"
            for _ in range(3):
                async with client(server, head, content):
                    await asyncio.sleep(0.2)
            assert (await slow)[0] == 200
            start = time.monotonic()
            assert (await ask(session, body(0)))[0] == 200
            assert time.monotonic() - start < 2.5  # Not after three slow ones.

    asyncio.run(run())
