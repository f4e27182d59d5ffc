"""Files appear whole, or not at all; and what is read from them."""

import os
import time

import pytest

from meta_pseudo_labels.utils import files
from meta_pseudo_labels.utils.files import (
    read_json,
    read_object,
    replaced_by,
    replaces,
    write_whole,
)
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


def test_processes_that_write_one_file_do_not_mix(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    with replaces(path) as scratch, open(scratch, "w") as file:
        file.write("a long text")
        monkeypatch.setattr(os, "getpid", os.getppid)
        write_whole(path, "short")
        assert path.read_text() == "short"
    assert path.read_text() == "a long text"
    assert os.listdir(tmp_path) == ["file.txt"]


HERE, ELSEWHERE = files._machine(), "0123abcd"
NOBODY = 999_999_999  # More than any system numbers its processes.


@pytest.mark.parametrize(
    ("name", "hours", "stays"),
    [
        (f"file.txt.{HERE}-{NOBODY}.part", 0, False),
        (f"file.txt.{HERE}-{os.getppid()}.part", 0, True),
        (f"file.txt.{HERE}-1.part", 0, True),  # Of root.
        (f"file.txt.{ELSEWHERE}-{NOBODY}.part", 0.9, True),
        (f"file.txt.{ELSEWHERE}-{os.getppid()}.part", 1.1, False),
        ("file.txt.part", 0.9, True),  # Of an earlier version.
        ("file.txt.part", 1.1, False),
        ("other.txt.part", 1.1, True),
        (f"file.txt.old.{HERE}-{NOBODY}.part", 1.1, True),
        ("file.txt.old.part", 1.1, True),
        ("part", 1.1, True),
    ],
)
def test_what_killed_processes_left_is_removed(tmp_path, name, hours, stays):
    left = tmp_path / name
    left.write_text("half")
    os.utime(left, (time.time() - 3_600 * hours,) * 2)
    write_whole(tmp_path / "file.txt", "whole")
    assert left.exists() == stays
    assert (tmp_path / "file.txt").read_text() == "whole"


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("a.json.part", "a.json"),
        (f"a.json.{ELSEWHERE}-12.part", "a.json"),
        (f"done.{ELSEWHERE}-12.part", "done"),
        (f"done.{ELSEWHERE}.part", f"done.{ELSEWHERE}"),
        (f"done.{ELSEWHERE}-12", None),
        (".part", None),
    ],
)
def test_a_scratch_file_names_what_it_replaces(name, whole):
    assert replaced_by(name) == whole


@pytest.mark.parametrize("name", ["missing/file.txt", "folder"])
def test_what_cannot_be_written_has_its_own_name_in_the_error(tmp_path, name):
    (tmp_path / "folder" / "kept").mkdir(parents=True)
    with pytest.raises(OSError, match=rf"'{tmp_path / name}'"):
        write_whole(tmp_path / name, "text")
    assert (tmp_path / "folder" / "kept").exists()


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


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "digits"),
        (b"\xff{}", "decode"),
        (b"{}{}", "Extra data"),
    ],
    ids=["lists", "objects", "digits", "no text", "two"],
)
def test_whatever_is_in_a_file_of_json_is_told_in_a_line(
    tmp_path, content, why
):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=why):
        read_json(path)
    with pytest.raises(ConfigError, match=why) as caught:
        read_object(path, "facts")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_what_is_no_file_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="it is not a regular file"):
        read_object(tmp_path / "pipe", "facts")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_object(tmp_path, "facts")
    (tmp_path / "large").write_text('{"a": 1}')
    monkeypatch.setattr(files, "_MOST_BYTES", 7)
    with pytest.raises(ConfigError, match="larger than 7 bytes"):
        read_object(tmp_path / "large", "facts")
