"""The README's table of results, from the rows of control runs."""

from benchmarks.common.documents import with_part
from benchmarks.controls import tables as control_tables
from benchmarks.controls.rows import TEST

DATASET, LABELS = "digits", 40
HEADING = (
    *("", "student", "finetuned", "teacher"),
    *("over UDA", "over supervised"),
)
_COLUMNS = (control_tables.UDA, control_tables.SUPERVISED)
_NAMES = {
    "supervised": "supervised",
    "supervised + RandAugment": "supervised, strong views",
    "pseudo labels": "pseudo labels of a fixed teacher",
    "uda": "UDA",
    "mpl off, sampled labels": "MPL, feedback `off`, sampled labels",
}


def with_table(text, tables, *, runs):
    """The README's text with a new table between its marks.

    Args:
      text: of the README.
      tables: {(labels, split): {run: {seed: row}}} of `DATASET`.
      runs: {name: `suite.Run`} of its suite.
    """
    table = as_markdown(tables.get((LABELS, TEST), {}), runs=runs)
    return with_part(text, "results", table)


def as_markdown(groups, *, runs):
    """Accuracies, and the gain of each run over UDA and over supervised."""
    found = {
        (one.run, one.column): control_tables.interval(one.points)
        for one in control_tables.differences(groups, runs=runs)
    }
    lines = [
        [
            _NAMES.get(run) or f"MPL, feedback `{runs[run].feedback}`",
            *control_tables.cells(group),
            *(found.get((run, column), "") for column in _COLUMNS),
        ]
        for run, group in groups.items()
        if run in _NAMES
        or runs[run].feedback  # The others are in docs/results.md.
    ]
    return control_tables.markdown(HEADING, lines) + "\n"
