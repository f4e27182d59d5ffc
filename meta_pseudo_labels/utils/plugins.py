"""Modules of users, imported for what they register or make."""

import importlib
import os
import sys

from meta_pseudo_labels.utils.settings import ConfigError


def module_names(names):
    """Dotted names of modules, and of what is in them, with commas between.

    Args:
      names: a sequence of names, or such a text; None or empty for none.
    """
    if not names or isinstance(names, str):
        return ",".join((names or "").replace(" ", "").split(","))
    return ",".join(names)


def load_plugins(plugins):
    """Imports modules that register learners, estimators, sources and so on.

    Args:
      plugins: see `module_names`.

    Raises:
      ConfigError: for a module that is not there or fails on import.
    """
    for name in filter(None, module_names(plugins).split(",")):
        import_for(f"--plugin={name}", name)


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
        module = (
            name.removesuffix(".py").removeprefix("./").replace(os.sep, ".")
        )
        raise ConfigError(
            f"{flag}: name the module as Python imports it, not its file: "
            f"{flag.partition('=')[0]}={module}"
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


def failure_within(plugins, error):
    """The `ConfigError` for what a plug-in's code raised while it was used.

    Args:
      plugins: see `module_names`.
      error: an exception that was caught.

    Returns:
      One that names the deepest line in a plug-in; None where none is in it.
    """
    names = module_names(plugins).split(",")
    found, trace = None, error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__")
        if name in names:
            file = os.path.basename(trace.tb_frame.f_code.co_filename)
            found = f"--plugin={name} fails at {file}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return found and failed(found, error)


def failed(what, error):
    """The `ConfigError` for what a user's code raised, on one line."""
    text = " ".join(str(error).split())
    return ConfigError(f"{what}: {type(error).__name__}: {text}")
