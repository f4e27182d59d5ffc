"""Recipes: flagfiles that come with the package, by their names."""

import itertools
import os
import pathlib

from meta_pseudo_labels.utils.registry import nearest
from meta_pseudo_labels.utils.settings import ConfigError

# In a checkout, a link to flags/; a wheel has its files here.
_FOLDER = pathlib.Path(__file__).resolve().parents[1] / "recipes"
_ENDING = ".flags"
_COMMENT = ("#", "//")
_REPEATED = ("callback", "plugin")  # Each time adds one; a test knows all.


def recipes():
    """The recipes, a dict from name to the path of the flagfile."""
    return {
        path.name.removesuffix(_ENDING): path
        for path in sorted(_FOLDER.glob(f"*{_ENDING}"))
    }


def describe(recipe):
    """A recipe's comment and flags as text.

    If a flag is set several times, the text has its last value; for flags that
    may be repeated, all of them.

    Args:
      recipe: its name, or the path of a flagfile.

    Raises:
      ConfigError: for a recipe that does not exist.
    """
    path = _path(recipe)
    flags = {}
    for place, flag in enumerate(_flags_of(path)):
        name, is_said, _ = flag.lstrip("-").partition("=")
        if name in _REPEATED or not flag.startswith("-"):
            name = place
        elif not is_said:
            name = name.removeprefix("no")
        flags.pop(name, None)
        flags[name] = flag
    return "\n".join([*_comment(path), *flags.values()])


def overview():
    """The recipes, each with the first sentence of its comment, as text."""
    lines = []
    for name, path in recipes().items():
        comment = " ".join(line.lstrip("#/ ") for line in _comment(path))
        comment = comment.replace(_ENDING, "").strip()
        lines.append(f"{name}: {comment.partition('. ')[0].rstrip('.')}.")
    return "\n".join(lines)


def _comment(path):
    """The lines of the comment that a flagfile begins with, and a blank one."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = [*itertools.takewhile(lambda x: x.startswith(_COMMENT), lines)]
    return [*comment, ""] if comment else []


def expand(arguments):
    """A command line with the flags of recipes and flagfiles for their names.

    Args:
      arguments: flags, among them --recipe=<name>, or --recipe=<path> of a
        flagfile, and --flagfile=<path>, which may name recipes too.

    Returns:
      The flags of recipes first, so that typed flags win, wherever they
      stand. Those of flagfiles stay where they stand, as absl has it.

    Raises:
      ConfigError: for a recipe or flagfile that does not exist.
    """
    typed, found, rest = [], [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return [*found, *typed, argument, *rest]
        flag, is_said, value = argument.partition("=")
        name = flag.removeprefix("-").removeprefix("-")
        if name == flag or name not in ("recipe", "flagfile"):
            typed.append(argument)
            continue
        if not is_said:
            if not rest:
                raise ConfigError(f"--{name} needs a name, or a file's path.")
            value = rest.pop(0)
        if name == "recipe":
            found += _flags_of(_path(value))
        else:
            typed += _flags_of(pathlib.Path(os.path.expanduser(value)))
    return [*found, *typed]


def _path(recipe):
    """The flagfile that a name or a path means."""
    try:
        path = pathlib.Path(recipe).expanduser()
        if path.is_file():
            return path
    except (OSError, RuntimeError) as error:  # Too long, or nobody's home.
        raise ConfigError(
            f"--recipe={recipe} is not a path: {error}."
        ) from error
    known = recipes()
    if recipe not in known:
        raise ConfigError(
            f"--recipe={recipe} is not a recipe{nearest(recipe, known)} or a "
            f"file; there are {', '.join(known)}."
        )
    return known[recipe]


def _flags_of(path, within=()):
    """The flags in a flagfile; others that it names are read too."""
    if path in within:
        raise ConfigError(f"The flagfile {path} includes itself.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"The flagfile {path} cannot be read: {why}."
        ) from error
    found = []
    for line in filter(None, map(str.strip, lines)):
        if line.startswith(_COMMENT):
            continue
        flag, _, value = line.partition("=")
        if flag.lstrip("-") == "recipe":
            found += _flags_of(_path(value), (*within, path))
        elif flag.lstrip("-") == "flagfile":
            found += _flags_of(_included(value, path), (*within, path))
        else:
            found.append(line)
    return found


def _included(name, path):
    """The flagfile that another one, at `path`, names.

    Recipes name one another by flags/<name>, which a wheel does not have. For
    other files, absl's rule, the current folder, comes first.
    """
    named = pathlib.Path(os.path.expanduser(name))
    ours = _FOLDER / named.name
    is_ours = named.parent.name == "flags" and ours.is_file()
    if is_ours and path.parent.resolve() == _FOLDER.resolve():
        return ours
    for place in (named, path.parent / named):
        if place.is_file():
            return place
    return ours if is_ours else named
