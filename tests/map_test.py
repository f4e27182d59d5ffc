"""docs/map.md: every name of ours is there, and the release's are known."""

import importlib
import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "map.md"
ROWS = re.findall(r"^\| (.+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
NAMES = re.findall(
    r"`((?:meta_pseudo_labels|benchmarks)(?:\.\w+)+)`", PAGE.read_text()
)


def resolve(name):
    """Whether a dotted name is a module, or something within one.

    Of a dataclass a field without a default counts, though the class has no
    such attribute.
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if not name.startswith(error.name):  # It is there, and breaks.
                raise
            continue
        for part in parts[length:]:
            fields = getattr(thing, "__annotations__", {})
            if not hasattr(thing, part) and part not in fields:
                return False
            thing = getattr(thing, part, None)
        return True
    return False


def test_every_name_is_there():
    assert len(NAMES) > 35
    assert [name for name in NAMES if not resolve(name)] == []


@pytest.mark.parametrize(
    "name",
    [
        "meta_pseudo_labels.learners.feedback.exactly",
        "meta_pseudo_labels.learners.no_such_file.exact",
        "meta_pseudo_labels.learners.mpl.MetaPseudoLabels.no_step",
        "meta_pseudo_labels.learners.student_step.StudentStep.no_field",
    ],
)
def test_a_dead_name_is_found(name):
    assert not resolve(name)


def test_every_row_says_where():
    headings = [row for row in ROWS if row[1] == "Here"]
    assert len(headings) == 2 and len(ROWS) > 34
    for left, right in ROWS:
        assert right == "Here" or "`" in right or "](" in right, left
