"""The real server, in a process of its own, asked over HTTP."""

import asyncio
import json
import signal
import socket
import time
import urllib.parse

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.export.saved_model import export_saved_model
from tests.export.serving.served import WATCHED, ask, b64, memory_mb, start
from tests.pictures import deep

aiohttp = pytest.importorskip("aiohttp")
MODEL = "/v1/models/digits"
BODY_BYTES = 1_000_000


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", num_labeled=40, seed=0)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input([8, 8, 3]),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )


@pytest.fixture(scope="module")
def server(digits, network, tmp_path_factory):
    """The process and its address; at the end, what it says then."""
    path = tmp_path_factory.mktemp("served") / "saved_model"
    (path / "2").mkdir(parents=True)
    assert export_saved_model(network, path, spec=digits.spec).endswith("/3")
    process = start(
        f"--saved_model={path}",
        "--port=0",
        "--name=digits",
        f"--max_body_mb={BODY_BYTES // 10**6}",
        "--max_requests=16",
        "--max_batch=100",
        code=WATCHED,
    )
    line = process.stdout.readline()
    if not line:
        pytest.fail(process.stderr.read()[-2000:])
    assert line.startswith("Serving version 3 at http://127.0.0.1:")
    assert line.endswith(f"{MODEL}\n")
    address = line.split()[-1].removesuffix(MODEL)
    yield process, address
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert (process.returncode, output) == (0, "Stopped.\n[]\n")


@pytest.mark.parametrize("kind", ["default", "float", "bytes"])
def test_answers_are_evaluations(server, digits, network, kind):
    """All test images, within 1e-5, from a process without Keras."""
    test = data.evaluation_dataset(
        digits.test_images, digits.test_labels, digits.spec, batch_size=500
    )
    want = tf.nn.softmax(network(next(iter(test))[0], training=False)).numpy()
    if kind == "bytes":
        shown = [b64(tf.io.encode_png(i).numpy()) for i in digits.test_images]
    else:
        shown = digits.test_images.tolist()
    found = []
    for first in range(0, 500, 100):
        request = {"signature_name": f"serving_{kind}"}
        request["instances"] = shown[first : first + 100]
        status, answer = ask(server, f"{MODEL}:predict", request)
        assert status == 200
        found += answer["predictions"]
    probabilities = np.array([row["probabilities"] for row in found])
    np.testing.assert_allclose(probabilities, want, rtol=0, atol=1e-5)
    assert [row["classes"] for row in found] == want.argmax(-1).tolist()
    assert [row["labels"] for row in found] == list(map(str, want.argmax(-1)))


def test_columns_and_versions(server, digits):
    images = digits.test_images[:2].tolist()
    rows = ask(server, f"{MODEL}:predict", {"instances": images})[1]
    status, columns = ask(
        server,
        f"{MODEL}/versions/3:predict",
        {"inputs": {"images": images}},
    )
    assert status == 200
    assert columns["outputs"]["labels"] == [
        row["labels"] for row in rows["predictions"]
    ]


def test_it_says_that_it_is_alive_and_ready(server):
    assert ask(server, "/healthz") == (200, {"status": "alive"})
    assert ask(server, "/readyz") == (200, {"status": "ready"})


def test_status_and_metadata(server):
    for path in (MODEL, f"{MODEL}/versions/3"):
        status, answer = ask(server, path)
        assert status == 200
        (state,) = answer["model_version_status"]
        assert (state["version"], state["state"]) == ("3", "AVAILABLE")
    _, answer = ask(server, f"{MODEL}/metadata")
    assert answer["model_spec"]["version"] == "3"
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {
        "serving_default",
        "serving_float",
        "serving_bytes",
    }
    given = signatures["serving_default"]["inputs"]["images"]
    assert given["dtype"] == "DT_UINT8"
    sizes = [size["size"] for size in given["tensor_shape"]["dim"]]
    assert sizes == ["-1", "-1", "-1", "3"]


