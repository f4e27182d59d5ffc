"""What the code of an estimator uses, found without running it."""

import contextlib
import functools
import inspect

_DERIVATIVES = {"label_gradient", "first_order_change"}


def differentiates(function):
    """Whether an estimator needs the derivative of the student's update.

    By its own `differentiates`, or by the names in its code and in that of the
    functions it uses, so that an optimizer without this derivative is refused
    before any step.

    Args:
      function: an estimator, or anything that can be called like one.
    """
    return any(
        getattr(one, "differentiates", False) is True or names & _DERIVATIVES
        for one, names in reached(function)
    )


def reached(function):
    """Yields an estimator and what it uses, each with the names in its code."""
    todo, seen = [function], set()
    while todo:
        one = todo.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        code = getattr(one, "__code__", None)
        names = _names_in(code) if code else set()
        yield one, names
        todo += _callables_in(_used_by(one, names))


def _names_in(code):
    """The names that a function's code, and code within it, uses."""
    inner = [c for c in code.co_consts if hasattr(c, "co_names")]
    return set(code.co_names).union(*map(_names_in, inner))


def _used_by(one, names):
    """What a callable holds, or has by these names, as a list."""
    if isinstance(one, functools.partial):
        return [one.func, *one.args, *one.keywords.values()]
    if inspect.ismethod(one):
        return [one.__func__, *_attributes(one.__self__)]
    found = [getattr(one, "__wrapped__", None)]  # Of a tf.function too.
    if not inspect.isfunction(one):
        return [*found, type(one).__call__, *_attributes(one)]
    found += _contents_of(one.__closure__ or ())
    found += [*(one.__defaults__ or ()), *(one.__kwdefaults__ or {}).values()]
    scope = one.__globals__
    found += [scope[name] for name in sorted(names) if name in scope]
    for module in [x for x in found if inspect.ismodule(x)]:
        found += [vars(module)[n] for n in sorted(names) if n in vars(module)]
    return found


def _contents_of(cells):
    """What a closure holds; nothing yet for a name that is assigned later."""
    contents = []
    for cell in cells:
        with contextlib.suppress(ValueError):  # Raised by an empty cell.
            contents.append(cell.cell_contents)
    return contents


def _attributes(thing):
    return [*vars(thing).values()] if hasattr(thing, "__dict__") else []


def _callables_in(found):
    """Those that may be estimators or helpers, also in lists and dicts."""
    for x in list(found):
        if isinstance(x, list | tuple):
            found += x
        elif isinstance(x, dict):
            found += x.values()
    libraries = ("tensorflow", "keras", "numpy", "builtins")
    return [
        x
        for x in found
        if callable(x)
        and not inspect.isclass(x)
        and (
            hasattr(x, "__wrapped__")
            or not (getattr(x, "__module__", "") or "").startswith(libraries)
        )
    ]
