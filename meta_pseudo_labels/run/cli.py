"""The command `mpl`: a word for what to do, then the flags of main.py.

    mpl train --recipe=digits_mpl --output_dir=runs/mpl
    mpl eval --output_dir=runs/mpl
    mpl compare runs/mpl runs/uda
    mpl serve --saved_model=runs/mpl/saved_model

Exit status: 0, done; 1, a setting, file or run cannot be used, and a message
says why; 75, a signal or the loss of another worker ended training, its state
is saved, and the same command goes on.
"""

import argparse
import os
import pathlib
import re
import sys

from meta_pseudo_labels.run import json_lines
from meta_pseudo_labels.run.flag_table import refuse
from meta_pseudo_labels.run.recipes import (
    describe,
    expand,
    overview,
    recipes,
)
from meta_pseudo_labels.utils.plugins import load_plugins
from meta_pseudo_labels.utils.quiet import quiet_start
from meta_pseudo_labels.utils.registry import nearest
from meta_pseudo_labels.utils.settings import (
    WORDS,
    ConfigError,
    check_address,
    check_picture_folder,
)
from meta_pseudo_labels.utils.signals import end_on_signals

_OTHER_WORDS = {word: mode for mode, word in WORDS.items()}
_STAGE = re.compile(
    r'^@STAGES\.register\("(\w+)"\)\nclass \w+\(\w+\):\n    help = "(.*)"$',
    re.MULTILINE,
)
_COMPARE = "Write compare.html: several runs on one page; mpl compare --help."
_SERVE = "Serve an exported model over HTTP; mpl serve --help."
_RECIPE = "Print a recipe's settings (mpl recipe NAME), or list the recipes."


def main():
    """The console script: `mpl <word> --flags`, or the flags alone."""
    end_on_signals()
    program, *typed = sys.argv
    if not typed or typed[0] in ("-h", "--help", "help"):
        print(usage())
    elif typed[0] == "serve":
        serve(typed[1:])
    elif typed[0] == "compare":
        compare(typed[1:])
    elif typed[0] == "recipe":
        show_recipe(typed[1:])
    elif typed[0].startswith("-"):
        run(program, typed)
    else:
        try:
            mode = _task_mode(typed[0], typed[1:])
        except ConfigError as error:
            sys.exit(f"Error: {error}")
        run(program, typed[1:], task_mode=mode)


def run(program, typed, *, task_mode=None):
    """Runs `task_mode`, or the one in the flags; see `command.start`."""
    with json_lines.ends_in_json():
        _run(program, typed, task_mode)


def _run(program, typed, task_mode):
    try:
        if _values("log_format", typed)[-1:] == ["json"]:
            json_lines.begin()
        arguments = expand(typed)
        if _values("log_format", arguments)[-1:] == ["json"]:
            json_lines.begin()
        names = (a.partition("=")[0].lstrip("-") for a in arguments)
        for name in dict.fromkeys(names):
            check_address(name, _last(name, arguments))
        check_picture_folder(
            _last("inference_dir", arguments),
            _last("inference_data", arguments),
        )
        refuse(program, arguments, task_mode=task_mode)
    except ConfigError as error:
        sys.exit(f"Error: {error}")
    with quiet_start():
        from meta_pseudo_labels.run import command
    command.start(program, arguments, typed=typed, task_mode=task_mode)


def serve(arguments):
    """Starts the small server, which loads neither Keras nor the rest."""
    from meta_pseudo_labels.export.serving.__main__ import main

    sys.argv = ["mpl serve", *arguments]
    main()


def compare(arguments):
    """Writes a page that compares the named runs."""
    parser = argparse.ArgumentParser(
        prog="mpl compare",
        description="Several runs on one page; those that differ only in the "
        "seed are grouped.",
    )
    parser.error = lambda message: sys.exit(f"Error: {message}.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder")
    parser.add_argument("--output", default="compare.html", help="the page")
    parsed = parser.parse_args(arguments)
    output = os.path.expanduser(parsed.output)  # Shells leave --output=~/x.
    with quiet_start():
        from meta_pseudo_labels.run.pages.compare import write_comparison
    try:
        lines = write_comparison(parsed.runs, output)
    except ConfigError as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        where = error.filename or output
        sys.exit(f"Error: {where}: {error.strerror}.")
    print("\n".join(lines))
    print(f"Compared: {output}")


