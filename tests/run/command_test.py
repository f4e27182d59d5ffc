"""What ends a command in a line, where nothing foresaw it."""

import errno
import os

import pytest
import tensorflow as tf

from meta_pseudo_labels.run import command
from tests.command_line import refusal_of


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.EISDIR, os.strerror(errno.EISDIR), "run/acc"),
            "run/acc: Is a directory.",
        ),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a"),
            "a: Permission denied.",
        ),
        (MemoryError("Unable to allocate 9 TiB"), "too little memory"),
        (
            tf.errors.ResourceExhaustedError(None, None, "OOM\nwhen"),
            "too little memory: OOM.",
        ),
        (tf.errors.PermissionDeniedError(None, None, "run/x; no"), "run/x; no"),
        (
            tf.errors.FailedPreconditionError(None, None, "no host\n gs://b/x"),
            "no host gs://b/x. Does the bucket exist",
        ),
    ],
)
def test_what_machines_refuse_is_a_line(monkeypatch, error, words):
    def fail(arguments, *, typed):
        raise error

    monkeypatch.setattr(command, "run_command", fail)
    assert words in refusal_of(command.main, ["main.py"])


@pytest.mark.parametrize(
    "error",
    [
        OSError("a bug"),
        KeyError("a bug"),
        tf.errors.FailedPreconditionError(None, None, "a bug"),
    ],
)
def test_faults_of_ours_keep_their_traceback(monkeypatch, error):
    def fail(arguments, *, typed):
        raise error

    monkeypatch.setattr(command, "run_command", fail)
    with pytest.raises(type(error), match="a bug"):
        command.main(["main.py"])
