"""Files appear whole, or not at all; and what is read from them."""

import os

import pytest

from meta_pseudo_labels.utils.files import read_object, replaces, write_whole
from meta_pseudo_labels.utils.settings import ConfigError


def test_writing_whole_replaces(tmp_path):
    path = tmp_path / "file.txt"
    for text in ("one", "another"):
        write_whole(str(path), text)
        assert path.read_text() == text
    assert os.listdir(tmp_path) == ["file.txt"]


def test_what_fails_half_way_replaces_nothing(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("before")
    scratch = str(tmp_path / "scratch")
    with pytest.raises(KeyError), replaces(path, scratch=scratch) as half:
        with open(half, "w") as file:
            file.write("half")
        raise KeyError
    assert path.read_text() == "before"
    assert half == scratch


def test_an_object_is_read(tmp_path):
    path = tmp_path / "file.json"
    path.write_text('{"digest": 3}')
    assert read_object(path, "facts", keys=("digest",)) == {"digest": 3}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[1]", "it holds a list"),
        ("null", "it holds a NoneType"),
        ("{}", "it has no 'digest'"),
        (None, "No such file"),
    ],
)
def test_what_is_no_such_object_is_named(tmp_path, text, why):
    path = tmp_path / "file.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_object(path, "facts", keys=("digest",), mend="Restore it.")
    message = str(caught.value)
    assert message.startswith(f"{path} cannot be read as facts: ")
    assert why in message and message.endswith(". Restore it.")
