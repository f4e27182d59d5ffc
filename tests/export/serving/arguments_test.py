"""What serve.py refuses before it does anything."""

import sys

import pytest

from meta_pseudo_labels.export.serving import __main__ as serve


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port=70000"], "must be from 0 to 65535, got 70000"),
        (["--port=-1"], "must be from 0 to 65535, got -1"),
        (["--workers=0"], "must be from 1 to"),
        (["--port=http"], "invalid integer value: 'http'"),
        (["--host="], "it is empty; name an address"),
        (["--host", " "], "it is empty; name an address"),
        (["--port="], "invalid integer value: ''"),
        (["--name="], "'' is part of an address"),
        (["--max_megapixels=0"], "must be from 1 to"),
        (["--name=a/b"], "'a/b' is part of an address"),
        (["--name=a:predict"], "'a:predict' is part of an address"),
    ],
)
def test_arguments_that_cannot_be(monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(
        sys, "argv", ["serve.py", "--saved_model=x", *arguments]
    )
    with pytest.raises(SystemExit, match="2"):
        serve.parse_arguments()
    assert words in capsys.readouterr().err
