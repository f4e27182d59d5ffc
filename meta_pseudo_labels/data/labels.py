"""Which images keep their labels, and the file that records them."""

import dataclasses
import json
import os

import numpy as np

from meta_pseudo_labels.utils.files import read_json, write_whole

LABEL_SUBSETS = ("balanced", "first")


@dataclasses.dataclass(frozen=True, eq=False)
class LabelChoice:
    """The images that kept their label, before variants.py changed the problem.

    Attributes:
      indices: [N] int64, `labeled_indices` when the images were loaded.
      labels: [N] int, their true classes, among all original classes.
      changes: a dict from what was done ("wrong", "validation", "feedback") to
        the [n] int64 indices of the images concerned.
    """

    indices: np.ndarray
    labels: np.ndarray
    changes: dict[str, np.ndarray]


def labeled_positions(
    labels,
    *,
    num_labeled,
    num_classes,
    seed,
    label_subset="balanced",
    source=None,
    numbers=None,
    names=None,
):
    """Chooses the images that keep their labels.

    Args:
      labels: [N] int, in [0, num_classes), in the order of the source.
      num_labeled: how many in all, or None for all N; with a file, None or the
        number of images that it names.
      num_classes: number of classes.
      seed: int in [0, 2**32), draws the balanced images.
      label_subset: "balanced", the same number from each class, drawn by the
        seed; "first", the first `num_labeled` as they come: the release's
        choice (`cifar10_4000` uses the first 4,000 records of train.bin); or
        the path of a file from `save_labeled_indices`, to repeat its choice.
      source: name of the data set, which must match that in a file.
      numbers: [N] int, the numbers of these images in a file; None for 0 to
        N - 1.
      names: [N] those of their files in a folder. What a file chose by such
        names is chosen, also if other files came or went since.

    Returns:
      [num_labeled] int64, increasing positions in `labels`.

    Raises:
      ValueError: if there is no such subset or number of examples, or the
        file does not fit the images.
    """
    if label_subset not in LABEL_SUBSETS:
        return _positions_of_file(
            label_subset,
            labels=labels,
            num_labeled=num_labeled,
            source=source,
            numbers=np.arange(len(labels)) if numbers is None else numbers,
            names=names,
        )
    if num_labeled is None:
        num_labeled = len(labels)
    if label_subset == "first":
        return first_indices(labels, num_labeled=num_labeled)
    return balanced_indices(
        labels, num_labeled=num_labeled, num_classes=num_classes, seed=seed
    )


def first_indices(labels, *, num_labeled):
    """The first examples, whatever their classes: [num_labeled] int64."""
    if not 1 <= num_labeled <= len(labels):
        raise ValueError(
            f"num_labeled is {num_labeled}; give 1 to {len(labels)}, the "
            "number of labels available."
        )
    return np.arange(num_labeled, dtype=np.int64)


