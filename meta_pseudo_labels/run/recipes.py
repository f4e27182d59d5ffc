"""Recipes: flagfiles that travel with the package, by their names."""

import pathlib

from meta_pseudo_labels.utils.registry import nearest
from meta_pseudo_labels.utils.settings import ConfigError

# In a checkout a link to flags/, whose files a wheel has here.
_FOLDER = pathlib.Path(__file__).resolve().parents[1] / "recipes"
_ENDING = ".flags"


def recipes():
    """The recipes, a dict from name to the path of the flagfile."""
    return {
        path.name.removesuffix(_ENDING): path
        for path in sorted(_FOLDER.glob(f"*{_ENDING}"))
    }


def expand(arguments):
    """A command line in which the flags of a recipe stand in its place.

    Args:
      arguments: flags, among them --recipe=<name>, or --recipe=<path> of a
        flagfile.

    Returns:
      The flags in their order, so that later ones win.

    Raises:
      ConfigError: for a recipe that is not there.
    """
    expanded, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return [*expanded, argument, *rest]
        flag, is_said, value = argument.partition("=")
        if flag not in ("--recipe", "-recipe"):
            expanded.append(argument)
            continue
        if not is_said:
            if not rest:
                raise ConfigError("--recipe needs a name, or a file's path.")
            value = rest.pop(0)
        expanded += _flags_of(_path(value))
    return expanded


def _path(recipe):
    """The flagfile that a name or a path means."""
    path = pathlib.Path(recipe).expanduser()
    if path.is_file():
        return path
    known = recipes()
    if recipe not in known:
        raise ConfigError(
            f"--recipe={recipe} is no recipe{nearest(recipe, known)} and no "
            f"file; there are {', '.join(known)}."
        )
    return known[recipe]


def _flags_of(path):
    """The flags in a flagfile; others that it names are read too."""
    lines = map(str.strip, path.read_text(encoding="utf-8").splitlines())
    found = []
    for line in lines:
        if not line.startswith("-"):  # A comment, or nothing.
            continue
        flag, _, value = line.partition("=")
        if flag.lstrip("-") != "flagfile":
            found.append(line)
            continue
        # By absl's rule from the present folder; a recipe's lie beside it.
        beside = path.parent / pathlib.Path(value).name
        found += _flags_of(beside if beside.is_file() else pathlib.Path(value))
    return found
