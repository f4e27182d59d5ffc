"""main.py in the process of the tests."""

import importlib.util
import sys

import pytest
from absl import flags

from meta_pseudo_labels.run.config.flags import define_flags


@pytest.fixture
def main(request, monkeypatch):
    """main.py's main() on a command line, in this process."""
    path = request.config.rootpath / "main.py"
    spec = importlib.util.spec_from_file_location("main_under_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    known = set(flags.FLAGS)
    define_flags()

    def call(*arguments):
        command = ["main.py", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        flags.FLAGS.unparse_flags()  # Else an earlier call's would hold.
        module.main(flags.FLAGS(command))

    yield call
    for name in set(flags.FLAGS) - known:
        delattr(flags.FLAGS, name)
