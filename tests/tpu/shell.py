"""The shell scripts of tpu/, run with stand-ins for what they call."""

import os
import pathlib
import shlex
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TPU = ROOT / "tpu"

FLAGFILE = "flags/cifar10_4000_mpl.flags"
SETTINGS = {
    "TPU_NAME": "my-tpu",
    "ZONE": "us-central1-b",
    "PROJECT": "my-project",
    "ACCELERATOR_TYPE": "v3-8",
}
# Further variables that do not count where the tests' own process has them.
OURS = ("TPU_", "RUNTIME_VERSION", "TF_VERSION", "TF_PLUGGABLE", "NEXT_")
PLACE = ["--zone=us-central1-b", "--project=my-project"]


def stand_in(folder, name, body):
    """Puts a shell script into a folder, to be found before the real one."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)
    return path


def run(script, *arguments, path=None, cwd=ROOT, answer="", **environment):
    """A script's result; `path` is a folder of stand-ins."""
    known = {
        name: value
        for name, value in os.environ.items()
        if name not in SETTINGS and not name.startswith(OURS)
    }
    if path is not None:
        known["PATH"] = f"{path}{os.pathsep}{known['PATH']}"
    return subprocess.run(
        ["bash", str(script), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        input=answer,
        env=known | environment,
        timeout=60,
    )


def commands(text):
    """The words of each command that a dry run printed, as a shell reads it."""
    return [shlex.split(line) for line in text.splitlines()]


def refusal(script, *arguments, **kwargs):
    """The one line that a script ends with where it refuses."""
    result = run(script, *arguments, **kwargs)
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line
