"""SIGINT and SIGTERM in every phase of a start, of the real program."""

import pathlib
import random
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
        after = 0.3 + (seconds - 0.3) * part / 18
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
