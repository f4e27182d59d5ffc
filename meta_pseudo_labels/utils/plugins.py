"""Modules of users, imported for what they register."""

import importlib
import os
import sys

from meta_pseudo_labels.utils.settings import ConfigError


def load_plugins(names):
    """Imports modules that register learners, estimators, sources and so on.

    The present folder is looked into too, as Python does for a script there.

    Args:
      names: dotted names with commas between, as --plugin takes them; None or
        "" for none.

    Raises:
      ConfigError: for a module that is not there or fails on import.
    """
    for name in filter(None, (names or "").split(",")):
        _load(name.strip())


def _load(name):
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split(".")[0] and error.name != name:
            raise _failed(name, error) from error
        raise ConfigError(
            f"--plugin={name}: there is no such module. Name it as Python "
            f"imports it, such as my_methods; it may lie in {here} or on "
            "PYTHONPATH."
        ) from error
    except Exception as error:  # Whatever the user's code raises.
        raise _failed(name, error) from error


def _failed(name, error):
    return ConfigError(
        f"--plugin={name} fails on import: {type(error).__name__}: {error}"
    )
