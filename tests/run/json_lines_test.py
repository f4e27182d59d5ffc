"""Standard output that is objects, whoever prints."""

import io
import json
import socket
import sys

import pytest

from meta_pseudo_labels.run import cli, command, json_lines
from meta_pseudo_labels.run.stopping import Diverged, Interrupted


def objects(text):
    """What lines hold, without the time, which each has."""
    rows = [json.loads(line) for line in text.splitlines()]
    assert all(row.pop("time").endswith("+00:00") for row in rows)
    return rows


def said(*texts):
    stream = io.StringIO()
    for text in texts:
        json_lines.JsonLines(stream).write(text)
    return objects(stream.getvalue())


def test_text_becomes_an_object_a_line():
    assert said("Devices: 1 CPU\nNext: mpl eval --a: b\n") == [
        {"event": "devices", "text": "1 CPU"},
        {"event": "next", "text": "mpl eval --a: b"},
    ]
    assert said("\n  events  curves: x\n3\n") == [
        {"event": "message", "text": "  events  curves: x"},
        {"event": "message", "text": "3"},
    ]
    assert said('{"event": "progress", "loss": null}\n{no JSON}\n') == [
        {"event": "progress", "loss": None},
        {"event": "message", "text": "{no JSON}"},
    ]


def test_a_line_may_come_in_pieces():
    stream = io.StringIO()
    lines = json_lines.JsonLines(stream)
    for piece in ("Trai", "ned: ", "runs/a\nEx"):
        lines.write(piece)
    assert objects(stream.getvalue()) == [
        {"event": "trained", "text": "runs/a"}
    ]


@pytest.mark.parametrize(
    ("cluster", "task", "index"),
    [
        ({"worker": ["a:1", "b:1"]}, {"type": "worker", "index": 1}, 1),
        (
            {"chief": ["a:1"], "worker": ["b:1"]},
            {"type": "worker", "index": 0},
            1,
        ),
        (
            {"chief": ["a:1"], "worker": ["b:1"]},
            {"type": "chief", "index": 0},
            0,
        ),
        ({"worker": ["a:1"]}, {"type": "worker", "index": 0}, None),
        ({"worker": 3}, {}, None),
    ],
)
def test_one_of_several_workers_names_itself(cluster, task, index, monkeypatch):
    config = {"cluster": cluster, "task": task}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    (row,) = said("Trained: a\n")
    assert row.get("worker") == index
    assert row.get("host") == (None if index is None else socket.gethostname())


@pytest.fixture
def ended(monkeypatch, capsys):
    """What a command says that ends in a way; its objects."""

    def end(error, *flags, before=""):
        def fail(arguments, *, typed):
            json_lines.begin()
            print(before, end="")
            if error is not None:
                raise error

        monkeypatch.setattr(command, "run_command", fail)
        monkeypatch.setattr(
            command, "start", lambda *a, **k: command.main(["mpl"])
        )
        monkeypatch.setattr(
            sys, "argv", ["mpl", "train", "--output_dir=x", *flags]
        )
        stdout = sys.stdout
        try:
            cli.main()
        except BaseException as error:
            caught = error
        else:
            caught = None
        assert sys.stdout is stdout
        return objects(capsys.readouterr().out), caught

    return end


def test_the_last_object_has_the_exit_status(ended):
    (row,), caught = ended(None)
    assert row == {"event": "exit", "status": 0} and caught is None
    (row,), caught = ended(Interrupted("SIGTERM ended it.", step=7))
    assert row == {
        "event": "exit",
        "status": 75,
        "message": "SIGTERM ended it.",
        "step": 7,
    }
    assert caught.code == 75
    (row,), caught = ended(Diverged("Bad losses."))
    assert row == {"event": "error", "status": 1, "message": "Bad losses."}
    (row,), caught = ended(OSError(21, "Is a directory", "run/acc"))
    assert row["message"] == "run/acc: Is a directory."
    (row,), caught = ended(MemoryError())  # Which says nothing itself.
    assert "too little memory" in row["message"]
    rows, caught = ended(KeyError("a bug"), before="Half a line: 1")
    assert rows == [
        {"event": "message", "text": "Half a line: 1"},
        {"event": "error", "status": 1, "message": "KeyError: 'a bug'"},
    ]
    assert isinstance(caught, KeyError)


@pytest.mark.parametrize(
    "flag", ["--output_dir=--recipe=digits_mpl", "--num_train_steps=-3"]
)
def test_what_is_refused_before_tensorflow_is_an_object_too(ended, flag):
    (row,), caught = ended(None, flag, "--log_format=json")
    assert (row["event"], row["status"]) == ("error", 1)
    assert flag.partition("=")[0].strip("-") in row["message"]
    assert caught.code == f"Error: {row['message']}"
    rows, _ = ended(None, flag, "--log_format", "text")
    assert rows == []
