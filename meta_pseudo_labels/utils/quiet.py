"""Keeps a program's own output free of TensorFlow's start-up messages."""

import contextlib
import logging
import os

_stderr = 2  # The descriptor of stderr, which `quiet_start` moves away.


@contextlib.contextmanager
def quiet_start():
    """Keeps TensorFlow's start-up messages from drowning our own lines.

    It writes some of them bypassing Python, whatever its log level.
    """
    global _stderr
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = _stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        _stderr = 2
        os.close(stderr)


def write_line(text):
    """Writes a line to stderr, even within `quiet_start`; for signal handlers.

    Args:
      text: without the line break.
    """
    os.write(_stderr, f"{text}\n".encode())


class PlainLines(logging.Formatter):
    """`Warning: ...`, like a program's other lines, not absl's format."""

    def format(self, record):
        return f"{record.levelname.capitalize()}: {super().format(record)}"
