"""The rooms of the package: what the house promises."""

import pathlib

import pytest

from benchmarks.rooms.run import LAYERS, code_lines, loaded_by, rooms, upward


def test_lines_of_code_are_counted_without_words():
    text = '"""Words."""\n\n# More.\ndef f():\n    """Words."""\n    return (\n'
    text += "        1\n    )\n\n\nx = '''a\nb'''\n"
    assert code_lines(text) == 6


def test_no_room_imports_from_above():
    found = rooms()
    assert {room for layer in LAYERS for room in layer} <= set(found)
    assert upward(found) == []
    assert "learners" in found["run"][2]


def test_the_top_of_the_package_can_be_taken_in_at_a_glance():
    folder = pathlib.Path(__file__).parents[2] / "meta_pseudo_labels"
    entries = [p for p in folder.iterdir() if p.name != "__pycache__"]
    assert len(entries) <= 14


@pytest.mark.fast("learners-55", "run.config-65")
@pytest.mark.parametrize(
    ("module", "most"), [("learners", 55), ("run.config", 65)]
)
def test_what_is_not_needed_is_not_loaded(module, most):
    assert loaded_by(module) <= most
