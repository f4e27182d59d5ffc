"""Serves an exported model over HTTP, for trials and tests.

    mpl serve --saved_model=runs/mpl/saved_model --port=8501

It answers TensorFlow Serving's REST predict protocol, so what asks it can ask
TensorFlow Serving later (docs/serving.md):

    POST /v1/models/model:predict    {"instances": [...]}
    GET  /v1/models/model            status; /v1/models/model/metadata

Needed are TensorFlow and aiohttp (the extra `serve`), no Keras. The same are
`python serve.py` and `python -m meta_pseudo_labels.export.serving`. SIGTERM and
Ctrl-C end it after the requests that are under way. Exit status: 0, ended like
this; 1, it could not begin, and a line says why.
"""

import argparse
import os
import re
import socket
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_SECONDS_TO_FINISH = 20  # For requests under way, when it is told to end.


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--saved_model",
        required=True,
        help="folder of versions, of which the highest counts, or of one",
    )
    for name, default, meaning in (
        ("host", "127.0.0.1", "address to listen on; 0.0.0.0 is all"),
        ("name", "model", "of the model in addresses"),
    ):
        parser.add_argument(f"--{name}", default=default, help=meaning)
    for name, default, meaning in (
        ("port", 8501, "to listen on, up to 65535; 0 takes a free one"),
        ("workers", 2, "requests that are worked on at a time"),
        ("max_requests", 64, "requests under way at a time; others get 503"),
        ("max_body_mb", 32, "size of a request; larger ones get 413"),
        ("max_batch", 256, "images in a request; more get 400"),
    ):
        limits = (0, 65_535) if name == "port" else (1, 1_000_000)
        parser.add_argument(
            f"--{name}", type=_within(*limits), default=default, help=meaning
        )
    arguments = parser.parse_args()
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
    arguments = parse_arguments()
    try:
        from aiohttp import web
    except ImportError:
        sys.exit(
            "Error: aiohttp is missing: pip install "
            "'meta-pseudo-labels[serve]'."
        )
    from meta_pseudo_labels.export.serving.models import Model, NoModel
    from meta_pseudo_labels.export.serving.server import Limits, build_app

    body_bytes = arguments.max_body_mb * 1_000_000
    limits = Limits(
        requests=arguments.max_requests,
        workers=arguments.workers,
        body_bytes=body_bytes,
        waiting_bytes=8 * body_bytes,
        batch=arguments.max_batch,
    )
    try:  # Before the model, which takes its time.
        listening = socket.create_server((arguments.host, arguments.port))
    except OSError as error:
        sys.exit(
            f"Error: cannot listen on {arguments.host}:{arguments.port}: "
            f"{error.strerror}."
        )
    try:
        model = Model(arguments.saved_model)
    except NoModel as error:
        sys.exit(f"Error: {error}")
    app = build_app(model, name=arguments.name, limits=limits)
    host, port = listening.getsockname()[:2]
    print(
        f"Serving version {model.version} at "
        f"http://{host}:{port}/v1/models/{arguments.name}",
        flush=True,
    )
    web.run_app(
        app,
        sock=listening,
        print=None,
        access_log=None,
        backlog=1024,
        shutdown_timeout=_SECONDS_TO_FINISH,
    )
    print("Stopped.", flush=True)


if __name__ == "__main__":
    main()
