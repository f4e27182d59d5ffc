"""Loads weights that were trained elsewhere, as far as they fit a network.

    report = models.load_weights(student, "mobilenet.keras")
    print(report)

Files are read as arrays: none of their layers is built, nothing is unpickled.
"""

import contextlib
import dataclasses
import os
import re
import shutil
import tempfile
import zipfile
from typing import Any

import h5py  # A dependency of Keras, which writes weights with it.
import keras

from meta_pseudo_labels.utils.checkpoint_files import (
    files_digest,
    first_line,
    weights_digest,
)

ENDINGS = (".weights.h5", ".keras")
_IN_ARCHIVE = "model.weights.h5"
_SHOWN = 6
# Names of what only learners have.
_OF_LEARNERS = {"student_ema", "feedback_baseline"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """Which of its initial weights a network found in a source.

    Attributes:
      source: the file, or the name of the model, that the weights come from.
      sha256: of the file, or of the weights if there is no file.
      matched: names of the network's variables that were loaded.
      head: names of the last layer's that were not, as with other classes.
      missing: names of all others that were not. They kept their values.
      left_over: names of the source's variables that have no counterpart.
      mismatched: (name, shape in the source, shape here) of variables that
        are also in `head` or `missing`.
    """

    source: str = ""
    sha256: str = ""
    matched: tuple[str, ...]
    head: tuple[str, ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple, tuple], ...]

    @property
    def total(self):
        """How many variables the network has."""
        return len(self.matched) + len(self.head) + len(self.missing)

    def __str__(self):
        parts = [f"{len(self.matched)} of {self.total} variables read"]
        for title, names in (
            ("the head is new", self.head),
            ("not found and left fresh", self.missing),
            ("of other shapes", [_shapes(*m) for m in self.mismatched]),
            ("left over", self.left_over),
        ):
            if names:
                parts.append(f"{title}, {len(names)}: {_listed(names)}")
        return "; ".join(parts) + "."


def load_weights(model, source, *, same_classes=True):
    """Gives a network the weights that fit, from a file or another network.

    Variables are matched by the names of their layers or by their places,
    whichever fits more of them, and loaded if their shapes are equal. The last
    layer may have other classes: then it is new and, if it is a `Dense`,
    starts at 0, so that all classes are equally likely. States of random seeds
    are kept.

    Args:
      model: a built `keras.Model`, on one or several replicas.
      source: path of a `.weights.h5` or `.keras` file; or a `keras.Model`.
      same_classes: False if its classes are known to be others, although as
        many: the last layer is new.

    Returns:
      A `WeightsReport`.

    Raises:
      ValueError: for a file that cannot be read, one of a learner with a
        teacher or averages, or one that fits less than half of the variables
        before the last layer. The model then keeps its weights.
    """
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        if isinstance(source, keras.Model):
            name, digest = source.name, weights_digest(source)
            path = os.path.join(scratch, "theirs.weights.h5")
            source.save_weights(path)
        else:
            check_weights_file(source)
            name, digest = os.fspath(source), files_digest(source)
            path = _unpacked(name, scratch)
        try:
            theirs = _variables(stack.enter_context(h5py.File(path)))
        except (OSError, KeyError, RuntimeError) as error:
            raise _unreadable(name, error) from error
        _refuse_learner(name, theirs)
        ours = os.path.join(scratch, "ours.weights.h5")
        model.save_weights(ours)
        with h5py.File(ours, "r+") as file:
            report, pairs = _match(
                _variables(file),
                theirs,
                head=_head(model),
                same_classes=same_classes,
            )
            report = dataclasses.replace(report, source=name, sha256=digest)
            _check_fits(report, model)
            for our, their in pairs:
                our[...] = their[...]
        model.load_weights(ours)
    _level_head(model, report)
    return report


def load_arrays(model, arrays, *, source, sha256, same_classes=True):
    """Like `load_weights`, from the arrays of a network of the same kind.

    Args:
      model: see `load_weights`.
      arrays: (name, array) of each float variable of a network, in Keras's
        order; the name is the `plain_name` of the variable's path.
      source, sha256: see `WeightsReport`.
      same_classes: see `load_weights`.
    """
    floats = [v for v in model.variables if "float" in v.dtype]
    ours = [(plain_name(v.path), v.path, v) for v in floats]
    theirs = [(name, name, array) for name, array in arrays]
    sides = [
        [_Found((n, key), *rest) for n, (key, *rest) in enumerate(side)]
        for side in (ours, theirs)
    ]
    report, pairs = _compared(
        *sides, head=_head(model), same_classes=same_classes
    )
    report = dataclasses.replace(report, source=source, sha256=sha256)
    _check_fits(report, model)
    for our, their in pairs:
        our.assign(their)
    _level_head(model, report)
    return report


