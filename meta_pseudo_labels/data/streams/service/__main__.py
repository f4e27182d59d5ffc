"""Starts a dispatcher or a worker of a tf.data service.

    python -m meta_pseudo_labels.data.streams.service dispatcher --port=5050
    python -m meta_pseudo_labels.data.streams.service worker \
        --dispatcher=grpc://host:5050

Either runs until SIGTERM or SIGINT. There is no authentication: whoever can
reach the ports can use them, so keep them inside a network that you trust.
"""

import argparse
import signal
import sys
import threading

import tensorflow as tf

from meta_pseudo_labels.data.streams.service.addresses import (
    free_port,
    own_host,
    parse_address,
    wait_for_dispatcher,
)

_FORMATTER = argparse.ArgumentDefaultsHelpFormatter


def parse(arguments):
    """The arguments of a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m meta_pseudo_labels.data.streams.service",
        description=__doc__.splitlines()[0],
    )
    servers = parser.add_subparsers(dest="server", required=True)
    dispatcher = servers.add_parser(
        "dispatcher",
        help="deals steps out to workers; one of these",
        formatter_class=_FORMATTER,
    )
    dispatcher.add_argument(
        "--port", type=int, default=5050, help="to listen on; 0 for a free one"
    )
    dispatcher.add_argument(
        "--work_dir",
        help="folder for its state; a dispatcher that is started again with "
        "it, on the same port, continues where it stopped",
    )
    worker = servers.add_parser(
        "worker",
        help="makes batches; any number of these, at any time",
        formatter_class=_FORMATTER,
    )
    worker.add_argument(
        "--dispatcher", required=True, help="its address, grpc://host:port"
    )
    worker.add_argument(
        "--port", type=int, default=0, help="to listen on; 0 for a free one"
    )
    worker.add_argument(
        "--host",
        help="name or address at which trainers reach this machine; by "
        "default the address from which it reaches the dispatcher",
    )
    worker.add_argument(
        "--timeout_seconds",
        type=float,
        default=30,
        help="how long to wait for the dispatcher",
    )
    return parser.parse_args(arguments)


def start_dispatcher(*, port, work_dir):
    """A running dispatcher, and a line about it."""
    service = tf.data.experimental.service
    port = free_port(port)
    config = service.DispatcherConfig(
        port=port, work_dir=work_dir, fault_tolerant_mode=bool(work_dir)
    )
    server = service.DispatchServer(config)
    state = f", state in {work_dir}" if work_dir else ""
    return server, f"Dispatcher is up: grpc://localhost:{port}{state}."


def start_worker(*, dispatcher, port, host, timeout_seconds):
    """A running worker, and a line about it."""
    service = tf.data.experimental.service
    target, _ = parse_address(dispatcher)
    wait_for_dispatcher(dispatcher, timeout_seconds=timeout_seconds)
    port = free_port(port)
    address = f"{host or own_host(dispatcher)}:{port}"
    config = service.WorkerConfig(
        dispatcher_address=target,
        worker_address=address,
        port=port,
        dispatcher_timeout_ms=max(1, int(timeout_seconds * 1000)),
    )
    server = service.WorkerServer(config)
    return server, f"Worker is up: grpc://{address}, of {dispatcher}."


def main(arguments):
    """Runs a server until it is told to stop. Returns the exit code."""
    settings = vars(parse(arguments))
    start = dict(dispatcher=start_dispatcher, worker=start_worker)
    try:
        server, line = start[settings.pop("server")](**settings)
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except tf.errors.OpError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        return 1
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    print(line, flush=True)
    # Not server.join(), which signals would not end.
    stop.wait()
    del server  # Stops it.
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
