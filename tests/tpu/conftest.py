"""A shell in which nothing may be called."""

import shlex

import pytest

from tests.tpu.shell import stand_in


@pytest.fixture
def forbidden(tmp_path):
    """A folder whose gcloud and git leave a trace of being called."""
    trace = tmp_path / "was_called"
    for name in ("gcloud", "git", "mkdir"):
        stand_in(tmp_path / "bin", name, f"touch {shlex.quote(str(trace))}")
    yield tmp_path / "bin"
    assert not trace.exists(), "A dry run called something."
