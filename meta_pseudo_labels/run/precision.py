"""What `--precision=auto` chooses on this machine: bfloat16 or float32.

    python -m meta_pseudo_labels.run.precision

prints the time of a convolution and its gradients, bfloat16 over float32.
"""

import dataclasses
import os
import re
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.distribute.strategies import has_tpu
from meta_pseudo_labels.run.folder import resets
from meta_pseudo_labels.run.stages import STAGES
from meta_pseudo_labels.utils.settings import ConfigError

INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
PAYS = 0.9  # Of the time in float32; more is not worth the rounding.


def settled(config, folder):
    """The settings, with `use_bfloat16` set as `precision` says.

    A run keeps the precision that it began with, on whatever machine.

    Args:
      config: `Config`.
      folder: `RunFolder`; the settings of an earlier start in it count.

    Raises:
      ConfigError: if several workers would have to decide alike.
    """
    if config.precision != "auto":
        return config
    saved = {} if resets(config) else folder.settings()
    if "use_bfloat16" in saved:
        return dataclasses.replace(config, use_bfloat16=saved["use_bfloat16"])
    if not STAGES[config.task_mode].trains:
        return config
    use, why = _choose(config)
    taken = "bfloat16" if use else "float32"
    print(f"--precision=auto takes {taken}: {why}.", flush=True)
    return dataclasses.replace(config, use_bfloat16=use)


def _choose(config):
    """Whether to use bfloat16 in a new run, and why."""
    if has_tpu(config):
        return True, "it trains on a TPU"
    if (
        config.distribution == "multi_worker"
        or config.addresses
        or os.environ.get("TF_CONFIG")
    ):
        raise ConfigError(
            "--precision=auto: all workers must use the same precision; say "
            "bfloat16 or float32."
        )
    if tf.config.list_physical_devices("GPU"):
        return False, "it does not measure GPUs; say --precision=bfloat16"
    if not processor_flags() & set(INSTRUCTIONS):
        return False, f"the processor has none of {', '.join(INSTRUCTIONS)}"
    ratio = measured_ratio()
    if ratio is None:
        return False, "the measurement of bfloat16 failed"
    return ratio <= PAYS, f"bfloat16 took {ratio:.2f} of float32's time"


def processor_flags(path="/proc/cpuinfo"):
    """Names of the processor's instructions, a set; empty if not known.

    Args:
      path: of Linux's description of it.
    """
    try:
        with open(path, encoding="utf-8") as file:
            found = re.search(r"^flags\s*:(.*)$", file.read(), re.MULTILINE)
    except OSError:
        return set()
    return set(found[1].split()) if found else set()


def measured_ratio():
    """Time of bfloat16 over that of float32; None if it cannot be measured.

    In a separate process: once TensorFlow has run here, its devices would be
    fixed.
    """
    command = [sys.executable, "-m", __name__]
    path = os.pathsep.join(filter(None, sys.path))  # As it is found here.
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            env=os.environ | {"PYTHONPATH": path},
        )
        return float(done.stdout.split()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError):
        return None


def measure(rounds=10):
    """The median over rounds of the time in bfloat16 over that in float32."""
    steps = [_convolution(dtype) for dtype in (tf.float32, tf.bfloat16)]
    seconds = [[_seconds(step) for step in steps] for _ in range(2 + rounds)]
    return float(np.median([low / full for full, low in seconds[2:]]))


def _convolution(dtype, images=64, size=32):
    """Compiled gradients of a convolution that is typical of wide ResNets."""
    images = tf.cast(tf.random.normal([images, size, size, 32]), dtype)
    kernel = tf.cast(tf.random.normal([3, 3, 32, 32]), dtype)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            loss = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME"))
        return tape.gradient(loss, [images, kernel])

    return step


def _seconds(step):
    start = time.perf_counter()
    tf.nest.map_structure(lambda x: x.numpy(), step())
    return time.perf_counter() - start


if __name__ == "__main__":
    print(measure())
