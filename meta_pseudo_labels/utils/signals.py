"""Signals that arrive when a program's own handlers cannot act yet."""

import atexit
import contextlib
import os
import signal
import socket
import threading

from meta_pseudo_labels.utils.quiet import write_line

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
# EX_TEMPFAIL of sysexits.h: the same command may be repeated.
EXIT_INTERRUPTED = 75
_is_program = False


def end_on_signals():
    """Makes SIGTERM and Ctrl-C end the process with status 75, at once.

    Call it first in a program: imports take seconds, and an exception raised in
    them may be caught there. Other handlers replace these later.
    """
    global _is_program
    _is_program = True
    for number in _NUMBERS:
        signal.signal(number, _end)
    # Python removes its handlers at exit, so that a signal would set the status
    # of a program that is done; ignored signals stay ignored.
    atexit.register(_ignore)


@contextlib.contextmanager
def ending_at_once(tell):
    """Makes SIGTERM and Ctrl-C end a program with 75 even while Python waits.

    Python runs handlers between two of its instructions. While TensorFlow
    compiles, minutes pass without one, and while it waits for a worker that is
    gone, there may never be one; so a thread receives the signals. This has an
    effect only in the main thread of a program that began with
    `end_on_signals`.

    Args:
      tell: called with the signal's name before the end.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not (_is_program and in_main):
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(
        target=_end_on, args=(reader, tell), name="signals", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()
        thread.join()
        reader.close()


def _end_on(reader, tell):
    while came := reader.recv(1):
        if came[0] in _NUMBERS:
            tell(signal.Signals(came[0]).name)
            os._exit(EXIT_INTERRUPTED)


def _ignore():
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def _end(number, frame):
    name = signal.Signals(number).name
    write_line(
        f"{name} ended this before it had begun. The same command goes on."
    )
    os._exit(EXIT_INTERRUPTED)
