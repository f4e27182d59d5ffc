"""Trace files: what a recorded run of the release must hold."""

import os
import zipfile

import numpy as np

from meta_pseudo_labels.utils.files import parse_json

METHODS = ("supervised", "uda", "mpl")

# By our name for a part of the batch.
INPUTS = {
    "labeled": "input/l_images",
    "labels": "input/l_labels",
    "weak": "input/u_images_ori",
    "strong": "input/u_images_aug",
}
_NEEDED = ("method", "model_type", "num_classes", "train_batch_size")


def read_trace(path):
    """Reads and checks a trace.

    Returns:
      Its arrays and its hparams, two dicts.

    Raises:
      ValueError: for a file that is not a trace, or cannot be repeated.
    """
    path = os.fspath(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        hparams = parse_json(str(arrays["hparams_json"]))
        lacking = [name for name in _NEEDED if name not in hparams]
        method = hparams.get("method")
    except KeyError as error:
        raise ValueError(
            f"{path} is not a trace of the release: {error}"
        ) from error
    except (
        AttributeError,
        OSError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(f"{path} is not a trace: {error}") from error
    if lacking:
        raise ValueError(f"{path}: its hparams_json lacks {lacking}.")
    if method not in METHODS:
        raise ValueError(
            f"{path} is a trace of {method!r}; known methods are {METHODS}."
        )
    _check_inputs(path, arrays, method)
    for name in ("dense_dropout_rate", "stochastic_depth_drop_rate"):
        if hparams.get(name):
            raise ValueError(
                f"{path} has {name}={hparams[name]}, whose random draws a "
                "trace does not hold; it cannot be repeated."
            )
    return arrays, hparams


def _check_inputs(path, arrays, method):
    """Raises ValueError if a method's batches are not all there."""
    wanted = list(INPUTS.values())[: 2 if method == "supervised" else 4]
    steps = {len(arrays[name]) for name in wanted if name in arrays}
    missing = [name for name in wanted if name not in arrays]
    if missing or len(steps) != 1 or steps == {0}:
        raise ValueError(
            f"{path} needs {wanted} of equally many steps, at least 1; "
            f"missing: {missing}, steps: {sorted(steps)}."
        )
    labels = arrays[INPUTS["labels"]]
    if labels.ndim != 3 or labels.dtype.kind != "f":
        raise ValueError(
            f"{path}: input/l_labels must be one-hot floats, [steps, batch, "
            f"classes]; got {labels.dtype} {list(labels.shape)}."
        )
    if not any(name.startswith("init/model/") for name in arrays):
        raise ValueError(f"{path} has no initial variables init/model/...")
