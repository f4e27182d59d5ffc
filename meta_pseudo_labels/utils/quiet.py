"""What a program says of itself, without what TensorFlow says at its start."""

import contextlib
import logging
import os


@contextlib.contextmanager
def quiet_start():
    """Keeps TensorFlow's notes at start-up from drowning our own lines.

    It writes some of them past Python and whatever the level of its logs.
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
    """`Warning: ...`, as a program's other lines are, in place of absl's."""

    def format(self, record):
        return f"{record.levelname.capitalize()}: {super().format(record)}"