IMAGE = np.zeros([8, 8, 3], int).tolist()
PNG = b"\x89PNG\r\n\x1a\n"
HUGE = 2 * (8_000).to_bytes(4, "big")  # As a PNG tells its width and height.
WHOLE_PNG = tf.io.encode_png(np.zeros([8, 8, 3], np.uint8)).numpy()
JPEG = tf.io.encode_jpeg(np.zeros([8, 8, 3], np.uint8)).numpy()
HUGE_JPEG = JPEG.replace(
    b"\xff\xc0\0\x11\x08\0\x08\0\x08",
    b"\xff\xc0\0\x11\x08\x1f\x40\x1f\x40",
)


def of_files(*files):
    return {
        "signature_name": "serving_bytes",
        "instances": [b64(file) for file in files],
    }


BAD = [
    (404, "no version 3 of model other", "/v1/models/other:predict", {}),
    (404, "no version 1 of model digits", f"{MODEL}/versions/1:predict", {}),
    (404, "Not Found", "/v1/else", {}),
    (405, "Not Allowed", f"{MODEL}:predict", None),
    (400, "not JSON", f"{MODEL}:predict", b"{"),
    (400, "is empty", f"{MODEL}:predict", {"instances": []}),
    (400, "the shape", f"{MODEL}:predict", {"instances": [[1, 2]]}),
    (400, "type uint8", f"{MODEL}:predict", {"instances": [[[["a", 1, 2]]]]}),
    (400, "at most 100", f"{MODEL}:predict", {"instances": [IMAGE] * 101}),
    (400, "no signature", f"{MODEL}:predict", {"signature_name": "x"}),
    (400, "not a JPEG or PNG", f"{MODEL}:predict", of_files(b"GIF89a")),
    (400, "PNG", f"{MODEL}:predict", of_files(PNG + b"\0\0\0\5" * 40)),
    (400, "more than", f"{MODEL}:predict", of_files(PNG + b"x" * 50)),
    (400, "JPEG", f"{MODEL}:predict", of_files(b"\xff\xd8\xff" + b"x" * 50)),
    (400, "JPEG", f"{MODEL}:predict", of_files(JPEG[:-2])),
    (400, "PNG", f"{MODEL}:predict", of_files(WHOLE_PNG[:-20])),
    (400, "cut off", f"{MODEL}:predict", of_files(JPEG, HUGE_JPEG)),
    (
        400,
        "pixels together",
        f"{MODEL}:predict",
        of_files(*[PNG + b"\0\0\0\rIHDR" + HUGE] * 5),
    ),
    (
        400,
        "0 to 255",
        f"{MODEL}:predict",
        {"signature_name": "serving_float", "instances": [[[[-1, 0, 0]]]]},
    ),
    (
        400,
        "as if divided by 255",
        f"{MODEL}:predict",
        {"signature_name": "serving_float", "instances": [[[[0.9, 0, 0.1]]]]},
    ),
    (
        400,
        "16 bits with levels from 0 to 4095, but no picture of 16 bits was",
        f"{MODEL}:predict",
        of_files(deep(np.arange(4096).reshape(64, 64))),
    ),
]


@pytest.mark.parametrize(("status", "words", "path", "request_"), BAD)
def test_bad_requests_are_told_why(server, status, words, path, request_):
    if isinstance(request_, bytes):
        found, answer = ask(server, path, body=request_)
    else:
        found, answer = ask(server, path, request_)
    assert found == status
    assert list(answer) == ["error"] and words in answer["error"], answer
    assert len(answer["error"]) < 300 and "\n" not in answer["error"]


