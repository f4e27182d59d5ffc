"""Serves an exported model over HTTP, for trials and tests.

    mpl serve --saved_model=runs/mpl/saved_model --port=8501

It speaks TensorFlow Serving's REST predict protocol, so its clients can use
TensorFlow Serving later (docs/serving.md):

    POST /v1/models/model:predict    {"instances": [...]}
    GET  /v1/models/model            status; /v1/models/model/metadata
    GET  /healthz, /readyz, /metrics

It needs TensorFlow and the extra `serve`, but not Keras. `python serve.py` and
`python -m meta_pseudo_labels.export.serving` do the same. SIGTERM and Ctrl-C
end it after the requests that are under way; it takes 20 s at most. Exit
status: 0, ended like this; 75, ended before it had started; 1, it could not
start, and a line says why.
"""

import argparse
import gc
import importlib
import os
import re
import signal
import socket
import sys
import threading

from meta_pseudo_labels.utils.settings import ConfigError, check_address

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_SECONDS_TO_ANSWER = 15  # From a signal, for requests under way.
_EXIT_INTERRUPTED = 75  # As with runs: the same command may be run again.


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--saved_model",
        required=True,
        help="folder of versions, the highest of which is served, or of one",
    )
    for name, default, meaning in (
        ("host", "127.0.0.1", "address to listen on; 0.0.0.0 means all"),
        ("name", "model", "name of the model in URLs"),
    ):
        parser.add_argument(f"--{name}", default=default, help=meaning)
    for name, default, meaning in (
        ("port", 8501, "port to listen on, up to 65535; 0 picks a free one"),
        ("workers", 2, "requests that are processed at a time"),
        ("max_requests", 64, "requests under way at a time; others get 503"),
        ("max_body_mb", 32, "size of a request; larger ones get 413"),
        ("max_batch", 256, "images in a request; more get 400"),
        ("max_megapixels", 256, "of a request's picture files; more get 400"),
    ):
        limits = (0, 65_535) if name == "port" else (1, 1_000_000)
        parser.add_argument(
            f"--{name}", type=_within(*limits), default=default, help=meaning
        )
    arguments = parser.parse_args()
    if not arguments.host.strip():
        parser.error(
            "argument --host: it is empty; name an address such as 127.0.0.1, "
            "or 0.0.0.0 for all interfaces"
        )
    if not re.fullmatch(r"[\w.-]+", arguments.name):
        parser.error(
            f"argument --name: {arguments.name!r} is part of an address: use "
            "letters, digits, '_', '-' and '.'"
        )
    return arguments


def _within(low, high):
    def integer(text):
        number = int(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(
                f"must be from {low} to {high}, got {text}"
            )
        return number

    return integer


def main():
    _end_on_signals()
    arguments = parse_arguments()
    try:
        check_address("saved_model", arguments.saved_model)
    except ConfigError as error:
        sys.exit(f"Error: {error}")
    try:
        importlib.import_module("prometheus_client")
        from aiohttp import web
    except ImportError as error:
        sys.exit(
            f"Error: {error.name} is missing: pip install "
            "'meta-pseudo-labels[serve]'."
        )
    from meta_pseudo_labels.export.serving.models import Model, NoModel
    from meta_pseudo_labels.export.serving.server import build_app, speak_json

    try:  # Before the model, which takes longer.
        listening = listen(arguments.host, arguments.port)
    except (OSError, UnicodeError) as error:  # A host may not be a valid name.
        reason = getattr(error, "strerror", None) or error
        sys.exit(
            "Error: cannot listen on "
            f"{_address(arguments.host, arguments.port)}: {reason}."
        )
    try:
        model = Model(arguments.saved_model)
    except NoModel as error:
        sys.exit(f"Error: {error}")
    app = build_app(model, name=arguments.name, limits=_limits(arguments))
    speak_json()
    _collect_less_often()
    address = _address(*listening.getsockname()[:2])
    print(
        f"Serving version {model.version} at "
        f"http://{address}/v1/models/{arguments.name}",
        flush=True,
    )
    web.run_app(
        app,
        sock=listening,
        print=None,
        access_log=None,
        backlog=1024,
        shutdown_timeout=_SECONDS_TO_ANSWER + 1,
    )
    print("Stopped.", flush=True)
    _leave_what_is_worked_on()


def listen(host, port):
    """A socket that listens, of IPv6 if the host is such an address.

    Raises:
      OSError, UnicodeError: if there is no such host, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def _address(host, port):
    """Host and port as in URLs, where brackets enclose the colons of IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _limits(arguments):
    from meta_pseudo_labels.export.serving.server import Limits

    body_bytes = arguments.max_body_mb * 1_000_000
    return Limits(
        requests=arguments.max_requests,
        workers=arguments.workers,
        body_bytes=body_bytes,
        waiting_bytes=8 * body_bytes,
        batch=arguments.max_batch,
        pixels=arguments.max_megapixels * 1_000_000,
        finish_seconds=_SECONDS_TO_ANSWER,
    )


def _end_on_signals():
    """Makes signals end the process at once, until aiohttp handles them."""

    def end(number, frame):
        os._exit(_EXIT_INTERRUPTED)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def _collect_less_often():
    """Spares Python from looking for garbage in the many lists of pixels."""
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)


def _leave_what_is_worked_on():
    """Ends without waiting for workers' unfinished work: nobody needs it."""
    from meta_pseudo_labels.export.serving.server import WORKERS

    for thread in threading.enumerate():
        if thread.name.startswith(WORKERS):
            thread.join(0.5)
            if thread.is_alive():  # Python itself would wait.
                os._exit(0)


if __name__ == "__main__":
    main()
