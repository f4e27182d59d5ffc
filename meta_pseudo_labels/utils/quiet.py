"""Keeps a program's own output free of TensorFlow's start-up messages."""

import contextlib
import logging
import os


@contextlib.contextmanager
def quiet_start():
    """Keeps TensorFlow's start-up messages from drowning our own lines.

    It writes some of them bypassing Python, whatever its log level.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


class PlainLines(logging.Formatter):
    """`Warning: ...`, like a program's other lines, not absl's format."""

    def format(self, record):
        return f"{record.levelname.capitalize()}: {super().format(record)}"
