"""Folders of model versions 1, 2, ..., the highest of which is served."""

import os


def version_names(folder):
    """The names of the versions in a folder, the highest one last.

    Args:
      folder: local folder, which may be missing.

    Returns:
      A list of strings of digits, as they are written: `007` is version 7.
    """
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(filter(is_version, names), key=lambda name: (int(name), name))


def is_version(name):
    """Whether a name is that of a version; ² and such are no digits."""
    return name.isascii() and name.isdigit()
