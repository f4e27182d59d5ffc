"""Folders of images to load."""

import pytest

from tests.tiny_folders import write_folders


@pytest.fixture
def folders(tmp_path):
    """A folder with those of `tiny_folders`."""
    write_folders(tmp_path)
    return tmp_path
