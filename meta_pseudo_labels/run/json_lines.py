"""Standard output with a JSON object on every line: --log_format=json.

Code that prints need not know of it: a line that is not an object becomes one.
It needs no TensorFlow, so that earlier errors are reported as well.
"""

import contextlib
import datetime
import io
import json
import os
import re
import socket
import sys

from meta_pseudo_labels.utils.signals import EXIT_INTERRUPTED

_FIRST_WORD = re.compile(r"([A-Z][a-z]+): (.*)")


class JsonLines(io.TextIOBase):
    """A stream that makes an object of each line of text, with the time in UTC.

    "Trained: runs/mpl" becomes {"event": "trained", "text": "runs/mpl"}; other
    text has the event "message". Each of several workers adds its number and
    its host, also to lines that already are objects.

    Args:
      stream: where they are written, each at once.
    """

    def __init__(self, stream):
        super().__init__()
        self.stream = stream
        self.rest = ""

    def write(self, text):
        *lines, self.rest = (self.rest + text).split("\n")
        for line in filter(str.strip, lines):
            self.say(_object(line))
        return len(text)

    def say(self, row):
        """Writes an object, a dict, as a line."""
        row = {"time": utc_now(), **row, **_worker()}
        self.stream.write(json.dumps(row) + "\n")
        self.stream.flush()

    def flush(self):
        self.stream.flush()


def begin():
    """Turns standard output into objects, until `ends_in_json` is over."""
    if not isinstance(sys.stdout, JsonLines):
        sys.stdout = JsonLines(sys.stdout)


@contextlib.contextmanager
def ends_in_json():
    """Restores standard output, after a last object that reports the end.

    It has the exit status; its event is "exit" for 0 and 75, otherwise "error".
    """
    before = sys.stdout
    try:
        yield
    except BaseException as error:
        tell_end(*_status(error))
        raise
    else:
        tell_end(0, None)
    finally:
        sys.stdout = before


def utc_now():
    """The time in ISO 8601, such as "2026-11-29T12:00:00.000+00:00"."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return now.isoformat(timespec="milliseconds")


def tell_end(status, reason):
    """Writes an object on the end, if lines are objects.

    Args:
      status: the exit status of the program.
      reason: an exception, a message or None.
    """
    if not isinstance(sys.stdout, JsonLines):
        return
    if sys.stdout.rest:  # A line without its end.
        print()
    row = {
        "event": "exit" if status in (0, EXIT_INTERRUPTED) else "error",
        "status": status,
    }
    if reason is not None:
        row["message"] = str(reason).removeprefix("Error: ")
    if getattr(reason, "step", None) is not None:
        row["step"] = reason.step
    sys.stdout.say(row)


def _status(error):
    """The exit status that an exception ends with, and the reason or None."""
    if not isinstance(error, SystemExit):
        return 1, f"{type(error).__name__}: {error}"
    reason = error.__context__
    if error.code is None or isinstance(error.code, int):
        return error.code or 0, reason
    is_same = str(reason or "") and str(reason) in error.code
    return 1, reason if is_same else error.code


def _object(line):
    """What a line says, as a dict."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    if match := _FIRST_WORD.fullmatch(line):
        return {"event": match[1].lower(), "text": match[2]}
    return {"event": "message", "text": line}


def _worker():
    """Which of several workers this is, by TF_CONFIG; {} for a single one."""
    try:
        found = json.loads(os.environ.get("TF_CONFIG") or "{}")
        cluster, task = found.get("cluster", {}), found.get("task", {})
        if sum(map(len, cluster.values())) < 2:
            return {}
        # A chief is the first one, as it writes the run's files.
        after = "chief" in cluster and task["type"] != "chief"
        index = task["index"] + after
    except (ValueError, TypeError, AttributeError, KeyError):
        return {}  # The code that needs it reports what is wrong.
    return {"host": socket.gethostname(), "worker": index}