def plain_name(path):
    """A variable's path without the parts that differ between processes."""
    return re.sub(r"_\d+", "", path).replace("/", ".")


def check_weights_file(path):
    """Refuses a path that is not a weights file, by its name alone.

    Raises:
      ValueError: if it is missing, or of another kind.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise ValueError(f"There is no file {path}.")
    if not path.endswith(ENDINGS):
        raise ValueError(
            f"{path} is not a {' or '.join(ENDINGS)} file: write one with "
            "keras.Model.save_weights or keras.Model.save."
        )


def _refuse_learner(name, variables):
    """Refuses a learner, which holds several sets of weights of one network."""
    owners = {name.partition("/")[0] for _, name, _ in variables}
    if owners & _OF_LEARNERS:
        raise ValueError(
            f"{name} is of a learner, which holds its student more than once "
            "(as a moving average, or beside a teacher), so it is not clear "
            "which weights to read. Give learner.finished_student(), or a file "
            "that you save from it."
        )


def _check_fits(report, model):
    """Raises ValueError if most of a network would keep its fresh weights."""
    before_head = report.total - len(report.head)
    if report.matched and 2 * len(report.missing) <= before_head:
        return
    shapes = "".join(f" {_shapes(*m)}." for m in report.mismatched[:1])
    raise ValueError(
        f"{report.source} is for another network than {model.name!r}: "
        f"{len(report.matched)} of {report.total} variables fit.{shapes} Give "
        "a file of the same network."
    )


def _unpacked(path, scratch):
    """The HDF5 weights file: the path itself, or unpacked from an archive."""
    if not path.endswith(".keras"):
        return path
    out = os.path.join(scratch, "theirs.h5")
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open(_IN_ARCHIVE) as packed, open(out, "wb") as file:
                shutil.copyfileobj(packed, file)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    return out


def _unreadable(path, error):
    return ValueError(
        f"{path} cannot be read as Keras weights: {first_line(error)}"
    )


@dataclasses.dataclass(frozen=True)
class _Found:
    """A variable: its key for matching, its name, and its values."""

    key: Any
    name: str
    values: Any


def _variables(file):
    """(place, name, values) of the float variables in a weights file."""
    found = []

    def visit(place, item):
        group, _, number = place.rpartition("/")
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
            layer = file[group].attrs.get("name") if group else None
            found.append((place, f"{layer}/{number}" if layer else place, item))

    file.visititems(visit)
    return found


def _match(ours, theirs, **classes):
    """The better of two ways to match variables: by name, or by place."""
    best = None
    for key in (1, 0):
        sides = [[_Found(v[key], *v[1:]) for v in vs] for vs in (ours, theirs)]
        if len({found.key for found in sides[0]}) < len(ours):
            continue  # Nested layers may share names, but not places.
        compared = _compared(*sides, **classes)
        if best is None or len(compared[1]) > len(best[1]):
            best = compared
    return best


def _head(model):
    """The first part of the names of the last layer's variables."""
    return f"{_last_layer(model).name}/"


def _last_layer(model):
    return [layer for layer in model.layers if layer.weights][-1]


def _level_head(model, report):
    """Starts a head of other classes at 0, as BiT does (arXiv 1912.11370).

    Pretrained features are large: from those of an EfficientNet, the release's
    initial head makes logits of +-8, with a cross-entropy of 11 that takes
    hundreds of steps to unlearn.
    """
    head = _last_layer(model)
    is_new = not any(name.startswith(_head(model)) for name in report.matched)
    if report.head and is_new and isinstance(head, keras.layers.Dense):
        for variable in head.trainable_variables:
            variable.assign(keras.ops.zeros_like(variable))


def _compared(ours, theirs, *, head, same_classes):
    """A report without its source, and the pairs (ours, theirs) that fit.

    Args:
      ours, theirs: lists of `_Found`.
      head: see `_head`.
      same_classes: see `load_weights`.
    """
    there = {found.key: found for found in theirs}
    matched, fresh, mismatched, pairs = [], [], [], []
    for our in ours:
        their = there.pop(our.key, None)
        shapes = [tuple(x.values.shape) for x in (their, our) if x]
        fits = shapes[0] == shapes[-1] and their
        if fits and (same_classes or not our.name.startswith(head)):
            matched.append(our.name)
            pairs.append((our.values, their.values))
            continue
        fresh.append(our.name)
        if their and not fits:
            mismatched.append((our.name, *shapes))
    report = WeightsReport(
        matched=tuple(matched),
        head=tuple(name for name in fresh if name.startswith(head)),
        missing=tuple(name for name in fresh if not name.startswith(head)),
        left_over=tuple(found.name for found in there.values()),
        mismatched=tuple(mismatched),
    )
    return report, pairs


def _shapes(name, theirs, ours):
    return f"{name} is {list(theirs)} there, {list(ours)} here"


def _listed(names):
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
