"""Signals while a program still imports: its end is that of a run."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

from meta_pseudo_labels.utils.signals import ending_at_once

ROOT = pathlib.Path(__file__).parents[2]
# As the console script that an installed package has.
MPL = """
import re
import sys
from meta_pseudo_labels.run.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""
# In the place of an import that takes seconds, and lets nothing through.
SLOW = """
import time
print("importing", flush=True)
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
"""
PROGRAMS = {
    "main.py": [str(ROOT / "main.py"), "--output_dir=run"],
    "mpl": ["mpl", "train", "--output_dir=run"],
    "-m": ["-m", "meta_pseudo_labels", "train", "--output_dir=run"],
    "serve.py": [str(ROOT / "serve.py"), "--saved_model=models", "--port=0"],
    "mpl serve": ["mpl", "serve", "--saved_model=models", "--port=0"],
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mpl").write_text(MPL)
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text(SLOW)
    (tmp_path / "models" / "1").mkdir(parents=True)
    (tmp_path / "models" / "1" / "saved_model.pb").write_text("")
    return tmp_path


def started(folder, *arguments):
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_signal_among_the_imports_ends_with_75(folder, program, number):
    if "serve" in program:
        pytest.importorskip("aiohttp")
    process = started(folder, *PROGRAMS[program])
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (75, "")
    assert "Traceback" not in errors and errors.count("\n") <= 1
    assert not (folder / "run").exists()


def test_what_ended_it_is_said_in_a_line(folder):
    code = """
        import signal
        from meta_pseudo_labels.utils.signals import end_on_signals
        end_on_signals()
        signal.raise_signal(signal.SIGTERM)
    """
    process = started(folder, "-c", textwrap.dedent(code))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert errors.startswith("SIGTERM ended this") and errors.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_end_does_not_change_how_it_ended(folder, number):
    """What is left of a module's names goes after Python's handlers do."""
    code = f"""
        import os, signal, sys
        from meta_pseudo_labels.utils.signals import end_on_signals
        class Last:
            def __del__(self, kill=os.kill, process=os.getpid()):
                kill(process, {int(number)})
        end_on_signals()
        sys.kept_to_the_end = Last()
    """
    process = started(folder, "-c", textwrap.dedent(code))
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_ends_although_python_is_waiting(folder, number):
    """As TensorFlow compiles; here something else of minutes in one call."""
    code = """
        import hashlib, signal
        from meta_pseudo_labels.utils import signals
        signals.end_on_signals()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        with signals.ending_at_once(lambda name: print(name, flush=True)):
            print("computing", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000_000)
    """
    process = started(folder, "-c", textwrap.dedent(code))
    assert process.stdout.readline() == "computing\n"
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (75, "")
    assert output == f"{signal.Signals(number).name}\n"


def test_then_handlers_hear_as_before_and_other_signals_end_nothing(folder):
    code = """
        import signal
        from meta_pseudo_labels.utils import signals
        signals.end_on_signals()
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda number, _: print(int(number)))
        with signals.ending_at_once(print):
            signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        print(signal.set_wakeup_fd(-1))
    """
    process = started(folder, "-c", textwrap.dedent(code))
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert output.split() == [str(int(signal.SIGUSR1)), "15", "-1"]


def test_what_is_no_program_is_left_alone():
    with ending_at_once(print):
        assert signal.set_wakeup_fd(-1) == -1
