"""Signals that come before anything has begun."""

import atexit
import os
import signal

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
# EX_TEMPFAIL of sysexits.h: the same command may be repeated.
EXIT_INTERRUPTED = 75


def end_on_signals():
    """Has SIGTERM and Ctrl-C end the process with 75, at once.

    For the first instruction of a program: imports take seconds, and what is
    raised in them may be caught there. Others take their place later.
    """
    for number in _NUMBERS:
        signal.signal(number, _end)
    # Python takes its own handlers away as it ends, which makes the status of
    # what is done that of a signal; what is ignored stays so.
    atexit.register(_ignore)


def _ignore():
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def _end(number, frame):
    name = signal.Signals(number).name
    line = f"{name} ended this before it had begun. The same command goes on.\n"
    os.write(2, line.encode())
    os._exit(EXIT_INTERRUPTED)
