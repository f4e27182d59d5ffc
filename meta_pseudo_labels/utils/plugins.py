"""Modules of users, imported for what they register."""

import importlib
import os
import sys

from meta_pseudo_labels.utils.settings import ConfigError


def plugin_names(plugins):
    """Dotted names of modules, with commas between.

    Args:
      plugins: a sequence of names, or such a text; None or empty for none.
    """
    if not plugins or isinstance(plugins, str):
        return ",".join((plugins or "").replace(" ", "").split(","))
    return ",".join(plugins)


def load_plugins(plugins):
    """Imports modules that register learners, estimators, sources and so on.

    The present folder is looked into too, as Python does for a script there.

    Args:
      plugins: see `plugin_names`.

    Raises:
      ConfigError: for a module that is not there or fails on import.
    """
    for name in filter(None, plugin_names(plugins).split(",")):
        _load(name)


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
