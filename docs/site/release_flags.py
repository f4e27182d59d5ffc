"""Writes release_flags.csv, the defaults of the release's flags.

    python docs/site/release_flags.py ../shared/reference/release_flags.json

That file is not part of this repository, so its part for the page of flags is
kept beside this script.
"""

import csv
import json
import pathlib
import sys

TABLE = pathlib.Path(__file__).with_suffix(".csv")


def rows(release):
    """A row for each flag: its name, its default, and what is odd about it.

    Args:
      release: what release_flags.json holds.
    """
    for flag in release["flags"]:
        odd = "" if flag["read_by_release"] else "never read"
        yield flag["name"], json.dumps(flag["default"]), odd
    for flag in release["undefined_in_release"]:
        yield flag["name"], "null", "undefined"


def main(path):
    release = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    with open(TABLE, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("flag", "default", "odd"))
        writer.writerows(rows(release))


if __name__ == "__main__":
    main(*sys.argv[1:])
