"""Addresses of tf.data servers: to parse, to reach, and free ones."""

import socket
import time
import urllib.parse

_HOW_TO_START = (
    "start one with `python -m meta_pseudo_labels.data.streams.service "
    "dispatcher --port={port}`"
)
_POLL_SECONDS = 0.2


def parse_address(address):
    """Splits grpc://host:port.

    Args:
      address: string; an IPv6 host must be in brackets.

    Returns:
      "host:port" and port.

    Raises:
      ValueError: if it has another form.
    """
    try:
        parts = urllib.parse.urlsplit(address)
        port = parts.port
    except ValueError:  # The port is not a number, or out of range.
        parts, port = None, None
    if (
        not port
        or not parts.hostname
        or parts.netloc.count("@")
        or address != f"grpc://{parts.netloc}"
    ):
        raise ValueError(
            f"The address {address!r} is not of the form grpc://host:port, "
            "with a port from 1 to 65535."
        )
    return parts.netloc, port


def wait_for_dispatcher(address, *, timeout_seconds, needs_workers=False):
    """Returns once a dispatcher answers at an address.

    TensorFlow itself would silently try forever.

    Args:
      address: grpc://host:port.
      timeout_seconds: how long to try, >= 0.
      needs_workers: whether it must also know a worker that answers.

    Raises:
      ValueError: if it did not answer in time, has no worker, or something
        else answered.
    """
    import grpc  # Comes with TensorFlow; needed only here.

    target, port = parse_address(address)
    start = _HOW_TO_START.format(port=port)
    end = time.monotonic() + timeout_seconds
    with grpc.insecure_channel(target) as channel:
        # In raw bytes: TensorFlow does not expose its messages to Python.
        ask = channel.unary_unary(
            "/tensorflow.data.DispatcherService/GetWorkers"
        )
        while True:
            left = end - time.monotonic()
            try:
                workers = ask(
                    b"", timeout=max(left, _POLL_SECONDS), wait_for_ready=True
                )
            except grpc.RpcError as error:
                raise ValueError(
                    _refusal(error, address, timeout_seconds, start)
                ) from None
            if not needs_workers or any(map(_answers, _workers(workers))):
                return
            if left <= 0:
                raise ValueError(
                    f"No worker of the dispatcher at {address} answers within "
                    f"{timeout_seconds:g} s; start some with `python -m "
                    "meta_pseudo_labels.data.streams.service worker "
                    f"--dispatcher={address}`."
                )
            time.sleep(_POLL_SECONDS)


def _refusal(error, address, timeout_seconds, start):
    """The message about a call that failed."""
    import grpc

    if error.code() in (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAVAILABLE,
    ):
        return (
            f"No tf.data dispatcher answers at {address} within "
            f"{timeout_seconds:g} s; {start}, or correct the address."
        )
    return (
        f"What answers at {address} is not a tf.data dispatcher "
        f"({error.code().name}); {start} and give its address, not that of "
        "a worker."
    )


def _workers(message):
    """The addresses, host:port, in an answer to GetWorkers.

    All its fields have number 1: a worker, and in it its address.
    """
    for worker in _fields(message):
        yield next(_fields(worker)).decode()


def _fields(message):
    """The values of a protocol buffer that has nothing but byte strings."""
    place = 0
    while place < len(message):
        size, shift, place = 0, 0, place + 1  # Past the field's number.
        while True:
            byte, place = message[place], place + 1
            size, shift = size | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        yield message[place : place + size]
        place += size


def _answers(address):
    """Whether a worker is alive: dispatchers do not forget the dead ones."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except OSError:
        return False


def own_host(dispatcher):
    """The address of this machine in the dispatcher's network.

    Args:
      dispatcher: grpc://host:port, which answers.
    """
    target, port = parse_address(dispatcher)
    host = target.rpartition(":")[0].strip("[]")
    with socket.create_connection((host, port), timeout=5) as connection:
        own = connection.getsockname()[0]
    return f"[{own}]" if ":" in own else own


def free_port(port):
    """A port on which nobody listens.

    gRPC would share a taken port with its owner, and each would get some of
    the calls.

    Args:
      port: the requested port; 0 for any.

    Raises:
      ValueError: if it is taken, not permitted or not a port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(
                f"Port {port} cannot be used ({reason}); give another --port, "
                "or 0 for any free one."
            ) from None
        return probe.getsockname()[1]
