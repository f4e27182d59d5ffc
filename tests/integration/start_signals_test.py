"""SIGINT and SIGTERM in every phase of a start, of the real program."""

import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.long
ROOT = pathlib.Path(__file__).parents[2]


def command(folder):
    return [
        sys.executable,
        str(ROOT / "main.py"),
        f"--output_dir={folder}",
        "--dataset=digits",
        "--method=supervised",
        "--model_type=mlp",
        "--num_train_steps=20",
        "--train_batch_size=8",
        "--save_every=10",
        "--noprogress",
    ]


def takes_signals(process):
    """Whether a process does not leave SIGTERM to the system; as Linux says."""
    if process.poll() is not None:
        return True
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = re.findall("^SigCgt:\t(.*)$", status, re.MULTILINE)
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def ended(folder, *, number=None, after=None):
    """How the command ends, and in what time; what it says of it."""
    begun = time.monotonic()
    process = subprocess.Popen(
        command(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if number is not None:
        while not takes_signals(process):  # Python itself is not up yet.
            time.sleep(0.005)
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
    output, _ = process.communicate(timeout=600)
    return process.returncode, time.monotonic() - begun, output


def test_signals_at_any_time_end_with_75(tmp_path):
    """And the command that is repeated ends as if nothing had been."""
    status, seconds, output = ended(tmp_path / "whole")
    assert status == 0, output
    draws = random.Random(0)
    found = []
    for part in range(20):
        # From the first import to past the end.
        after = seconds * part / 18
        number = draws.choice([signal.SIGINT, signal.SIGTERM])
        status, _, output = ended(
            tmp_path / f"part-{part}", number=number, after=after
        )
        found.append(status)
        assert status in (0, 75), f"{number.name} after {after} s: {output}"
        assert "Traceback" not in output
    assert 75 in found
    status, _, output = ended(tmp_path / f"part-{found.index(75)}")
    assert status == 0 and "Traceback" not in output
