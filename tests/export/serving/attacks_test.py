"""The real server under attack: its memory, its status, its end."""

import asyncio
import gzip
import io
import json
import signal
import struct
import threading
import time
import urllib.parse

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.export.saved_model import export_saved_model
from tests.export.serving.served import ask, b64, memory_mb, start

aiohttp = pytest.importorskip("aiohttp")
pytestmark = pytest.mark.long

MODEL = "/v1/models/model"
PREDICT = f"{MODEL}:predict"
# Generous beside what was seen on two busy cores: 1.1 s, and 1,000 MB.
MOST_SECONDS, MOST_MB = 5.0, 1_500


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    digits = data.load("digits", num_labeled=40, seed=0)
    network = tf.keras.Sequential(
        [
            tf.keras.Input([8, 8, 3]),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(10),
        ]
    )
    path = tmp_path_factory.mktemp("attacked") / "saved_model"
    export_saved_model(network, path, spec=digits.spec)
    return path


@pytest.fixture
def server(folder):
    with start(f"--saved_model={folder}", "--port=0") as process:
        line = process.stdout.readline()
        assert line.startswith("Serving version 1 at ")
        address = urllib.parse.urlsplit(line.split()[-1])
        yield process, f"http://{address.netloc}"
        if process.poll() is None:
            process.kill()


class Watched:
    """The latency of the status, and the memory, until the block ends."""

    def __init__(self, server):
        self.server, self.seconds, self.mb = server, 0.0, 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self):
        while not self._ended.is_set():
            before = time.monotonic()
            assert ask(self.server, MODEL)[0] == 200
            self.seconds = max(self.seconds, time.monotonic() - before)
            self.mb = max(self.mb, memory_mb(self.server[0]))
            time.sleep(0.02)

    def __enter__(self):
        self.before = memory_mb(self.server[0])
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        self._thread.join()
        print(
            f"status within {self.seconds:.2f} s, "
            f"{self.mb - self.before:.0f} MB more"
        )


def send(server, bodies, **headers):
    """The statuses of requests that are sent at a time."""

    async def one(session, body):
        url = server[1] + PREDICT
        async with session.post(
            url, data=io.BytesIO(body), headers=headers
        ) as response:
            content = await response.json()
            assert response.status == 200 or list(content) == ["error"]
            return response.status

    async def all_of_them():
        timeout = aiohttp.ClientTimeout(total=300)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            return await asyncio.gather(*[one(session, b) for b in bodies])

    return asyncio.run(all_of_them())


def jpeg(height, width):
    """A small file whose header tells of a large picture."""
    file = tf.io.encode_jpeg(np.zeros([8, 8, 3], np.uint8)).numpy()
    place = file.index(b"\xff\xc0") + 5
    sizes = struct.pack(">HH", height, width)
    return file[:place] + sizes + file[place + 4 :]


def scans(side, times):
    """A progressive JPEG that goes over its pixels again and again."""
    gray = np.full([side, side, 1], 128, np.uint8)
    file = tf.io.encode_jpeg(gray, progressive=True).numpy()
    last, end = file.rindex(b"\xff\xda"), file.rindex(b"\xff\xd9")
    return file[:end] + file[last:end] * times + file[end:]


def of_files(files):
    return json.dumps(
        {
            "signature_name": "serving_bytes",
            "instances": [b64(file) for file in files],
        }
    ).encode()


TRIPLES = b"[1,22,255],"
# Each is made when its test runs, some of them from 1 GB.
ATTACKS = {
    "bombs": (
        lambda: [gzip.compress(b"\0" * 10**9, 1, mtime=0)] * 8,
        {413, 503},
        "gzip",
    ),
    "zipped text": (
        lambda: [gzip.compress(b'{"instances":[' + b"[]," * 10**7)] * 8,
        {400, 503},
        "gzip",
    ),
    "empty lists": (lambda: [b"[]," * 10**7] * 4, {400}, None),
    "pixels": (
        lambda: (
            [b'{"instances":[[[' + TRIPLES * 2_600_000 + b"[1,2,3]]]]}"] * 4
        ),
        {400},
        None,
    ),
    "rows": (
        lambda: (
            [
                b'{"instances":[['
                + (b"[" + TRIPLES * 9_999 + b"[1,2,3]],") * 199
                + b"[[1,2,3]]]]}"
            ]
            * 4
        ),
        {400},
        None,
    ),
    "names": (
        lambda: (
            [b"{" + b",".join(b'"%d":0' % i for i in range(2 * 10**6)) + b"}"]
            * 4
        ),
        {400},
        None,
    ),
    "headers": (
        lambda: [of_files([jpeg(8_000, 8_000)] * 256)] * 8,
        {400},
        None,
    ),
    "scans": (lambda: [of_files([scans(2_000, 4_000)] * 8)] * 8, {400}, None),
    "narrow": (
        lambda: [of_files([jpeg(650, 600)] * 256)] * 8,
        {200, 400},
        None,
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_takes_neither_time_nor_memory(server, name):
    make, statuses, encoding = ATTACKS[name]
    bodies = make()
    headers = {"Content-Encoding": encoding} if encoding else {}
    with Watched(server) as watched:
        found = set(send(server, bodies, **headers))
    assert found <= statuses
    assert watched.seconds < MOST_SECONDS
    assert watched.mb - watched.before < MOST_MB


def test_sigterm_with_requests_under_way_keeps_its_time(server):
    """All get an answer; the process ends in 20 s and a little."""
    pictures = np.random.default_rng(0).integers(0, 256, [1_500, 1_500, 3])
    file = tf.io.encode_jpeg(pictures.astype(np.uint8), quality=5).numpy()
    count = min(100, 20_000_000 // len(file))
    found = []
    bodies = [of_files([file] * count)] * 16
    asking = threading.Thread(target=lambda: found.extend(send(server, bodies)))
    asking.start()
    time.sleep(3)
    before = time.monotonic()
    server[0].send_signal(signal.SIGTERM)
    output, errors = server[0].communicate(timeout=120)
    seconds = time.monotonic() - before
    asking.join()
    print(f"ended after {seconds:.1f} s: {found}")
    assert (server[0].returncode, output) == (0, "Stopped.\n")
    assert "Traceback" not in errors
    assert len(found) == len(bodies) and set(found) <= {200, 503}
    assert seconds < 25
