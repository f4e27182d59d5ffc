"""Tables of results in a terminal, and numbers with their errors."""

import itertools
import math
import numbers

# How numbers are written, by column of a results table.
NUMBER_FORMATS = {
    "test_accuracy": "{:.1%}",
    "seconds": "{:.0f}",
    **dict.fromkeys(("top-1", "top-5", "validation top-1"), "{:.4f}"),
    **dict.fromkeys(("ECE", "nll"), "{:.4f}"),
    "images/s": "{:,.0f}",
}


def text_table(rows, *, to_the_right=()):
    """Returns dicts as an aligned text table, one line each.

    The columns are the keys in order of appearance; numbers are right-aligned,
    and cells that a row lacks stay empty.

    Args:
      rows: dicts.
      to_the_right: text columns to right-align too.
    """
    columns = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    lines = [[column.replace("_", " ") for column in columns]]
    lines += [[_cell(row, column) for column in columns] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    right_set = [
        column in to_the_right
        or all(isinstance(row.get(column, 0), numbers.Real) for row in rows)
        for column in columns
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, right_set, strict=True)
        ).rstrip()
        for line in lines
    )


def _cell(row, column):
    value = row.get(column, "")
    if isinstance(value, numbers.Real):
        return NUMBER_FORMATS.get(column, "{:g}").format(value)
    return " ".join(str(value).splitlines())


def with_error_of(numbers, key):
    """A cell of `numbers[key]` and its "<key>_error", see `with_error`."""
    return with_error(numbers.get(key), numbers.get(f"{key}_error"))


def with_error(value, error, *, digits=3):
    """A value with its standard error: "-2743 ± 209", "0.071 ± 0.021".

    Args:
      value: a number, or None, which gives an empty string.
      error: its standard error, written with two digits; None if it is not
        known.
      digits: largest number of decimals; without an error, of significant
        digits.
    """
    if value is None:
        return ""
    if error is None:
        return f"{float(f'{value:.{digits}g}'):g}"
    first = math.floor(math.log10(error)) if error > 0 else -digits
    places = min(max(1 - first, 0), digits)
    return f"{value:.{places}f} ± {error:.{places}f}"
