"""main.py in the process of the tests."""

import sys

import pytest
from absl import flags

from meta_pseudo_labels.run import command as command_line
from meta_pseudo_labels.run.config.flags import define_flags


@pytest.fixture
def main(monkeypatch):
    """main.py's main() on a command line, in this process."""
    known = set(flags.FLAGS)
    define_flags()

    def call(*arguments):
        command = ["main.py", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        flags.FLAGS.unparse_flags()  # Else an earlier call's would hold.
        command_line.main(flags.FLAGS(command), typed=command[1:])

    yield call
    for name in set(flags.FLAGS) - known:
        delattr(flags.FLAGS, name)
