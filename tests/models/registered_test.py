"""Keras files of ours load once the learners are imported."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[2] / "meta_pseudo_labels"
ROOMS = ("distribute", "learners", "models", "optimizers")


def serializable(path):
    """Names of the classes that a module registers with Keras."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any("serializable" in ast.unparse(d) for d in node.decorator_list)
    }


@pytest.mark.long
def test_the_learners_bring_every_class_that_files_may_name():
    written = set()
    for room in ROOMS:
        for path in (PACKAGE / room).rglob("*.py"):
            written |= serializable(path)
    assert {"BatchNorm", "Dropout", "LARS", "Rematerialized"} < written
    code = (
        "import keras, meta_pseudo_labels.learners;"
        "print(*keras.saving.get_custom_objects())"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    prefix = "meta_pseudo_labels>"
    found = {name.removeprefix(prefix) for name in output.split()}
    assert written <= found
