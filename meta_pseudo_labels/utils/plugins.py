"""Modules of users, imported for what they register or make."""

import importlib
import os
import pathlib
import sys
import traceback

from absl import logging

from meta_pseudo_labels.utils.settings import ConfigError, module_names


def load_plugins(plugins):
    """Imports modules that register learners, estimators, sources and so on.

    Args:
      plugins: see `module_names`.

    Raises:
      ConfigError: for a module that is not there or fails on import.
    """
    for name in filter(None, module_names(plugins).split(",")):
        import_for(f"--plugin={name}", name)


def source_files(plugins):
    """{name: paths of its source} of imported plug-ins, packages whole.

    Args:
      plugins: see `module_names`.
    """
    found = {}
    for name in filter(None, module_names(plugins).split(",")):
        module = sys.modules[name]
        found[name] = sorted(
            str(file)
            for folder in getattr(module, "__path__", ())
            for file in pathlib.Path(folder).rglob("*.py")
        ) or [module.__file__ or ""]
    return found


def import_for(flag, name):
    """Imports a module of the user; the present folder is looked into too.

    Args:
      flag: that names it, for messages.
      name: its dotted name.

    Raises:
      ConfigError: where it is not there or fails on import.
    """
    here = os.getcwd()
    if name.endswith(".py") or os.sep in name:
        raise ConfigError(
            f"{flag}: name the module as Python imports it, not its file: "
            + _module_of(name, flag)
        )
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split(".")[0] and error.name != name:
            raise failed(f"{flag} fails on import", error) from error
        raise ConfigError(
            f"{flag}: there is no such module. Name it as Python imports it, "
            f"such as my_methods; it may lie in {here} or on PYTHONPATH."
        ) from error
    except Exception as error:  # Whatever the user's code raises.
        raise failed(f"{flag} fails on import", error) from error


def _module_of(file, flag):
    """How to name a file's module in a flag, and what that needs."""
    folder, name = os.path.split(os.path.normpath(file.removesuffix(".py")))
    if not name.isidentifier():
        return "rename it so that Python can import it, such as my_methods.py."
    packages = folder.split(os.sep) if folder else []
    option, rest = flag.split(file, 1)
    if all(package.isidentifier() for package in packages):
        return option + ".".join([*packages, name]) + rest
    where = f"put {folder} on PYTHONPATH, or go there"
    return f"{where}, and give {option}{name}{rest}"


def failure_within(plugins, error):
    """The `ConfigError` for what a plug-in's code raised while it was used.

    The whole traceback is logged at debug level.

    Args:
      plugins: see `module_names`.
      error: an exception that was caught.

    Returns:
      One that names the deepest line in a plug-in, or in a module of a package
      that is one; None where none is in it.
    """
    names = tuple(filter(None, module_names(plugins).split(",")))
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__") or ""
        for name in names:
            if f"{module}.".startswith(f"{name}."):
                file = os.path.basename(frame.f_code.co_filename)
                found = f"--plugin={name} fails at {file}, line {line}"
    if found is None:
        return None
    logging.debug("%s", found, exc_info=error)
    return failed(found, error)


def failed(what, error):
    """The `ConfigError` for what a user's code raised, on one line."""
    text = " ".join(str(error).split())
    return ConfigError(f"{what}: {type(error).__name__}: {text}")
