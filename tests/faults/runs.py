"""Runs of main.py as processes, to be killed and compared."""

import os
import pathlib
import socket
import subprocess
import sys
import time

import tensorflow as tf

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# A digits run that takes seconds, with all that a run has to remember.
SETTINGS = (
    "--flagfile=flags/digits_mpl.flags",
    "--num_train_steps=60",
    "--save_every=10",
    "--log_every=5",
    "--mpl_student_lr_wait_steps=2",
    "--mpl_student_lr_warmup_steps=5",
    "--mpl_teacher_lr_warmup_steps=5",
    "--ema_decay=0.99",
    "--dense_dropout_rate=0.2",
    "--num_validation=10",
    "--noreset_output_dir",
)


def start(output_dir, *flags):
    """A process that trains SETTINGS; what it says goes to a file."""
    path = pathlib.Path(f"{output_dir}.{_number(flags)}.log")
    with path.open("a") as log:
        return subprocess.Popen(
            [sys.executable, "main.py", *SETTINGS, *flags]
            + [f"--output_dir={output_dir}"],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )


def said(output_dir, *flags):
    """What the processes said so far."""
    return pathlib.Path(f"{output_dir}.{_number(flags)}.log").read_text()


def _number(flags):
    """Of a worker, from its flags."""
    numbers = [f.split("=")[1] for f in flags if f.startswith("--worker_index")]
    return numbers[0] if numbers else "0"


def wait_for_step(output_dir, step, *, process, seconds=300):
    """Waits for the checkpoint of a step, which a process is to write.

    Raises:
      RuntimeError: where the process ended, or takes longer.
    """
    path = pathlib.Path(output_dir, "checkpoints", f"step-{step}.index")
    deadline = time.monotonic() + seconds
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{path} was not written; see {output_dir}*.log")
        time.sleep(0.05)


def final_weights(output_dir):
    """All variables of the latest checkpoint, by name."""
    path = tf.train.latest_checkpoint(os.path.join(output_dir, "checkpoints"))
    reader = tf.train.load_checkpoint(path)
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if not name.startswith(("_CHECKPOINTABLE", "save_counter"))
    }


def differences(output_dir, other_dir):
    """Names of variables that two runs do not have bit for bit in common."""
    one, other = final_weights(output_dir), final_weights(other_dir)
    return sorted(one.keys() ^ other.keys()) + [
        name
        for name in one.keys() & other.keys()
        if not same_bits(one[name], other[name])
    ]


def same_bits(one, other):
    """Whether two arrays are equal, signs of zeros and NaNs too."""
    return (
        one is not None
        and other is not None
        and one.dtype == other.dtype
        and one.shape == other.shape
        and one.tobytes() == other.tobytes()
    )


def worker_flags(count):
    """The flags of each of several workers on this machine."""
    ports = _free_ports(count)
    addresses = ",".join(f"localhost:{port}" for port in ports)
    return [
        (f"--worker_addresses={addresses}", f"--worker_index={index}")
        for index in range(count)
    ]


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
