"""Hashes of plug-ins' source; what imports them is in run/config."""

import importlib
import pathlib
import shutil
import sys
import types

import pytest

from meta_pseudo_labels.utils import plugins
from meta_pseudo_labels.utils.plugins import load_plugins, source_digests


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """One that is on Python's path, for `digest`."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(plugins, "_IMPORTED", {})
    yield tmp_path
    forget()


def forget():
    """As a new process has it."""
    plugins._IMPORTED.clear()
    for name in list(sys.modules):
        if name.partition(".")[0] in ("hashed", "hashed_too"):
            del sys.modules[name]
    importlib.invalidate_caches()


def digest(name):
    """Of the source that a new process would import."""
    forget()
    load_plugins(name)
    return source_digests(name)[name]


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_hash_is_of_what_was_imported_not_of_a_later_edit(folder):
    write(folder, {"hashed.py": "FACTOR = 1\n"})
    first = digest("hashed")
    write(folder, {"hashed.py": "FACTOR = -1000\n"})
    load_plugins("hashed")
    assert source_digests("hashed") == {"hashed": first}
    importlib.reload(sys.modules["hashed"])
    (reloaded,) = source_digests("hashed").values()
    assert reloaded != first and reloaded == digest("hashed")


def test_the_top_package_of_a_module_is_hashed_whole(folder):
    write(
        folder,
        {
            "hashed/__init__.py": "",
            "hashed/methods.py": "",
            "hashed/parts/losses.py": "A = 1\n",
            "hashed/notes.txt": "Some.",
        },
    )
    first = digest("hashed.methods")
    assert len(first) == 64 and digest("hashed") == first
    write(
        folder,
        {
            "hashed/.ipynb_checkpoints/methods-checkpoint.py": "B = 1\n",
            "hashed/notes.txt": "More.",
            "hashed_too.py": "C = 1\n",
        },
    )
    (folder / "hashed/.#methods.py").symlink_to("nowhere")  # As Emacs does.
    assert digest("hashed.methods") == first
    write(folder, {"hashed/parts/losses.py": "A = 2\n"})
    changed = digest("hashed.methods")
    assert changed != first
    # The same text under another name is other source.
    (folder / "hashed/parts/losses.py").rename(folder / "hashed/parts/loss.py")
    assert digest("hashed.methods") not in (first, changed)


def test_a_package_that_lies_elsewhere_has_the_same_hash(folder, monkeypatch):
    write(folder, {"hashed/__init__.py": "", "hashed/methods.py": "A = 1\n"})
    first = digest("hashed")
    other = folder / "elsewhere"
    other.mkdir()
    shutil.move(folder / "hashed", other)
    monkeypatch.syspath_prepend(other)
    assert digest("hashed") == first
    assert str(other) in sys.modules["hashed"].__file__


def test_a_module_of_one_file_is_hashed_without_what_it_imports(folder):
    write(
        folder,
        {"hashed.py": "import hashed_too\n", "hashed_too.py": "A = 1\n"},
    )
    first = digest("hashed")
    write(folder, {"hashed_too.py": "A = 2000\n"})
    assert digest("hashed") == first
    assert digest("hashed_too") != first


def test_what_has_no_source_has_no_hash(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "hashed", types.ModuleType("hashed"))
    load_plugins("hashed,builtins")
    assert source_digests("hashed,builtins") == {
        "hashed": None,
        "builtins": None,
    }
    gone = types.ModuleType("hashed")
    gone.__file__ = str(folder / "gone.py")
    monkeypatch.setitem(sys.modules, "hashed", gone)
    plugins._IMPORTED.clear()
    assert source_digests("hashed") == {"hashed": None}


def test_a_file_that_may_not_be_read_has_no_hash(folder, monkeypatch):
    write(folder, {"hashed.py": "A = 1\n"})
    load_plugins("hashed")
    plugins._IMPORTED.clear()

    def refuse(path, mode):
        raise PermissionError(pathlib.Path(path).name)

    monkeypatch.setattr(plugins, "open", refuse, raising=False)
    assert source_digests("hashed") == {"hashed": None}
