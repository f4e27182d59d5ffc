"""Scripts of the repository, run as a user runs them."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run_script(script, *arguments):
    """Runs a script in a new process.

    Args:
      script: its path from the repository's top, or the name of a module.
      *arguments: of its command line.
    """
    command = [script] if script.endswith(".py") else ["-m", script]
    return subprocess.run(
        [sys.executable, *command, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
