"""The same step in PyTorch, as a variant of run.py.

PyTorch runs in a process of its own (torch_step.py), with the same number of
threads. The two take turns: while one computes, the other waits for a line, so
neither takes the other's cores.

A comparison of times means nothing unless both do the same work: `check_losses`
compares two steps from the same weights on the same batch.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

from benchmarks.step_time.variants import NUM_CLASSES, RECIPE, whole_step
from meta_pseudo_labels.models import release_variable_name

WORKER = pathlib.Path(__file__).with_name("torch_step.py")

# Ours to PyTorch's.
_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "kernel": "weight",
    "bias": "bias",
}
# By rank. TensorFlow's kernels have channels last, PyTorch's first.
_TRANSPOSED = {4: (3, 2, 0, 1), 2: (1, 0)}


def torch_steps(variants, settings, *, learner, batch, stack, tolerance=1e-3):
    """{name: function without arguments to times}, and PyTorch's version.

    Args:
      variants: {name: changed settings of torch_step.py}.
      settings: of the command line.
      learner: ours with the feedback "release"; it takes two steps here.
      batch: the argument of `MetaPseudoLabels.train_step`.
      stack: a `contextlib.ExitStack`, which ends the processes.
      tolerance: see `check_losses`.

    Raises:
      ValueError: if the losses differ from ours.
    """
    steps = {}
    for name, changes in variants.items():
        steps[name] = stack.enter_context(
            TorchStep(
                model=settings.model,
                learner=learner,
                batch=batch,
                threads=settings.threads,
                path=settings.torch_path,
                **changes,
            )
        )
    peers = list(steps.values())
    check_losses(whole_step(learner, batch), peers, tolerance=tolerance)
    return steps, {"torch": peers[0].version}


def check_losses(ours, peers, *, steps=2, tolerance=1e-3):
    """Raises ValueError if a peer's losses differ by more than the tolerance.

    Args:
      ours: a function without arguments: takes a step, returns its logs.
      peers: `TorchStep`s from the same weights, on the same batch.
      steps: how many steps to compare.
      tolerance: relative to the loss, or to 1 if the loss is smaller.
    """
    for step in range(steps):
        logs = ours()
        for peer in peers:
            for name, loss in peer()["losses"].items():
                expected = float(logs[name])
                if abs(loss - expected) > tolerance * max(1, abs(expected)):
                    raise ValueError(
                        f"{name} of step {step} is {expected} here, but {loss} "
                        "in PyTorch: the steps are not the same."
                    )


class TorchStep:
    """Runs torch_step.py from the weights of a learner.

    Args:
      model: name of both networks, "wrn-<depth>-<width>".
      learner: `MetaPseudoLabels`.
      batch: the argument of its `train_step`.
      threads: of PyTorch.
      channels_last: whether images and kernels are kept in that format, in
        which PyTorch's convolutions may be faster.
      bfloat16: whether its networks run under autocast to bfloat16.
      compiled: whether to use `torch.compile`, which needs a C++ compiler.
      path: folder of a PyTorch that is not installed, or None.

    Raises:
      ImportError: if PyTorch cannot be imported.
      ValueError: for any other network.
    """

    def __init__(
        self,
        *,
        model,
        learner,
        batch,
        threads,
        channels_last=False,
        bfloat16=False,
        compiled=False,
        path=None,
    ):
        settings = RECIPE | {
            "network": network_sizes(model),
            "threads": threads,
            "channels_last": channels_last,
            "bfloat16": bfloat16,
            "compiled": compiled,
        }
        arrays = batch_arrays(batch)
        for role in ("student", "teacher"):
            arrays |= weight_arrays(getattr(learner, role), role=role)
        with tempfile.TemporaryDirectory() as folder:
            inputs = pathlib.Path(folder, "inputs.npz")
            np.savez(inputs, **arrays)
            settings["inputs"] = str(inputs)
            self.process = subprocess.Popen(
                [sys.executable, str(WORKER), json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=with_path(path),
            )
            answer = self.process.stdout.readline()
        if not answer:
            self.close()
            raise ImportError(
                "PyTorch did not start; its message is above. Install it with "
                "pip install torch --index-url "
                "https://download.pytorch.org/whl/cpu, or give its folder "
                "with --torch_path."
            )
        self.version = json.loads(answer)["version"]

    def __call__(self):
        """Takes a step; returns the answer of torch_step.py."""
        print("step", file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.communicate()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def network_sizes(model):
    """Arguments of torch_step.py's network, given its name."""
    sizes = re.fullmatch(r"wrn-(\d+)-(\d+)", model)
    if sizes is None:
        raise ValueError(
            "The step in PyTorch needs wide ResNets, wrn-<depth>-<width>; got "
            f"{model!r}."
        )
    depth, width = map(int, sizes.groups())
    return {"depth": depth, "filters": 16 * width, "num_classes": NUM_CLASSES}


def batch_arrays(batch):
    """Images with the channels first, and the labels."""
    arrays = {"batch/labels": np.array(batch["labels"], np.int64)}
    for name in ("labeled", "weak", "strong"):
        images = np.transpose(np.array(batch[name]), (0, 3, 1, 2))
        arrays[f"batch/{name}"] = np.ascontiguousarray(images)
    return arrays


def weight_arrays(model, *, role):
    """Weights of a Keras model, by "<role>/<name in PyTorch>"."""
    arrays = {}
    for layer in model.layers:
        for variable in layer.weights:
            scope, _, name = release_variable_name(
                layer.name, variable.name
            ).rpartition("/")
            value = variable.numpy()
            axes = _TRANSPOSED.get(value.ndim)
            path = f"{role}/{scope.replace('/', '.')}.{_NAMES[name]}"
            arrays[path] = np.ascontiguousarray(
                np.transpose(value, axes) if axes else value
            )
    return arrays


def with_path(path):
    """An environment with `path` in PYTHONPATH; None for the current one."""
    if path is None:
        return None
    known = os.environ.get("PYTHONPATH")
    paths = [str(path), known] if known else [str(path)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
