"""Users' modules, imported for what they register or make."""

import hashlib
import importlib
import os
import sys
import traceback

from absl import logging

from meta_pseudo_labels.utils.settings import ConfigError, module_names

# By name of a plug-in: the spec it was imported with, which changes with a
# reload, and the hash of its source at that time.
_IMPORTED = {}


def load_plugins(plugins):
    """Imports modules that register learners, estimators, sources and so on.

    Args:
      plugins: see `module_names`.

    Raises:
      ConfigError: if a module does not exist or fails on import.
    """
    for name in filter(None, module_names(plugins).split(",")):
        import_for(f"--plugin={name}", name)
        _keep_digest(name)


def source_digests(plugins):
    """Hashes of the source of imported plug-ins when they were imported.

    Args:
      plugins: see `module_names`.

    Returns:
      A dict by name: SHA-256 of the names and contents of all .py files in its
      top package, or of its one file; None if it has no file, like a module
      made in memory.
    """
    found = {}
    for name in filter(None, module_names(plugins).split(",")):
        _keep_digest(name)
        _, found[name] = _IMPORTED.get(name, (None, None))
    return found


def _keep_digest(name):
    """Hashes the source of a module that was newly imported or reloaded."""
    if name not in sys.modules:
        return
    spec = getattr(sys.modules[name], "__spec__", None)
    if name not in _IMPORTED or _IMPORTED[name][0] is not spec:
        _IMPORTED[name] = spec, _digest(name)


def _digest(name):
    hashed, files = hashlib.sha256(), _source_files(name)
    try:
        for relative, path in sorted(files.items()):
            with open(path, "rb") as file:
                content = file.read()
            # The length keeps names and contents apart.
            head = f"{relative}\0{len(content)}\0"
            hashed.update(head.encode(errors="surrogateescape") + content)
    except OSError:
        return None
    return hashed.hexdigest() if files else None


def _source_files(name):
    """Paths of a module's source, or of its top package's, by relative name."""
    top = sys.modules.get(name.partition(".")[0])
    found = {}
    for root in getattr(top, "__path__", ()):
        for folder, folders, files in os.walk(root):
            folders[:] = [one for one in folders if not one.startswith(".")]
            for file in files:
                path = os.path.join(folder, file)
                found[os.path.relpath(path, root)] = path
    if not hasattr(top, "__path__"):
        path = getattr(sys.modules[name], "__file__", None) or ""
        found[os.path.basename(path)] = path
    return {
        relative.replace(os.sep, "/"): path
        for relative, path in found.items()
        if relative.endswith(".py") and os.path.isfile(path)
    }


def import_for(flag, name):
    """Imports a user's module; the current folder is searched too.

    Args:
      flag: the flag that names it, for messages.
      name: its dotted name.

    Raises:
      ConfigError: if it does not exist or fails on import.
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
    """How to name a file's module in a flag, and what is needed for it."""
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
    """The `ConfigError` for what a plug-in's code raised in use.

    The whole traceback is logged at debug level.

    Args:
      plugins: see `module_names`.
      error: an exception that was caught.

    Returns:
      An error that names the deepest line in a plug-in, or in a module of a
      package that is one; None if no such line is in the traceback.
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
    """The one-line `ConfigError` for what a user's code raised."""
    text = " ".join(str(error).split())
    return ConfigError(f"{what}: {type(error).__name__}: {text}")
