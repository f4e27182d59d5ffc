"""Files of predictions: whose they are, and what a spreadsheet reads."""

import numpy as np
import pytest
from pyarrow import csv, parquet

from meta_pseudo_labels.run.inference.files import PredictionFiles
from meta_pseudo_labels.run.inference.rows import row_schema, row_table
from meta_pseudo_labels.utils.settings import ConfigError

NAMES = [
    "=1+1.png",
    "+a",
    "-b",
    "@c",
    "\td",
    " =2",
    "＝3",
    "plain=.png",
    "é",
    "'e",
]


def test_no_cell_is_a_formula_and_parquet_has_what_was_said(tmp_path):
    classes = ["=cmd|' /C calc'!A0", "cat"]
    schema = row_schema(classes)
    files = PredictionFiles(
        str(tmp_path), name="p", index=0, shards=1, schema=schema
    )
    rows = row_table(
        schema,
        class_names=classes,
        names=NAMES,
        reasons={1: "-broken", 2: "cut off"},
        probabilities=np.tile(np.float32([0.75, 0.25]), (len(NAMES), 1)),
        class_id=None,
    )
    files.claim({})
    (tmp_path / "p-00000-of-00001.parts").mkdir()
    files.write_part(0, rows)
    files.join(1, {})
    found = csv.read_csv(files.csv).to_pydict()
    assert found["image"] == [
        *(f"'{name}" for name in NAMES[:7]),
        *NAMES[7:],
    ]
    assert found["error"][:4] == ["", "'-broken", "cut off", ""]
    assert found["class"][0] == f"'{classes[0]}"
    assert found["probability"][0] == 0.75
    assert parquet.read_table(files.parquet).equals(rows)


def test_only_parts_are_removed(tmp_path):
    files = PredictionFiles(
        str(tmp_path), name="p", index=0, shards=1, schema=row_schema(["a"])
    )
    parts = tmp_path / "p-00000-of-00001.parts"
    parts.mkdir()
    for name in ("00000000.parquet", "00000001.parquet.part", "notes", "lock"):
        (parts / name).write_text("")
    files.remove_parts()
    assert sorted(p.name for p in parts.iterdir()) == ["lock", "notes"]


@pytest.mark.parametrize("left", ["csv", "parquet", "parts"])
def test_files_of_unknown_predictions_are_refused(tmp_path, left):
    """Otherwise rows of two networks would stand in one table."""
    files = PredictionFiles(
        str(tmp_path), name="p", index=0, shards=2, schema=row_schema(["a"])
    )
    other = tmp_path / f"p-00001-of-00002.{left}"
    if left == "parts":
        other.mkdir()
        other /= "00000000.parquet"
    other.write_text("")
    with pytest.raises(ConfigError, match="exists, but not .*p-of-00002.json"):
        files.claim({"weights_digest": "new"})
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [other]


def test_files_of_others_are_in_nobody_s_way(tmp_path):
    for name in (
        "p-00000-of-00001.csv",  # Of another number of processes.
        "q-00000-of-00002.csv",
        "p-q-00000-of-00002.csv",
        "p-of-00002.json.0123abcd-12.part",  # Of a process that starts now.
    ):
        (tmp_path / name).write_text("")
    (tmp_path / "p-00001-of-00002.parts").mkdir()
    (tmp_path / "p-00001-of-00002.parts" / "lock").write_text("")
    files = PredictionFiles(
        str(tmp_path), name="p", index=0, shards=2, schema=row_schema(["a"])
    )
    files.claim({"weights_digest": "new"})
    (tmp_path / "p-00001-of-00002.csv").write_text("")
    files.claim({"weights_digest": "new"})
    with pytest.raises(ConfigError, match="delete it and .*p-[?]{5}-of-00002"):
        files.claim({"weights_digest": "other"})
