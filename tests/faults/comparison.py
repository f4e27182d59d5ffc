"""What a run that was disturbed has to have in common with one that was not."""

import collections
import json
import os
import pathlib
import re

import h5py
import numpy as np
import tensorflow as tf
from tensorboard.compat.proto import event_pb2

from tests.faults import runs
from tests.tiny_run import untimed

# What writers leave behind where they are cut off.
_SCRATCH = re.compile(r".*(_temp|\.part|\.tempstate.*|\.tmp.*)|part-.*|lock")


def problems(folder, undisturbed):
    """What is wrong with a run, a line each; empty where nothing is.

    Args:
      folder: of a run that has ended.
      undisturbed: of the run that it is to equal.
    """
    folder, undisturbed = pathlib.Path(folder), pathlib.Path(undisturbed)
    found = [f"{path} is left over" for path in scratch(folder)]
    if not (folder / "done").exists():
        found.append("done is missing")
    found += [
        f"variable {name} differs"
        for name in runs.differences(folder, undisturbed)
    ]
    best = [newest_step(f / "best") for f in (folder, undisturbed)]
    if best[0] != best[1]:
        found.append(f"best is {best[0]}, should be {best[1]}")
    for logs in (".", "finetune"):
        one, other = folder / logs, undisturbed / logs
        found += _rows_that_differ(one, other)
        found += _events_that_differ(one, other)
    return found + _finetuned_that_differ(folder, undisturbed)


def scratch(folder):
    """Files and folders that are of no use, by their paths in a folder."""
    folder = pathlib.Path(folder)
    found = [
        path
        for path in folder.rglob("*")
        if _SCRATCH.fullmatch(path.name) or _is_half_a_checkpoint(path)
    ]
    return sorted(str(path.relative_to(folder)) for path in found)


def steps_that_come_twice(folder):
    """(step, tag) of every scalar that a folder's event files have twice."""
    counts = collections.Counter((s, tag) for s, tag, _ in scalars(folder))
    return sorted(key for key, count in counts.items() if count > 1)


def scalars(folder):
    """(step, tag, value) of all event files in a folder's events/, sorted."""
    found = []
    for path in pathlib.Path(folder).glob("events/*tfevents*"):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = event_pb2.Event.FromString(record)
            found += [
                (event.step, value.tag, tf.make_ndarray(value.tensor).item())
                for value in event.summary.value
            ]
    return sorted(found)


def newest_step(folder):
    """Of the checkpoints in a folder; None where there is none."""
    found = pathlib.Path(folder).glob("step-*.index")
    steps = [int(path.stem.split("-")[1]) for path in found]
    return max(steps, default=None)


def _rows_that_differ(folder, undisturbed):
    one, other = (_rows(f / "metrics.jsonl") for f in (folder, undisturbed))
    if one == other:
        return []
    same = os.path.commonprefix([one, other])
    return [f"{folder}/metrics.jsonl differs from row {len(same) + 1} on"]


def _rows(path):
    """Its lines without the times; every one must be a whole row."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.dumps(row) for row in untimed(map(json.loads, lines))]


def _events_that_differ(folder, undisturbed):
    found = [
        f"{folder}/events has {tag} of step {step} twice"
        for step, tag in steps_that_come_twice(folder)
    ]
    if not found and scalars(folder) != scalars(undisturbed):
        found.append(f"{folder}/events differ")
    return found


def _finetuned_that_differ(folder, undisturbed):
    one, other = (_finetuned(f) for f in (folder, undisturbed))
    return [
        f"finetuned {name} differs"
        for name in sorted(one.keys() | other.keys())
        if not runs.same_bits(one.get(name), other.get(name))
    ]


def _finetuned(folder):
    """Every array of the finetuned student's weights, by file and name."""
    found = {}
    for path in sorted(folder.glob("finetune/from-step-*")):
        if not path.name.endswith(".h5"):
            found[path.name] = np.frombuffer(_content(path), np.uint8)
            continue
        with h5py.File(path) as file:
            file.visititems(lambda name, item: _keep(found, name, item))
    return found


def _keep(found, name, item):
    if isinstance(item, h5py.Dataset):
        found[name] = item[()]


def _content(path):
    return path.read_bytes() if path.is_file() else b"a folder"


def _is_half_a_checkpoint(path):
    """Whether it is the data of a checkpoint without its index."""
    match = re.fullmatch(r"(step-\d+)\.data-.*", path.name)
    return bool(match) and not path.with_name(f"{match[1]}.index").exists()
