"""The rooms of the package: files, lines of code, and what each imports.

    python -m benchmarks.rooms.run

Lines of code are those that hold a token: no comments, docstrings, blanks. An
import from a room above, or a cycle, is reported and ends it with status 1;
`make lint` enforces the same as a contract.
"""

import ast
import collections
import importlib.util
import io
import pathlib
import subprocess
import sys
import tokenize

import grimp

PACKAGE = "meta_pseudo_labels"
# From the top down; rooms in the same row do not know each other.
LAYERS = (
    ("run",),
    ("evaluation",),
    ("export", "release"),
    ("learners",),
    ("data", "models"),
    ("distribute", "optimizers"),
    ("utils",),
)
HEIGHTS = {
    room: height
    for height, rooms in enumerate(reversed(LAYERS))
    for room in rooms
}
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(text):
    """Number of lines of a module that hold code."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    documented = (
        ast.Module,
        ast.ClassDef,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
    )
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=0):
            docstring = node.body[0]
            lines -= set(range(docstring.lineno, docstring.end_lineno + 1))
    return len(lines)


def rooms():
    """{room: (files, code lines, rooms that it imports)}."""
    spec = importlib.util.find_spec(PACKAGE)
    folder = pathlib.Path(spec.origin).parent
    files, lines = collections.Counter(), collections.Counter()
    for path in folder.rglob("*.py"):
        room = path.relative_to(folder).parts[0].removesuffix(".py")
        files[room] += 1
        lines[room] += code_lines(path.read_text(encoding="utf-8"))
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    imported = collections.defaultdict(set)
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            one, two = (_room(name) for name in (module, other))
            if one != two and two in HEIGHTS:
                imported[one].add(two)
    return {
        room: (files[room], lines[room], sorted(imported[room]))
        for room in files
    }


def upward(found):
    """Forbidden imports, pairs of (room, imported room)."""
    return [
        (room, other)
        for room, (_, _, imported) in found.items()
        for other in imported
        if room in HEIGHTS and HEIGHTS[other] >= HEIGHTS[room]
    ]


def loaded_by(module):
    """How many modules of the package an import loads, in a new process."""
    code = (
        f"import sys, {PACKAGE}.{module}; "
        f"print(sum(m.startswith('{PACKAGE}') for m in sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(process.stdout)


def _room(module):
    return module.split(".")[1] if "." in module else ""


def main():
    found = rooms()
    print(f"{'room':12s} {'files':>5s} {'code':>6s}  imports")
    for room in [r for layer in LAYERS for r in layer]:
        files, lines, imported = found[room]
        print(f"{room:12s} {files:5d} {lines:6,d}  {', '.join(imported)}")
    files, lines = (
        sum(numbers[k] for numbers in found.values()) for k in (0, 1)
    )
    print(f"{'all':12s} {files:5d} {lines:6,d}  including files outside rooms")
    for module in ("learners", "run.config"):
        print(f"import {PACKAGE}.{module}: {loaded_by(module)} modules")
    wrong = upward(found)
    for room, other in wrong:
        print(f"Upward: {room} imports {other}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
