"""What the tf.data service refuses or tells of, without any server."""

import socket
import threading
import time

import pytest
import tensorflow as tf

from meta_pseudo_labels.data.streams import service
from meta_pseudo_labels.data.streams.service import addresses, stream, watch
from meta_pseudo_labels.data.streams.service.__main__ import main
from meta_pseudo_labels.data.streams.service.addresses import free_port


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost:5050",
        "localhost:5050",
        "grpc://localhost",
        "grpc://:5050",
        "grpc://localhost:0",
        "grpc://localhost:65536",
        "grpc://localhost:port",
        "grpc://localhost:5050/path",
        "grpc://me@localhost:5050",
        "",
    ],
)
def test_addresses_of_another_form_are_refused(address):
    with pytest.raises(ValueError, match="form grpc://host:port") as caught:
        service.through_service(lambda step: step, address)
    assert repr(address) in str(caught.value)


def test_addresses_are_split():
    assert service.parse_address("grpc://h:50") == ("h:50", 50)
    assert service.parse_address("grpc://[::1]:50") == ("[::1]:50", 50)


def test_long_addresses_of_workers_are_read():
    long = b"w" * 300 + b":50"
    inner = b"\n\xaf\x02" + long
    message = b"\n\xb2\x02" + inner + b"\n\x06\n\x04h:51"
    assert list(addresses._workers(message)) == [long.decode(), "h:51"]


def test_nobody_at_the_address():
    port = free_port(0)
    start = time.monotonic()
    with pytest.raises(ValueError, match=f"localhost:{port} within 1 s") as e:
        service.through_service(
            lambda step: step, f"grpc://localhost:{port}", timeout_seconds=1
        )
    assert time.monotonic() - start < 30
    assert f"service dispatcher --port={port}" in str(e.value)


def test_servers_that_cannot_start(capsys):
    def refusal(*arguments):
        assert main(list(arguments)) == 1
        out, errors = capsys.readouterr()
        assert out == ""
        return errors.splitlines()[-1]

    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        message = refusal("dispatcher", f"--port={port}")
    assert message.startswith(f"Error: Port {port} cannot be used (Addr")
    message = refusal(
        "worker",
        f"--dispatcher=grpc://localhost:{free_port(0)}",
        "--timeout_seconds=0.5",
    )
    assert "within 0.5 s; start one with" in message
    message = refusal("worker", "--dispatcher=localhost")
    assert message.startswith("Error: The address 'localhost' is not of")


def test_too_much_to_send_is_refused(monkeypatch):
    monkeypatch.setattr(stream, "wait_for_dispatcher", lambda *_, **__: None)
    monkeypatch.setattr(stream, "MAX_HELD_BYTES", 3000)
    held = tf.zeros([1000, 3], tf.uint8), tf.zeros([1], tf.uint8)
    with pytest.raises(ValueError, match="can be sent 0.00 GB at most"):
        service.through_service(
            lambda step: [tensor[step] for tensor in held], "grpc://host:1"
        )


def test_a_service_that_falls_silent_is_told_of(monkeypatch):
    """Once, and once more when it answers again."""
    troubles = iter([None, "Start it.", "Start it.", None, None, "Too late."])
    asked, said = [], []

    def trouble(*arguments):
        asked.append(arguments)
        if len(asked) == 6:
            del kept[:]  # The last of the data set, while it is asked.
        return next(troubles)

    monkeypatch.setattr(watch, "_trouble", trouble)
    monkeypatch.setattr(
        watch.logging, "warning", lambda text, *rest: said.append(text % rest)
    )
    kept = [tf.data.Dataset.range(3)]
    before = set(threading.enumerate())
    watch.watch(kept[0], "grpc://h:1", pause_seconds=0.01)
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert len(asked) == 6
    assert said == [
        "Training waits for its input. Start it.",
        "grpc://h:1 answers again.",
    ]
