"""The README's table of results, from the rows of control runs."""

import re

import control_tables
from control_rows import TEST

DATASET, LABELS = "digits", 40
_TABLE = re.compile(
    r"(?<=<!-- results -->\n).*?(?=<!-- end of results -->)", re.S
)
_NAMES = {
    "supervised": "supervised",
    "supervised + RandAugment": "supervised, strong views",
    "pseudo labels": "pseudo labels of a fixed teacher",
    "uda": "UDA",
}


def with_table(text, tables, *, runs):
    """The README's text with a new table between its marks.

    Args:
      text: of the README.
      tables: {(labels, split): {run: {seed: row}}} of `DATASET`.
      runs: all names of its suite; see `control_tables.differences`.
    """
    table = as_markdown(tables.get((LABELS, TEST), {}), runs=runs)
    text, count = _TABLE.subn(lambda _: table, text)
    if count != 1:
        raise ValueError(f"The README has {count} places for results, not one.")
    return text


def as_markdown(groups, *, runs):
    """Accuracies, and what each run has over UDA and over supervised."""
    found = {
        (one.run, one.other): control_tables.interval(one.points)
        for one in control_tables.differences(groups, runs=runs)
    }
    lines = ["| | student | finetuned | teacher | over UDA | over supervised |"]
    lines.append("|---" * 6 + "|")
    for run, group in groups.items():
        cells = [
            _NAMES.get(run) or f"MPL, feedback `{run.removeprefix('mpl ')}`",
            *control_tables.cells(group),
            *(found.get((run, other), "") for other in ("uda", "supervised")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
