"""Names of a package that are imported when they are first used.

So `import meta_pseudo_labels` takes no time, and the small server loads neither
Keras nor the rest, which it does not need.
"""

import importlib


def attach(package, names):
    """What a package's `__init__` must define to be lazy (PEP 562).

        __getattr__, __dir__ = attach(__name__, {"Config": "run.config"})

    Args:
      package: its dotted name.
      names: a dict from each public name to the module that defines it,
        relative to the package (".shares" is beside it). A name equal to the
        last part of its module is the module itself, unless the module defines
        that name too.

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
