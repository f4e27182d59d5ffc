"""Where the folder of a run can be; checked before TensorFlow loads."""

import os

from meta_pseudo_labels.utils.settings import ConfigError, check_address

_REPOSITORIES = ("git", "hg", "svn", "jj", "bzr")


def check_place(path, *, must_exist=False):
    """Refuses a folder that no run can be in.

    Args:
      path: of the folder, which may be missing; None where none is given.
      must_exist: whether a run must be there already.

    Raises:
      ConfigError: for no path, an address, a pattern, a file, a folder that
        may not be written to, and one that is missing but must exist.
    """
    if not path:
        raise ConfigError(
            "--output_dir is missing: name the folder of the run, for "
            "example --output_dir=runs/digits_mpl."
        )
    check_address("output_dir", path)
    if set(os.path.realpath(path)) & set("*?[]\\"):
        raise ConfigError(
            f"--output_dir={path}: TensorFlow takes *, ?, [, ] and \\ for "
            "patterns of names and would touch other folders; name one "
            "without them."
        )
    nearest = path
    while not os.path.exists(nearest):
        nearest = os.path.dirname(nearest) or "."
    if not os.path.isdir(nearest):
        raise ConfigError(
            f"--output_dir={path}: {nearest} is a file; name a folder."
        )
    if not os.access(nearest, os.W_OK):
        raise ConfigError(
            f"--output_dir={path}: you may not write to {nearest}; name "
            "another folder."
        )
    if must_exist and not os.path.isdir(path):
        raise ConfigError(
            f"--output_dir={path} does not exist: train there first, with "
            "`mpl train`."
        )


def special_place(path):
    """What a folder is, if it is not for one run alone; otherwise None.

    Args:
      path: of a folder.
    """
    path = os.path.realpath(path)
    if path == os.path.dirname(path):
        return "is the root of the file system"
    if path == os.path.realpath(os.path.expanduser("~")):
        return "is your home"
    kept = [k for k in _REPOSITORIES if os.path.exists(f"{path}/.{k}")]
    return f"is a {kept[0]} repository" if kept else None
