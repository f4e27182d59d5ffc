"""Plug-ins of tests, which are written anew as a user would."""

import importlib
import sys


def source_writer(name, tmp_path_factory, monkeypatch):
    """A function that gives a plug-in a source, as it is before a new start.

    Args:
      name: of the plug-in, a module that can be imported from then on.
      tmp_path_factory, monkeypatch: pytest's fixtures.
    """
    root = tmp_path_factory.mktemp("source")
    monkeypatch.syspath_prepend(root)

    def write(text):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (root / f"{name}.py").write_text(text)
        importlib.invalidate_caches()

    return write