def show_recipe(arguments):
    """Prints the settings of a recipe, or what recipes there are."""
    parser = argparse.ArgumentParser(prog="mpl recipe", description=_RECIPE)
    parser.error = lambda message: sys.exit(f"Error: {message}.")
    parser.add_argument(
        "name", nargs="?", help="recipe, or the path of a flagfile"
    )
    name = parser.parse_args(arguments).name
    try:
        print(overview() if name is None else describe(name), flush=True)
    except ConfigError as error:
        sys.exit(f"Error: {error}")
    except BrokenPipeError:  # Its reader, such as head, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def usage():
    """How to use the command, as text for a terminal."""
    lines = _words(task_modes())
    width = max(map(len, lines))
    commands = "".join(
        f"  {word:{width}s}  {what}\n" for word, what in lines.items()
    )
    return (
        "mpl <command> --output_dir=<folder of the run> [--flag=value ...]\n\n"
        f"{commands}\n"
        f"Recipes, for --recipe=<name>: {', '.join(recipes())}.\n"
        "Flags of a command, then all others: mpl <command> --help. A flag's "
        "default is the release's."
    )


def task_modes():
    """The help of each task mode of the package, a dict by name.

    Read from the files of the stages: importing them would load TensorFlow.
    """
    folder = pathlib.Path(__file__).parent / "stages"
    return dict(
        found.groups()
        for path in sorted(folder.glob("[a-z]*.py"))
        for found in _STAGE.finditer(path.read_text(encoding="utf-8"))
    )


def _words(modes):
    """Possible first words and what they do, from the task modes' help."""
    words = dict(modes)
    words |= {word: words.pop(mode) for word, mode in _OTHER_WORDS.items()}
    return words | {"compare": _COMPARE, "serve": _SERVE, "recipe": _RECIPE}


def _task_mode(word, arguments):
    """The task mode that the first word means.

    Raises:
      ConfigError: with the nearest words, if it means none.
    """
    mode, known = _OTHER_WORDS.get(word, word), task_modes()
    if any(a.lstrip("-").startswith("task_mode") for a in arguments):
        raise ConfigError(
            f"mpl {word} names the task mode already; leave out --task_mode."
        )
    plugins = [] if mode in known else _plugins(arguments)
    if plugins:  # One of them may register it.
        from meta_pseudo_labels.run.stages import STAGES

        load_plugins(",".join(plugins))
        known |= STAGES.registered
    if mode not in known:
        words = _words(known)
        raise ConfigError(
            f"mpl {word}: there is no such command{nearest(word, words)}; use "
            f"one of {', '.join(words)}."
        )
    return mode


def _plugins(arguments):
    """The plug-ins of a command line and of the run that it names."""
    given = _values("plugin", arguments)
    folder = os.path.expanduser((_values("output_dir", arguments) or [""])[-1])
    if os.path.isdir(folder):  # Otherwise TensorFlow need not load.
        with quiet_start():
            from meta_pseudo_labels.run.folder import RunFolder
        given.insert(0, RunFolder(folder).settings().get("plugins"))
    return list(filter(None, given))


def _last(name, arguments):
    """The value of a flag that counts; empty if it is not given."""
    return (_values(name, arguments) or [""])[-1]


def _values(name, arguments):
    """The values of a flag on a command line, written in either way."""
    values = []
    for index, argument in enumerate(arguments):
        flag, is_said, value = argument.partition("=")
        if flag not in (f"--{name}", f"-{name}"):
            continue
        values += [value] if is_said else arguments[index + 1 :][:1]
    return values
