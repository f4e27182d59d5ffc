"""CSV tables of images, and the labels that a user wrote into one.

    image,label
    photos/labeled/cat/1.jpg,dog
    photos/unlabeled/7.jpg,cat

Other columns, and rows without a label, are ignored: so the tables of
`mpl review` can be filled in and given back.
"""

import csv
import dataclasses
import os
import re

import numpy as np

from meta_pseudo_labels.data.duplicates import digest_of, names_of_image
from meta_pseudo_labels.data.image_data import ImageData
from meta_pseudo_labels.data.images.listing import listed
from meta_pseudo_labels.data.labels import LabelChoice
from meta_pseudo_labels.data.spec import composed
from meta_pseudo_labels.utils.files import FORMULA, replaces


def write_table(path, columns, rows):
    """Writes a CSV file, whole or not at all.

    Text that a spreadsheet would take for a formula gets a leading apostrophe.

    Args:
      path: the file to write.
      columns: names of the columns.
      rows: sequences of texts and numbers, one for each column.
    """
    with (
        replaces(path) as scratch,
        open(scratch, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(value) for value in row])


def _cell(value):
    is_formula = isinstance(value, str) and re.match(FORMULA, value)
    return f"'{value}" if is_formula else value


def read_answers(path):
    """The rows of a CSV file that have a label.

    Args:
      path: a file with the columns "image" and "label", as spreadsheets save
        it: with commas or semicolons, with or without a byte-order mark.

    Returns:
      A list of (line number, image, label), texts as they are in the file.

    Raises:
      ValueError: if it cannot be read, or lacks one of the columns.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            separator = max(",;", key=first.count)
            reader = csv.DictReader(file, delimiter=separator)
            columns = reader.fieldnames or ()
            missing = [n for n in ("image", "label") if n not in columns]
            if missing:
                raise ValueError(f"it has no column {missing[0]!r}")
            return [
                (reader.line_num, row["image"] or "", row["label"])
                for row in reader
                if (row["label"] or "").strip()
            ]
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} cannot be read as labels, a CSV file in UTF-8 with the "
            f"columns image and label: {error}."
        ) from error


def answer(data, path):
    """Gives images the labels from a CSV file.

    Labeled images change their class. Unlabeled ones become labeled, and also
    stay among the unlabeled ones. Images with the same pixels get one label.

    Args:
      data: `ImageData` whose images have file names.
      path: the file, see `read_answers`.

    Returns:
      `ImageData`, whose `chosen` tells which labels come from the file.

    Raises:
      ValueError: if the file names something other than an image to train on,
        an unknown class or one image with two labels, or leaves a class
        without labeled images.
    """
    if not isinstance(data, ImageData) or not data.names:
        raise ValueError(
            f"Images of {data.spec.name!r} have no file names that {path} "
            "could refer to; labels in a CSV file are for folders."
        )
    digests, others = (
        [digest_of(image) for image in images]
        for images in (data.labeled_images, data.unlabeled_images)
    )
    wanted = _wanted(data, {*digests, *others}, path)
    labels = data.labeled_labels.copy()
    changed = [place for place, key in enumerate(digests) if key in wanted]
    labels[changed] = [wanted[digests[place]] for place in changed]
    for key in digests:
        wanted.pop(key, None)
    added, classes = [], []
    for place, key in enumerate(others):
        label = wanted.pop(key, None)  # Only the first of several copies.
        if label is not None:
            added.append(place)
            classes.append(label)
    _check_classes(data, np.concatenate([labels, classes]).astype(int), path)
    # Numbers that no labeled image has.
    numbers = data.labeled_indices.max() + 1 + np.array(added, np.int64)
    changes = np.concatenate([data.labeled_indices[changed], numbers])
    given = np.concatenate([labels[changed], classes]).astype(np.int64)
    return dataclasses.replace(
        data,
        labeled_images=np.concatenate(
            [data.labeled_images, data.unlabeled_images[added]]
        ),
        labeled_labels=np.concatenate([labels, classes]).astype(np.int32),
        labeled_indices=np.concatenate([data.labeled_indices, numbers]),
        chosen=LabelChoice(
            indices=data.labeled_indices,
            labels=data.labeled_labels,
            changes={"answered": np.stack([changes, given], axis=1)},
        ),
    )


def _wanted(data, learned, path):
    """The label that a file gives each picture, by the picture's digest.

    Args:
      data: `ImageData`.
      learned: set of the digests of the images to train on.
      path: the file.
    """
    names = {
        os.path.abspath(name): key
        for key, several in data.names.items()
        for name in (*several, " = ".join(several))
    }
    classes = {composed(n): label for label, n in enumerate(data.spec.names)}
    wanted = {}
    for line, image, text in read_answers(path):
        where = f"{path}, line {line}"
        key = _look_up(names, image, os.path.abspath)
        if key not in learned:
            raise ValueError(
                f"{where}: {image!r} is not one of the images to learn from; "
                "write it as `mpl review` does, such as "
                f"{names_of_image(data, 'labeled', 0)!r}."
            )
        label = _look_up(classes, text, composed)
        if label is None:
            raise ValueError(
                f"{where}: {text!r} is not a class; choose one of "
                f"{listed(data.spec.names)}."
            )
        if wanted.setdefault(key, label) != label:
            raise ValueError(
                f"{where}: {image!r} has another label on an earlier line; "
                "give each picture one label, the same to copies with equal "
                "pixels."
            )
    if not wanted:
        raise ValueError(
            f"{path} has no label in the column `label`; fill it in."
        )
    return wanted


def _look_up(known, text, form):
    """What a cell refers to, or None.

    As it stands, else without spaces around it or without its apostrophe.
    """
    cells = [text, text.strip()]
    cells += [cell[1:] for cell in cells if cell.startswith("'")]
    found = (known.get(form(cell)) for cell in cells)
    return next((one for one in found if one is not None), None)


def _check_classes(data, labels, path):
    """Refuses answers that take away a class's last label."""
    size = data.spec.num_classes
    before = np.bincount(data.labeled_labels, minlength=size) > 0
    lost = np.flatnonzero(before & (np.bincount(labels, minlength=size) == 0))
    if len(lost):
        raise ValueError(
            f"{path} leaves no labeled image of "
            f"{listed(data.spec.names[label] for label in lost)}; a class "
            "needs at least one."
        )
