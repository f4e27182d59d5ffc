"""Where the tests find data that is kept outside the repository."""

import os
import pathlib

import pytest

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent


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
