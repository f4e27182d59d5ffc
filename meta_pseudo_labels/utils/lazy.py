"""Names of a package that are imported when they are first used.

So `import meta_pseudo_labels` takes no time, and the small server, which needs
neither Keras nor the rest, loads neither.
"""

import importlib


def attach(package, names):
    """What a package's `__init__` defines to be lazy (PEP 562).

        __getattr__, __dir__ = attach(__name__, {"Config": "run.config"})

    Args:
      package: its dotted name.
      names: a dict from each public name to the module that has it, relative
        to the package (".shares" is beside it); the last part of that name is
        the module itself, unless the module defines it too.

    Returns:
      The functions `__getattr__` and `__dir__` of the package.
    """

    def get(name):
        if name not in names:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}"
            )
        module = importlib.import_module(f".{names[name]}", package)
        if names[name].rpartition(".")[2] == name:
            return getattr(module, name, module)
        return getattr(module, name)

    return get, lambda: sorted(names)
