"""Shared parts of the benchmarks' command lines and reports."""

import argparse
import json
import os
import pathlib


def positive(text):
    """Parses an integer of at least 1; a `type` for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


def absolute(text):
    """The absolute path, which holds in any folder; no text stays no text."""
    return text and os.path.abspath(os.path.expanduser(text))


def benchmark_parser(doc, numbers=()):
    """A parser with the flag --json, the file to write.

    Args:
      doc: docstring of the benchmark; its first line is the description.
      numbers: (name, default, help) of flags for integers of at least 1.
    """
    parser = argparse.ArgumentParser(
        description=doc.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    for name, default, meaning in numbers:
        parser.add_argument(
            f"--{name}", type=positive, default=default, help=meaning
        )
    return parser


def parsed(parser):
    """The settings of the command line; checks that --json can be written."""
    settings = parser.parse_args()
    if settings.json and not settings.json.absolute().parent.is_dir():
        parser.error(f"--json: no directory {settings.json.parent}")
    return settings


def recorded(settings, *, without=()):
    """Settings as a report has them: a dict for JSON, without --json."""
    return {
        name: str(value) if isinstance(value, pathlib.Path) else value
        for name, value in vars(settings).items()
        if name not in ("json", *without)
    }


def write_report(report, path):
    """Writes a dict as JSON, unless the path is None."""
    if path:
        path.write_text(json.dumps(report, indent=2) + "\n")