def balanced_indices(labels, *, num_labeled, num_classes, seed):
    """Draws the same number of examples from every class.

    Args:
      labels: [N] int, in [0, num_classes).
      num_labeled: how many in all: a multiple of num_classes, or N for all.
      num_classes: number of classes.
      seed: int in [0, 2**32); the same seed draws the same examples.

    Returns:
      [num_labeled] int64, increasing positions in `labels`.

    Raises:
      ValueError: if that number of examples cannot be drawn.
    """
    if num_labeled == len(labels):
        return np.arange(len(labels), dtype=np.int64)
    if num_labeled < 1 or num_labeled % num_classes:
        raise ValueError(
            f"num_labeled is {num_labeled}; give a positive multiple of the "
            f"{num_classes} classes, or {_all(labels)}."
        )
    per_class = num_labeled // num_classes
    rarest = np.bincount(labels, minlength=num_classes).min()
    if per_class > rarest:
        raise ValueError(
            f"num_labeled is {num_labeled}, {per_class} of each class, but "
            f"the rarest class has {rarest}; give at most "
            f"{rarest * num_classes}, or {_all(labels)}."
        )
    # RandomState's streams are frozen forever; those of newer generators may
    # change with NumPy's version.
    order = np.random.RandomState(seed).permutation(len(labels))
    chosen = [
        order[labels[order] == label][:per_class]
        for label in range(num_classes)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _all(labels):
    return f"{len(labels)} for all labels (on the command line 0 does too)"


def save_labeled_indices(data, path):
    """Writes which images keep their labels, to choose the same ones again.

    The file is JSON: the name of the data set, how the images were chosen
    (label_subset and seed), their `labeled_indices`, and their labels, which
    reveal whether other images are used. It is replaced whole or not at all.
    Pass its path as label_subset to repeat the choice.

    Args:
      data: `ImageData`.
      path: the file to write; its folder must exist.
    """
    write_whole(path, json.dumps(labeled_choice(data)) + "\n")


def labeled_choice(data):
    """What `save_labeled_indices` writes, a dict for JSON.

    The images are given as they were chosen, whatever became of them later,
    along with those that got a wrong label or were held out. For `ShardedData`
    there are no labels, as these stay in its files.
    """
    chosen = getattr(data, "chosen", None)
    labels = getattr(data, "labeled_labels", None)
    indices, changes = data.labeled_indices, {}
    if chosen is not None:
        indices, labels, changes = chosen.indices, chosen.labels, chosen.changes
    choice = {
        "source": data.spec.name,
        "label_subset": data.label_subset,
        "seed": data.seed,
        "indices": np.asarray(indices).tolist(),
    }
    files = getattr(data, "files", ())
    if files:
        choice["files"] = [files[index] for index in indices]
    if labels is not None:
        choice["labels"] = np.asarray(labels).tolist()
    return choice | {
        name: np.asarray(changed).tolist() for name, changed in changes.items()
    }


def turns(labels):
    """How many images of its class precede each image: [N] int64."""
    labels = np.asarray(labels)
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        where = np.flatnonzero(labels == label)
        turn[where] = np.arange(len(where))
    return turn


def _positions_of_file(path, *, labels, num_labeled, source, numbers, names):
    """The positions of the images that a file names, increasing."""
    content = _read_file(path)
    indices = content["indices"]
    if content["source"] != source:
        raise ValueError(
            f"{path} names images of {content['source']!r}, not of {source!r}; "
            "give the file of a run on the same data set."
        )
    if num_labeled not in (None, len(indices)):
        raise ValueError(
            f"num_labeled is {num_labeled}, but {path} names {len(indices)} "
            f"images; give {len(indices)}, or None (on the command line 0)."
        )
    if names and content.get("files"):
        positions = _positions_of_names(path, content["files"], names)
    else:
        positions = _positions_of_numbers(path, indices, numbers)
    saved = content.get("labels")
    if saved is not None and saved != labels[positions].tolist():
        raise ValueError(
            f"{path} has other labels for its images than this data set; it "
            "was written for other data, or files were added or removed since."
        )
    return np.sort(positions)


def _positions_of_numbers(path, indices, numbers):
    places = {number: place for place, number in enumerate(numbers.tolist())}
    unknown = [index for index in indices if index not in places]
    if unknown:
        raise ValueError(
            f"{path} names image {unknown[0]}, which is not one of the "
            f"{len(numbers)} training images; they are numbered "
            f"{numbers.min()} to {numbers.max()}. Was it written for other "
            "data?"
        )
    return np.array([places[index] for index in indices], np.int64)


def _positions_of_names(path, files, names):
    places = {name: place for place, name in enumerate(names)}
    absent = [name for name in files if name not in places]
    if absent:
        raise ValueError(
            f"{path} chooses {absent[0]!r}, which is not among the labeled "
            f"files found now ({len(absent)} of {len(files)} are not). Put it "
            f"back, or choose by one of {', '.join(LABEL_SUBSETS)}."
        )
    return np.array([places[name] for name in files], np.int64)


def _read_file(path):
    """The content of a file from `save_labeled_indices`.

    Raises:
      ValueError: if there is no such file, or it names no images.
    """
    try:
        content = read_json(os.fspath(path))  # Refuses ints: file descriptors.
        indices = content["indices"]
        whole = indices and all(type(index) is int for index in indices)
        if not whole or "source" not in content:
            raise ValueError("no source, or no list of whole numbers")
        files = content.get("files") or indices
        if len(files) != len(indices):
            raise ValueError("not one file for each number")
    except OSError as error:
        raise ValueError(
            f"label_subset is {os.fspath(path)!r}; choose one of "
            f"{', '.join(LABEL_SUBSETS)}, or give the path of a file from "
            f"save_labeled_indices. As a file: {error.strerror}."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds no labeled indices as save_labeled_indices writes "
            f"them ({error!r}); give another file, or one of "
            f"{', '.join(LABEL_SUBSETS)}."
        ) from error
    if len(set(indices)) < len(indices):
        raise ValueError(
            f"{path} names {len(indices) - len(set(indices))} of its images "
            "twice; name each once."
        )
    return content
