"""docs/fidelity.md keeps its word: what it names exists, what it runs works."""

import ast
import functools
import importlib
import pathlib
import re

import numpy as np
import pytest

from meta_pseudo_labels.release.dataset_names import RELEASE_DATASETS
from meta_pseudo_labels.release.idle_flags import IDLE_FLAGS
from tests.command_line import defined, parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "fidelity.md").read_text()
QUIRKS = range(1, 33)
OF_ABSL = {"helpfull"}


def entries():
    """The text below each heading that begins with a number, in order."""
    parts = re.split(r"^##+ ", TEXT, flags=re.MULTILINE)
    found = [re.match(r"(\d+)\. ", part) for part in parts]
    return [
        (int(number[1]), part)
        for number, part in zip(found, parts, strict=True)
        if number
    ]


def cited_tests(text):
    return re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", text)


@functools.cache
def defined_tests(path):
    """The tests of a file as pytest names them, without running it."""
    tree = ast.parse((ROOT / path).read_text())
    functions = (ast.FunctionDef,)
    names = {node.name for node in tree.body if isinstance(node, functions)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}::{inner.name}"
                for inner in node.body
                if isinstance(inner, functions)
            }
    return {name for name in names if "test_" in name}


def python_blocks():
    return re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


def test_every_quirk_has_one_entry_in_order():
    assert [number for number, _ in entries()] == list(QUIRKS)


@pytest.mark.parametrize("number", QUIRKS)
def test_an_entry_says_all_there_is_to_say(number):
    entry = dict(entries())[number]
    fields = re.findall(r"^- (\w+)\b.*?:", entry, flags=re.MULTILINE)
    assert fields == ["Release", "Here", "Switch", "Tests"]
    assert cited_tests(entry.split("\n- Tests:")[1])


def test_the_tests_it_cites_exist():
    cited = cited_tests(TEXT)
    assert len(cited) > 100
    missing = [f"{p}::{n}" for p, n in cited if n not in defined_tests(p)]
    assert not missing
    # None was overlooked for its spelling.
    assert TEXT.count("::") == sum(1 + n.count("::") for _, n in cited)


def test_the_files_it_names_exist():
    files = re.findall(r"`((?:tests|flags|docs)/[\w/.]+)`", TEXT)
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert files and links
    for path in files + [f"docs/{link}" for link in links]:
        assert (ROOT / path).exists(), path


def test_the_flags_it_names_are_defined():
    flags = defined()
    named = set(re.findall(r"--(\w+)", TEXT)) - OF_ABSL
    assert len(named) > 30
    negated = {
        name
        for name in named
        if name.startswith("no") and name.removeprefix("no") in flags
    }
    assert negated and all(
        flags[name.removeprefix("no")].flag_type() == "bool" for name in negated
    )
    assert not [name for name in named - negated if name not in flags]


def test_the_values_it_gives_to_flags_are_taken():
    given = set(re.findall(r"--\w+=[\w.-]+\b", TEXT))
    assert "--mpl_feedback=release" in given
    for argument in given:
        parse(argument)


def test_the_python_names_it_cites_can_be_imported():
    names = re.findall(r"`(meta_pseudo_labels(?:\.\w+)+)\b", TEXT)
    assert len(names) > 8
    for name in names:
        parent, last = name.rsplit(".", 1)
        assert hasattr(importlib.import_module(parent), last), name


def test_the_numbers_of_flags_and_data_sets():
    never_read = sum(not flag.undefined for flag in IDLE_FLAGS)
    assert f"either**, {never_read} of them" in TEXT
    assert f"All {len(RELEASE_DATASETS)} are accepted" in TEXT


@pytest.mark.long
def test_replaying_works_as_printed(
    reference_dir, tmp_path, monkeypatch, capsys
):
    """With one step, to be quick."""
    replaying, _ = python_blocks()
    name = re.search(r'"reference/(\w+)\.npz"', replaying)[1]
    with np.load(reference_dir / f"{name}.npz") as trace:
        short = {
            key: trace[key][:1] if key.startswith(("input/", "log")) else value
            for key, value in trace.items()
            if not key.startswith(("final/", "extra", "eval/"))
        }
    (tmp_path / "reference").mkdir()
    np.savez(tmp_path / "reference" / f"{name}.npz", **short)
    monkeypatch.chdir(tmp_path)
    exec(replaying, {})
    assert float(capsys.readouterr().out) < 1e-6


def test_checkpoints_work_as_printed(tmp_path, monkeypatch, capsys):
    _, loading = python_blocks()
    monkeypatch.chdir(tmp_path)
    exec(loading, {})
    promised = re.search(r"print\(report\)  # (.*)", loading)[1]
    assert capsys.readouterr().out.strip() == promised
