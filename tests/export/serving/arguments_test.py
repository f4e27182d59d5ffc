"""What serve.py refuses before it does anything, and where it listens."""

import socket
import sys

import pytest
import tensorflow as tf

from meta_pseudo_labels.export.serving import __main__ as serve
from tests.export.serving.served import ask, start


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port=70000"], "must be from 0 to 65535, got 70000"),
        (["--port=-1"], "must be from 0 to 65535, got -1"),
        (["--workers=0"], "must be from 1 to"),
        (["--port=http"], "invalid integer value: 'http'"),
        (["--host="], "it is empty; name an address"),
        (["--host", " "], "it is empty; name an address"),
        (["--port="], "invalid integer value: ''"),
        (["--name="], "'' is part of an address"),
        (["--max_megapixels=0"], "must be from 1 to"),
        (["--name=a/b"], "'a/b' is part of an address"),
        (["--name=a:predict"], "'a:predict' is part of an address"),
    ],
)
def test_arguments_that_cannot_be(monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(
        sys, "argv", ["serve.py", "--saved_model=x", *arguments]
    )
    with pytest.raises(SystemExit, match="2"):
        serve.parse_arguments()
    assert words in capsys.readouterr().err


@pytest.fixture
def ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"There is no IPv6 here: {error}.")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_hosts_and_addresses_of_four_numbers(host):
    with serve.listen(host, 0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("host", ["::1", "::"])
def test_addresses_with_colons(ipv6, host):
    with serve.listen(host, 0) as listening:
        assert listening.getsockname()[0] == host


@pytest.mark.long
def test_the_address_that_is_printed_answers(ipv6, tmp_path):
    module = tf.Module()
    module.twice = tf.function(
        lambda numbers: {"twice": 2 * numbers},
        input_signature=[tf.TensorSpec([None], tf.float32, name="x")],
    )
    tf.saved_model.save(
        module, str(tmp_path), signatures=module.twice.get_concrete_function()
    )
    with start(f"--saved_model={tmp_path}", "--port=0", "--host=::1") as server:
        try:
            line = server.stdout.readline()
            assert "at http://[::1]:" in line
            address = line.split()[-1]
            answer = ask((server, address), ":predict", {"instances": [1, 3]})
        finally:
            server.kill()
    assert answer == (200, {"predictions": [2.0, 6.0]})
