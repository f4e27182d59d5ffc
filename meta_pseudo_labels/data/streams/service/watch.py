"""Warns when a service falls silent, as TensorFlow silently keeps trying."""

import threading
import weakref

from absl import logging

from meta_pseudo_labels.data.streams.service.addresses import (
    wait_for_dispatcher,
)

_PAUSE_SECONDS = 15


def watch(dataset, address, *, pause_seconds=_PAUSE_SECONDS):
    """Checks a service now and then, as long as its data set exists.

    Logs a warning when no dispatcher or no worker answers any more, and
    another one when they do again.

    Args:
      dataset: what is read from the service.
      address: grpc://host:port of its dispatcher.
      pause_seconds: time between two checks.
    """
    gone = threading.Event()
    weakref.finalize(dataset, gone.set)
    threading.Thread(
        target=_watch, args=(gone, address, pause_seconds), daemon=True
    ).start()


def _watch(gone, address, pause_seconds):
    trouble = None
    while not gone.wait(pause_seconds):
        before, trouble = trouble, _trouble(address, pause_seconds)
        if gone.is_set():
            return
        if trouble and not before:
            logging.warning("Training waits for its input. %s", trouble)
        elif before and not trouble:
            logging.warning("%s answers again.", address)


def _trouble(address, timeout_seconds):
    """What is wrong with a service; None if nothing is."""
    try:
        wait_for_dispatcher(
            address, timeout_seconds=timeout_seconds, needs_workers=True
        )
    except ValueError as error:
        return str(error)
    return None
