"""Objects of one kind by name, each registered in the file that defines it.

    LEARNERS = Registry("method", package="meta_pseudo_labels.learners")

    @LEARNERS.register("fixmatch")
    class FixMatch(Learner): ...

Files in the package are found automatically, without a list. A plug-in
registers from outside, see `plugins`.
"""

import collections.abc
import difflib
import importlib
import pkgutil
import threading


class UnknownName(KeyError, ValueError):
    """Nothing is registered under this name; the message has similar names."""

    def __str__(self):  # Not in quotes, unlike that of a KeyError.
        return self.args[0]


class Registry(collections.abc.Mapping):
    """A mapping from names to what was registered under them.

    Args:
      kind: what to call one object in messages, such as "method".
      package: dotted name of the package whose modules register; they are
        imported when the first name is looked up. None if there is none.
      without: names of its modules that register nothing and need not be
        imported.
    """

    def __init__(self, kind, *, package=None, without=()):
        self.kind = kind
        self._package = package
        self._without = without
        self._found = {}
        self._lock = threading.RLock()
        self._discovering = False

    def register(self, name):
        """A decorator that registers what it decorates, and returns it.

        If the same object is defined again, by a notebook's cell or a reloaded
        module, the new definition replaces the old one.

        Raises:
          ValueError: if the name is taken by something else.
        """

        def add(thing):
            if not (getattr(thing, "__module__", None) or "").startswith(
                f"{self._package}."
            ):
                self.discover()  # Our own names come before a plug-in's.
            present = self._found.get(name, thing)
            if place(present) != place(thing):
                raise ValueError(
                    f"The {self.kind} {name!r} is {place(present)} already; "
                    f"register {place(thing)} under another name."
                )
            self._found[name] = thing
            return thing

        return add

    def __getitem__(self, name):
        """What was registered under a name.

        Raises:
          UnknownName: with the most similar names.
        """
        self.discover()
        if name not in self._found:
            raise UnknownName(
                f"Unknown {self.kind} {name!r}{nearest(name, self._found)}; "
                f"use one of {tuple(self._found)}."
            )
        return self._found[name]

    def __contains__(self, name):
        self.discover()
        return name in self._found

    def __iter__(self):
        self.discover()
        return iter(tuple(self._found))

    def __len__(self):
        self.discover()
        return len(self._found)

    @property
    def registered(self):
        """A dict of what was registered so far; imports nothing."""
        return dict(self._found)

    def discover(self):
        """Imports the modules of the package, so that all register."""
        with self._lock:
            # Once, even if one of the modules asks while it is imported.
            if self._package is None or self._discovering:
                return
            self._discovering = True
            try:
                package = importlib.import_module(self._package)
                for module in pkgutil.iter_modules(package.__path__):
                    if module.name not in self._without:
                        importlib.import_module(
                            f"{self._package}.{module.name}"
                        )
            finally:
                self._discovering = False
            self._package = None
            # In an order that does not depend on the order of imports.
            self._found = dict(sorted(self._found.items(), key=_module_of))


def nearest(name, names):
    """The end of a message, " (did you mean ...?)"; empty if none is near."""
    by_case = {known.lower(): known for known in map(str, names)}
    near = difflib.get_close_matches(str(name).lower(), by_case, n=3)
    if not near:
        return ""
    return f" (did you mean {' or '.join(by_case[n] for n in near)}?)"


def _module_of(item):
    return getattr(item[1], "__module__", None) or ""


def place(thing):
    """Where a class or function was defined; otherwise its repr."""
    module = getattr(thing, "__module__", None)
    name = getattr(thing, "__qualname__", None)
    return f"{module}.{name}" if module and name else repr(thing)