@pytest.mark.parametrize(
    "sent",
    [
        b"no http at all\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /%s HTTP/1.1\r\n\r\n" % (b"a" * 20_000),
        b"GET / HTTP/1.1\r\nA: %s\r\n\r\n" % (b"a" * 20_000),
        b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nExpect: more\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_in_json(server, sent):
    address = urllib.parse.urlsplit(server[1])
    with socket.create_connection((address.hostname, address.port)) as raw:
        raw.settimeout(60)
        raw.sendall(sent)
        answer = b""
        while not answer.endswith(b"}"):
            answer += raw.recv(65_536) or b"?}"
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.") and b" 4" in head[:12]
    assert b"application/json" in head
    (text,) = json.loads(content).values()
    assert text and "\n" not in text and len(text) < 300


def test_bodies_that_are_too_large_are_not_read(server):
    """50 MB that say so are refused at once; in pieces, at the limit."""
    before = memory_mb(server[0])
    address = urllib.parse.urlsplit(server[1])

    def refused(head, chunks):
        with socket.create_connection((address.hostname, address.port)) as s:
            s.settimeout(60)
            s.sendall(
                f"POST {MODEL}:predict HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n"
                "".encode()
            )
            try:
                for chunk in chunks:
                    s.sendall(chunk)
            except (BrokenPipeError, ConnectionResetError):
                pass  # It hung up before we were done.
            return s.recv(12)

    block = b" " * 10**6
    pieces = [b"%x\r\n%s\r\n" % (len(block), block)] * 50
    for head, chunks in (
        ("Content-Length: 50000000", []),
        ("Content-Length: 50000000", [block] * 50),
        ("Transfer-Encoding: chunked", pieces),
    ):
        assert refused(head, chunks) == b"HTTP/1.1 413"
    assert memory_mb(server[0]) - before < 100


def test_two_hundred_clients_at_once(server, digits):
    """Each gets an answer or is told to come again; and it goes on."""
    image = digits.test_images[0].tolist()
    want = ask(server, f"{MODEL}:predict", {"instances": [image]})[1]
    before = memory_mb(server[0])
    filled = {"instances": [image] * 100}

    async def client(session, number):
        content = filled if number % 2 else {"instances": [image]}
        url = f"{server[1]}{MODEL}:predict"
        async with session.post(url, json=content) as response:
            return number, response.status, await response.json()

    async def clients():
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            return await asyncio.gather(
                *[client(session, n) for n in range(200)]
            )

    answers = asyncio.run(clients())
    statuses = {status for _, status, _ in answers}
    assert statuses <= {200, 503} and 200 in statuses
    for number, status, answer in answers:
        if status == 503:
            assert "try again" in answer["error"]
            continue
        assert len(answer["predictions"]) == (100 if number % 2 else 1)
        for row in answer["predictions"]:
            assert row["classes"] == want["predictions"][0]["classes"]
    assert ask(server, f"{MODEL}:predict", {"instances": [image]})[0] == 200
    assert memory_mb(server[0]) - before < 200


@pytest.mark.long
def test_clients_that_leave_free_their_places(server):
    """More of them than there are places, in the middle of their bodies."""
    address = urllib.parse.urlsplit(server[1])
    for _ in range(20):
        with socket.create_connection((address.hostname, address.port)) as s:
            s.sendall(
                f"POST {MODEL}:predict HTTP/1.1\r\nHost: x\r\n"
                "Content-Length: 900000\r\n\r\n{".encode()
            )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        status, _ = ask(server, f"{MODEL}:predict", {"instances": [IMAGE]})
        if status == 200:
            return
        time.sleep(0.1)
    pytest.fail("The places of clients that left are still taken.")


@pytest.mark.long
def test_what_cannot_begin_says_why_in_a_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        processes = {
            "cannot listen": start("--saved_model=x", f"--port={port}"),
            "no version of one": start("--saved_model=nowhere", "--port=0"),
        }
        for words, process in processes.items():
            output, errors = process.communicate(timeout=300)
            assert (process.returncode, output) == (1, "")
            assert errors.startswith("Error: ") and words in errors
            assert errors.count("\n") == 1
