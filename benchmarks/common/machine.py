"""The machine and the software that a benchmark ran with."""

import datetime
import os
import pathlib
import platform
import subprocess

import keras
import tensorflow as tf

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def machine_facts():
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def cpu_model():
    facts = pathlib.Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def revision():
    """Revision of the code, from any folder; None outside a git checkout."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return git.stdout.strip() or None


def headline(machine):
    """The facts at the top of a table."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, "
        f"TensorFlow {machine['tensorflow']}, Keras {machine['keras']}, "
        f"{machine['date']}"
    )
