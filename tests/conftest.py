"""Devices for all tests, and data that is kept outside the repository."""

import collections
import gc
import os
import pathlib
import random
import zlib

import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from meta_pseudo_labels.utils import signals

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
REPLICAS = 16  # Batch norm makes groups of replicas beyond 8.


def pytest_configure():
    """Splits the processor, which is only possible before it is used."""
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * REPLICAS,
    )
    gc.freeze()  # What is imported by now stays; nothing looks at it again.
    gc.set_threshold(50_000, 10, 10)  # Graphs are many objects, and no litter.
    _do_without_autotuning()


@pytest.hookimpl(tryfirst=True)  # Before its fixtures are made.
def pytest_runtest_setup(item):
    """Lets a test draw the same whichever ran before it.

    Keras takes the seeds of initializers and of dropout from `random`.
    """
    random.seed(item.nodeid)
    np.random.seed(zlib.crc32(item.nodeid.encode()))
    # A test of the command line leaves the process the program that it began;
    # a signal within a later test would end all of them.
    signals._is_program = False


@pytest.hookimpl(tryfirst=True)  # Before the long ones are left out.
def pytest_collection_modifyitems(items):
    """Marks the parameters `long` that a mark `fast` does not name."""
    found = collections.defaultdict(set)
    for item in items:
        fast = item.get_closest_marker("fast")
        if fast is None:
            continue
        found[item.nodeid.partition("[")[0], fast.args].add(item.callspec.id)
        if item.callspec.id not in fast.args:
            item.add_marker("long")
    for (name, wanted), ids in found.items():
        unknown = set(wanted) - ids
        if unknown and len(ids) > len(wanted):  # Else some were asked for.
            raise pytest.UsageError(f"{name} has no parameters {unknown}.")


def _do_without_autotuning():
    """Lets iterators over data go at once.

    TensorFlow joins the thread that tunes an iterator as it wakes the next
    time, which takes longer the older the iterator is: up to a minute, in
    whatever test Python comes to collect it. Half of the tests' time went so.
    """
    iterate = tf.data.Dataset.__iter__
    options = tf.data.Options()
    options.autotune.enabled = False

    def untuned(self):
        return iterate(
            self.with_options(options) if tf.executing_eagerly() else self
        )

    tf.data.Dataset.__iter__ = untuned


@pytest.fixture
def logged(monkeypatch):
    """The lines of warnings that are logged from now on."""
    lines = []
    monkeypatch.setattr(
        logging, "warning", lambda text, *values: lines.append(text % values)
    )
    return lines


@pytest.fixture(scope="session")
def mirrored():
    """A function from a number of replicas to a strategy over them.

    It adds on one device: TensorFlow's collective operations confuse several
    strategies in one process.
    """
    return lambda count: tf.distribute.MirroredStrategy(
        [f"CPU:{index}" for index in range(count)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


@pytest.fixture(scope="session")
def reference_dir():
    """Directory of the release's reference numbers."""
    return _directory("MPL_REFERENCE", default="reference")


@pytest.fixture(scope="session")
def data_dir():
    """Directory of small data sets in the formats of the real ones."""
    return _directory("MPL_TEST_DATA", default="data")


def _directory(variable, *, default):
    default = CHECKOUT.parent / "shared" / default
    path = pathlib.Path(os.environ.get(variable, default))
    if not path.is_dir():
        pytest.skip(f"{path} is absent; set {variable} to its place.")
    return path
