"""The files of predictions: complete or absent, with a part for every block.

    predictions-of-00004.json               what they are predictions of
    predictions-00001-of-00004.parts/       parts, until all are there
    predictions-00001-of-00004.csv          the rows of one process
    predictions-00001-of-00004.parquet      the same

A part is a Parquet file that appears complete under the number of its block;
the two files are joined from all parts and appear complete too. So a row exists
once, or its block is still to be done.
"""

import contextlib
import functools
import glob
import json
import os
import re

import pyarrow as pa
from pyarrow import compute, csv, parquet

from meta_pseudo_labels.utils.deleting import delete
from meta_pseudo_labels.utils.files import (
    FORMULA,
    SCRATCH,
    read_object,
    replaces,
    write_whole,
)
from meta_pseudo_labels.utils.settings import ConfigError

_PARTS = ".parts"
_PART = re.compile(rf"\d{{8,}}\.parquet({re.escape(SCRATCH)})?")


class PredictionFiles:
    """The files of one process.

    Args:
      folder: created if missing.
      name: what the names of the files begin with.
      index: of the process, from 0.
      shards: how many processes there are.
      schema: of the rows, see `rows.row_schema`.
    """

    def __init__(self, folder, *, name, index, shards, schema):
        self.schema = schema
        stem = os.path.join(folder, f"{name}-{index:05d}-of-{shards:05d}")
        self.csv = f"{stem}.csv"
        self.parquet = f"{stem}.parquet"
        self.parts = f"{stem}{_PARTS}"
        self._settings = os.path.join(folder, f"{name}-of-{shards:05d}.json")
        self._of_all = os.path.join(
            glob.escape(folder), f"{glob.escape(name)}-?????-of-{shards:05d}.*"
        )

    def claim(self, settings):
        """Records what the files, also of other processes, are predictions of.

        Args:
          settings: a dict for JSON.

        Raises:
          ConfigError: if there are files of other predictions, or of unknown
            ones.
        """
        # Listed first: a process that starts now writes its settings first.
        found = [
            path
            for path in sorted(glob.glob(self._of_all))
            if path.endswith((".csv", ".parquet"))
            or (path.endswith(_PARTS) and _part_names(path))
        ]
        if os.path.exists(self._settings):
            self._check_same(settings)
            return
        if found:
            raise ConfigError(
                f"{found[0]} exists, but not {self._settings}, which says "
                "what it holds predictions of. Delete the files of these "
                "predictions, or name others with --inference_name."
            )
        os.makedirs(os.path.dirname(self._settings), exist_ok=True)
        write_whole(self._settings, json.dumps(settings, indent=2) + "\n")

    def _check_same(self, settings):
        before = read_object(
            self._settings,
            "what its files are predictions of",
            mend="Delete it and them, or name others with --inference_name.",
        )
        changed = [
            f"{key} {before.get(key)}, now {settings.get(key)}"
            for key in {**before, **settings}
            if before.get(key) != settings.get(key)
        ]
        if changed:
            raise ConfigError(
                f"{self._settings} is of other predictions: "
                f"{'; '.join(changed)}. Name other files with "
                f"--inference_name, or delete it and {self._of_all}."
            )

    def is_finished(self):
        return os.path.exists(self.csv) and os.path.exists(self.parquet)

    def has_part(self, block, rows):
        """Whether a readable part with this number of rows exists."""
        path = self._part(block)
        if not os.path.exists(path):
            return False
        try:
            return parquet.read_table(path).num_rows == rows
        except (OSError, pa.ArrowException):
            return False  # A machine failure left it, not a kill.

    def write_part(self, block, table):
        path = self._part(block)
        # Nobody else writes to the folder, and it may hold many parts to list.
        with (
            replaces(path, scratch=f"{path}{SCRATCH}") as scratch,
            open(scratch, "wb") as file,
        ):
            parquet.write_table(table, file, use_dictionary=["class"])

    def join(self, blocks, settings):
        """Joins parts 0 to blocks - 1 into the two files.

        Args:
          blocks: how many parts there are.
          settings: see `claim`. If two processes claimed at the same time,
            only one did so for both.

        Raises:
          ConfigError: see `claim`.
        """
        self._check_same(settings)
        in_parquet = functools.partial(
            parquet.ParquetWriter, use_dictionary=["class"]
        )
        for path, writer in (
            (self.csv, csv.CSVWriter),
            (self.parquet, in_parquet),
        ):
            # The parts that they are joined from are removed next.
            with (
                replaces(path) as scratch,
                open(scratch, "wb") as file,
                writer(file, self.schema) as out,
            ):
                for block in range(blocks):
                    rows = parquet.read_table(self._part(block))
                    out.write_table(
                        _text_alone(rows) if path == self.csv else rows
                    )

    def has_parts(self):
        return os.path.isdir(self.parts)

    def remove_parts(self):
        """Removes the parts; files that are not ours stay."""
        names = _part_names(self.parts)
        delete(*[os.path.join(self.parts, name) for name in names])

    def remove_empty(self):
        """Removes the folder of the parts, unless it is in use again."""
        with contextlib.suppress(OSError):
            os.rmdir(self.parts)

    def counts(self):
        """Number of rows in the finished files, and how many have an error."""
        errors = parquet.read_table(self.parquet, columns=["error"])["error"]
        return len(errors), len(errors) - errors.null_count

    def _part(self, block):
        return os.path.join(self.parts, f"{block:08d}.parquet")


def _part_names(folder):
    """Of the parts in a folder, which another process may remove just now."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return list(filter(_PART.fullmatch, os.listdir(folder)))
    return []


def _text_alone(rows):
    """The rows with an apostrophe before what a spreadsheet would compute.

    A spreadsheet takes a CSV cell that begins like a formula for one, whoever
    chose the name of an image or a class.
    """
    for place, field in enumerate(rows.schema):
        if field.type == pa.string():
            cells = rows[field.name].combine_chunks()
            quoted = compute.if_else(
                compute.match_substring_regex(cells, FORMULA),
                compute.binary_join_element_wise("'", cells, ""),
                cells,
            )
            rows = rows.set_column(place, field, quoted)
    return rows
