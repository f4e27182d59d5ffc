"""Folders of images to load, and what is logged of them."""

import pytest
from absl import logging

from tests.tiny_folders import write_folders


@pytest.fixture
def folders(tmp_path):
    """A folder with those of `tiny_folders`."""
    write_folders(tmp_path)
    return tmp_path


@pytest.fixture
def logged(monkeypatch):
    """The lines that are logged."""
    lines = []
    monkeypatch.setattr(
        logging, "warning", lambda text, *values: lines.append(text % values)
    )
    return lines
