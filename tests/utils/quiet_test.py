"""TensorFlow is not heard as it starts; warnings look like our lines."""

import logging
import os
import subprocess
import sys

from meta_pseudo_labels.utils.quiet import (
    PlainLines,
    quiet_start,
    write_line,
)


def test_what_is_written_past_python_is_not_heard(capfd, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    with quiet_start():
        os.write(2, b"noise\n")
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "1"  # Whoever set it wins.


def test_it_is_heard_again_after_an_error(capfd):
    try:
        with quiet_start():
            raise KeyError("gone")
    except KeyError:
        os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"


def test_warnings_are_lines_like_errors():
    record = logging.LogRecord(
        "absl", logging.WARNING, "a.py", 7, "%d of %d", (2, 3), None
    )
    assert PlainLines().format(record) == "Warning: 2 of 3"


def test_warnings_of_a_command_are_plain():
    code = (
        "from absl import logging\n"
        "logging.use_absl_handler()\n"  # As app.run does.
        "from meta_pseudo_labels.run import command\n"
        "def run(*_, **__): logging.warning('so it is')\n"
        "command.run_command = run\n"
        "command.main(['mpl'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.stderr.splitlines()[-1] == "Warning: so it is"


def test_a_signal_s_line_is_told_while_all_else_is_kept_silent(capfd):
    with quiet_start():
        os.write(2, b"a message of TensorFlow's")
        write_line("told within")
    write_line("told after")
    assert capfd.readouterr().err == "told within\ntold after\n"
