"""Tables of images as CSV files, and labels that come back in them."""

import csv
import json
import pathlib

import numpy as np
import pytest

from meta_pseudo_labels import data
from meta_pseudo_labels.data.answers import (
    answer,
    read_answers,
    write_table,
)
from tests.tiny_folders import load, shades, write, write_folders

AWKWARD = ['a,"b"\nc', "=1+1", " @x", "-2.png", "\uff1d3", "plain", "'=q"]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The images of tests.tiny_folders, by relative names."""
    write_folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    return load(pathlib.Path())


def given(text, path="answers.csv"):
    pathlib.Path(path).write_text(text, encoding="utf-8")
    return path


def test_texts_come_back_but_no_spreadsheet_computes_them(tmp_path):
    path = tmp_path / "table.csv"
    write_table(path, ("image", "doubt"), [(text, -0.5) for text in AWKWARD])
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [
        'a,"b"\nc',
        "'=1+1",
        "' @x",
        "'-2.png",
        "'\uff1d3",
        "plain",
        "'=q",
    ]
    assert {row["doubt"] for row in rows} == {"-0.5"}


@pytest.mark.parametrize(
    "text",
    [
        "image,label\na.png,cat\nb.png,\n",
        "\ufeffdoubt;label;image\r\n1;cat;a.png\r\n0;;b.png\r\n",
        'label,image,more\n" cat ",a.png\n,b.png,\n',
    ],
)
def test_answers_are_read_as_spreadsheets_save_them(tmp_path, text):
    path = given(text, tmp_path / "answers.csv")
    ((_, image, label),) = read_answers(path)
    assert (image, label.strip()) == ("a.png", "cat")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"picture,label\n", "no column 'image'"),
        (b"", "no column 'image'"),
        (b"image,label\n\xff\xfe,cat\n", "UTF-8"),
        (None, "No such file"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, content, why):
    path = tmp_path / "answers.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=why):
        read_answers(path)


def test_labels_change_and_unlabeled_images_get_one(folders):
    path = given(
        "image,label\nlabeled/ant/1.png,cow\n"
        f"{pathlib.Path('unlabeled/a/z.png').absolute()},bee\n"
    )
    found = answer(folders, path)
    assert shades(found.labeled_images) == [0, 1, 10, 11, 20, 21, 201]
    assert found.labeled_labels.tolist() == [0, 2, 1, 1, 2, 2, 1]
    assert found.labeled_labels.dtype == np.int32
    assert len(set(found.labeled_indices.tolist())) == 7
    assert shades(found.unlabeled_images) == shades(folders.unlabeled_images)
    choice = data.labeled_choice(found)
    assert choice["labels"] == [0, 0, 1, 1, 2, 2]  # Before.
    place = shades(folders.unlabeled_images).index(201)
    assert choice["answered"] == [[1, 2], [6 + place, 1]]
    json.dumps(choice)


def test_all_copies_of_a_picture_get_its_label(tmp_path, monkeypatch):
    write_folders(tmp_path)
    write(tmp_path / "labeled" / "bee" / "copy.png", 0)
    write(tmp_path / "unlabeled" / "copy.png", 200)
    monkeypatch.chdir(tmp_path)
    folders = load(pathlib.Path())
    path = given(
        "image,label\n"
        "labeled/ant/0.png = labeled/bee/copy.png,bee\n"
        "unlabeled/copy.png,ant\nunlabeled/b.png,ant\n"
    )
    found = answer(folders, path)
    labels = zip(
        shades(found.labeled_images), found.labeled_labels, strict=True
    )
    assert [int(y) for shade, y in labels if shade in (0, 200)] == [1, 1, 0]


def test_names_and_classes_may_have_the_apostrophe_of_a_table(
    tmp_path, monkeypatch
):
    write_folders(tmp_path)
    (tmp_path / "labeled" / "ant").rename(tmp_path / "labeled" / "=ant")
    (tmp_path / "eval" / "ant").rename(tmp_path / "eval" / "=ant")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unlabeled").rename(tmp_path / "-new")
    folders = load(pathlib.Path(), unlabeled_dir=tmp_path / "-new")
    names = [["'-new/b.png", "'=ant"], ["-new/a/z.png", "=ant"]]
    path = given("image,label\n" + "".join(f"{a},{b}\n" for a, b in names))
    assert answer(folders, path).labeled_labels.tolist()[6:] == [0, 0]


def test_names_of_classes_may_end_in_a_space(tmp_path, monkeypatch):
    write_folders(tmp_path)
    for part in ("labeled", "eval"):
        (tmp_path / part / "ant").rename(tmp_path / part / "ant ")
    monkeypatch.chdir(tmp_path)
    folders = load(pathlib.Path())
    rows = "unlabeled/b.png,ant \nunlabeled/a/z.png, bee \n"
    found = answer(folders, given(f"image,label\n{rows}"))
    assert sorted(found.labeled_labels.tolist()[6:]) == [0, 1]
    with pytest.raises(ValueError, match="'ant' is not a class"):
        answer(folders, given("image,label\nunlabeled/b.png,ant\n"))


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ("labeled/ant/9.png,cow", "line 2: 'labeled/ant/9.png' is not one of"),
        ("eval/ant/0.png,cow", "not one of the images to learn from"),
        ("labeled/ant/0.png,wasp", "'wasp' is not a class; .* ant, bee, cow"),
        (
            "unlabeled/b.png,ant\nunlabeled/b.png,bee",
            "line 3: .* another label",
        ),
        (
            "labeled/ant/0.png,bee\nlabeled/ant/1.png,bee",
            "no labeled image of ant",
        ),
        ("labeled/ant/0.png,", "no label in the column"),
    ],
)
def test_what_cannot_be_meant_is_refused(folders, rows, why):
    with pytest.raises(ValueError, match=why):
        answer(folders, given(f"image,label\n{rows}\n"))


def test_a_row_that_ends_early_names_no_image(folders):
    with pytest.raises(ValueError, match="line 2: '' is not one of"):
        answer(folders, given("label,image\nant\n"))


def test_a_comma_in_another_column_parts_nothing(tmp_path):
    text = 'image;label;"seen, by whom"\na.png;ant;me\n'
    path = given(text, tmp_path / "answers.csv")
    assert read_answers(path) == [(2, "a.png", "ant")]


def test_images_without_names_of_files_are_refused():
    zeros = np.zeros([2, 8, 8, 3], np.uint8)
    images = data.from_arrays(zeros, [0, 1], zeros[:0])
    with pytest.raises(ValueError, match="for folders"):
        answer(images, "answers.csv")
