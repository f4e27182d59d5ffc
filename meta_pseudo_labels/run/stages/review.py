"""A review of a run's images: labels to doubt, and what to label next.

review/labels.csv         labeled images, those whose label is doubted first
review/to_label.csv       unlabeled images, those worth labeling next
review/pseudo_labels.csv  what the networks take unlabeled images for
review/copies.csv         pictures in two places, and some that look alike
review/*.png              the first images of labels, to_label, pseudo_labels
review/links/             the files themselves, with --review_links
review/review.json        counts, for the report
"""

import dataclasses
import json
import os

import numpy as np
from absl import logging

from meta_pseudo_labels import data
from meta_pseudo_labels.data import answers, duplicates, look_alikes
from meta_pseudo_labels.data.image_data import HELD_OUT
from meta_pseudo_labels.evaluation import review
from meta_pseudo_labels.run.folder import REVIEW
from meta_pseudo_labels.run.progress import counted
from meta_pseudo_labels.run.stages import STAGES, RunFile, Stage
from meta_pseudo_labels.utils import figures
from meta_pseudo_labels.utils.deleting import delete
from meta_pseudo_labels.utils.files import reports_full_disk, write_whole
from meta_pseudo_labels.utils.settings import (
    ConfigError,
    command_for,
    user_error,
)

LABELS, TO_LABEL, PSEUDO_LABELS, COPIES = (
    f"{name}.csv" for name in ("labels", "to_label", "pseudo_labels", "copies")
)
SUMMARY, LINKS = "review.json", "links"
SHOWN, LINKED = 40, 100  # Images on a sheet, and of the links.
# The sheet of a table, and what is written above it.
SHEETS = {
    LABELS: "The most doubted labels: what is suggested, and what they say",
    TO_LABEL: "Worth labeling next: what they are taken for",
    PSEUDO_LABELS: "The surest pseudo labels",
}
# In the empty `label` users write their answer.
_LEARNED = sorted(duplicates.LEARNED)
_COLUMNS = {
    LABELS: ("image", "part", "class", "suggested", "doubt", "label"),
    TO_LABEL: ("image", "guess", "uncertainty", "disagreement", "label"),
    PSEUDO_LABELS: ("image", "guess", "confidence", "student_guess", "label"),
    COPIES: ("kind", "parts", "images"),
}


@STAGES.register("review")
class Review(Stage):
    help = "Rank labels to doubt, and images to label next."
    files = (RunFile(REVIEW, "labels to doubt, images to label next"),)

    @staticmethod
    def run(experiment):
        print(review_run(experiment))


def review_run(experiment):
    """Reviews the images of a run, and writes review/ in its folder.

    Args:
      experiment: `Experiment` of a trained run.

    Returns:
      What it found, as text for a terminal.

    Raises:
      ConfigError: where images stay in their files, or a review is there in
        which somebody wrote labels.
    """
    config, images = experiment.config, experiment.data
    if not isinstance(images, data.ImageData):
        raise ConfigError(
            f"--task_mode=review looks at images in memory; those of "
            f"{config.dataset} stay in their files."
        )
    if config.review_links and not images.names:
        raise ConfigError(
            f"--review_links links to files; images of {config.dataset} are "
            "none of their own."
        )
    folder = experiment.folder.path(REVIEW)
    _check_unanswered(folder)
    learner = experiment.trained_learner()
    labeled, unlabeled = pools(learner, config, images)
    tables = {
        LABELS: doubted(labeled),
        TO_LABEL: wanted(unlabeled, labeled, config.review_images),
        PSEUDO_LABELS: pseudo_labels(unlabeled),
    }
    found = copies(images)
    os.makedirs(folder, exist_ok=True)
    with reports_full_disk(folder):
        for name, table in tables.items():
            _write(folder, name, table.rows)
        _write(folder, COPIES, found)
        draw(tables, folder)
        delete(os.path.join(folder, LINKS))  # Of a review before.
        if config.review_links:
            for name in (LABELS, TO_LABEL):
                link(tables[name], os.path.join(folder, LINKS, name[:-4]))
        counts = {name: len(table.rows) for name, table in tables.items()}
        summary = {
            "step": int(learner.step.numpy()),
            "rows": counts | {COPIES: len(found)},
        }
        write_whole(
            os.path.join(folder, SUMMARY), json.dumps(summary, indent=1) + "\n"
        )
    return _as_text(summary["rows"], folder, config.output_dir)


def _write(folder, name, rows):
    answers.write_table(os.path.join(folder, name), _COLUMNS[name], rows)


def _check_unanswered(folder):
    """Refuses to write over a table that somebody has filled in."""
    for name in (LABELS, TO_LABEL, PSEUDO_LABELS):
        path = os.path.join(folder, name)
        if os.path.exists(path) and (
            given := user_error(answers.read_answers, path)
        ):
            raise ConfigError(
                f"{path} holds {len(given)} labels that somebody wrote into "
                "it; move it elsewhere, and name it in --labels_csv of the "
                "next run."
            )


@dataclasses.dataclass(frozen=True)
class Pool:
    """Images, and what the networks of a run say of them.

    Attributes:
      images: [N, H, W, 3] uint8.
      names: [N] of their files, or else their places.
      parts: [N] of the data set.
      labels: [N] ints; None for images without.
      student: [N, classes] probabilities.
      teacher: likewise; None of a run without one.
      features: [N, d], the student's.
      classes: names of the classes.
    """

    images: np.ndarray
    names: list[str]
    parts: list[str]
    labels: np.ndarray | None
    student: np.ndarray
    teacher: np.ndarray | None
    features: np.ndarray
    classes: tuple[str, ...]

    @property
    def mean(self):
        """The mean probabilities of the networks, [N, classes]."""
        each = [self.student, self.teacher]
        return np.mean([p for p in each if p is not None], axis=0)


def pools(learner, config, images):
    """The images with labels, those held out too, and the others.

    Args:
      learner: as a checkpoint of the run has it.
      config: `Config` of the run.
      images: its `data.ImageData`.

    Returns:
      Two `Pool`s. Images that have a label are not in the second.
    """
    parts = [
        part
        for part in ("labeled", *HELD_OUT)
        if getattr(images, f"{part}_images") is not None
    ]
    labeled = [
        (part, place)
        for part in parts
        for place in range(len(getattr(images, f"{part}_images")))
    ]
    known = {duplicates.digest_of(_image(images, owner)) for owner in labeled}
    unlabeled = [
        ("unlabeled", place)
        for place, image in enumerate(images.unlabeled_images)
        if duplicates.digest_of(image) not in known
    ]
    labels = np.concatenate([getattr(images, f"{p}_labels") for p in parts])
    networks = [learner.finished_student()]
    if learner.teacher_type(config) is not None:
        networks.append(learner.teacher)
    total = len(networks) * (len(labeled) + len(unlabeled))
    with counted("review", total, 0, config, unit="image") as count:

        def looked(owners, labels=None):
            return _pool(networks, config, images, owners, labels, count)

        return looked(labeled, labels), looked(unlabeled)


def _pool(networks, config, images, owners, labels, count):
    """The `Pool` of some images, each a part and a place in it."""
    spec = images.spec
    pixels = np.zeros([0, spec.image_size, spec.image_size, 3], np.uint8)
    if owners:
        pixels = np.stack([_image(images, owner) for owner in owners])
    seen = []
    for network in networks:
        size = config.eval_batch_size
        seen.append(review.look(network, pixels, spec, batch_size=size))
        count(len(pixels))
    return Pool(
        images=pixels,
        names=[duplicates.names_of_image(images, *owner) for owner in owners],
        parts=[part for part, _ in owners],
        labels=labels,
        student=seen[0][0],
        teacher=seen[1][0] if len(seen) > 1 else None,
        features=seen[0][1],
        classes=spec.names,
    )


def _image(images, owner):
    part, place = owner
    return getattr(images, f"{part}_images")[place]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of a file, and which images they are of, in order.

    Attributes:
      rows: of the file.
      pool: `Pool` that they are of.
      places: [rows] in it.
      classes: [rows] that the images are suggested to be of, ints.
      sure: [rows], how sure that is, 0..1.
    """

    rows: list[tuple]
    pool: Pool
    places: np.ndarray
    classes: np.ndarray
    sure: np.ndarray


def doubted(pool):
    """Labeled images, those whose label is doubted most first: a `Table`."""
    others = review.leave_one_out(pool.features, pool.labels, len(pool.classes))
    doubt, suggested = review.doubts(pool.student, others, pool.labels)
    places = np.argsort(-doubt, kind="stable")
    rows = [
        (
            pool.names[k],
            pool.parts[k],
            pool.classes[pool.labels[k]],
            pool.classes[suggested[k]],
            f"{doubt[k]:.4f}",
            "",
        )
        for k in places
    ]
    return _table(rows, pool, places, suggested)


def wanted(pool, labeled, count):
    """Unlabeled images that are worth labeling next, the first one first.

    Args:
      pool: `Pool` of them.
      labeled: that of the labeled images.
      count: how many at most.

    Returns:
      A `Table`.
    """
    scores, disagreement = review.uncertainty(pool.student, pool.teacher)
    places = review.next_to_label(
        scores, pool.features, labeled.features, count
    )
    guesses = pool.mean.argmax(axis=1)
    rows = [
        (
            pool.names[k],
            pool.classes[guesses[k]],
            f"{scores[k]:.4f}",
            f"{disagreement[k]:.4f}",
            "",
        )
        for k in places
    ]
    return _table(rows, pool, places, guesses)


def pseudo_labels(pool):
    """Unlabeled images, those that the networks are surest of first."""
    mean, student = pool.mean, pool.student.argmax(axis=1)
    guesses, sure = mean.argmax(axis=1), mean.max(axis=1)
    places = np.argsort(-sure, kind="stable")
    rows = [
        (
            pool.names[k],
            pool.classes[guesses[k]],
            f"{sure[k]:.4f}",
            pool.classes[student[k]],
            "",
        )
        for k in places
    ]
    return _table(rows, pool, places, guesses)


def _table(rows, pool, places, classes):
    classes = classes[places]
    return Table(rows, pool, places, classes, pool.mean[places, classes])


def draw(tables, folder):
    """Draws the first images of tables, each on a sheet beside its file.

    Without matplotlib a warning says that there are none.

    Args:
      tables: `Table` by the name of its file.
      folder: to write to.
    """
    for name, table in tables.items():
        path = os.path.join(folder, sheet_of(name))
        delete(path)
        pool, first = table.pool, table.places[:SHOWN]
        if not len(first):
            continue
        guesses = table.classes[:SHOWN]
        odds = np.zeros([len(first), len(pool.classes)])
        odds[np.arange(len(first)), guesses] = table.sure[:SHOWN]
        try:
            figures.prediction_sheet(
                pool.images[first],
                path,
                labels=guesses if pool.labels is None else pool.labels[first],
                predictions=guesses,
                probabilities=odds,
                class_names=pool.classes,
                title=SHEETS[name],
            )
        except ImportError as error:
            logging.warning("%s", error)
            return


def sheet_of(name):
    """The PNG file beside a table's."""
    return name.removesuffix(".csv") + ".png"


def link(table, folder):
    """Links to the files of a table's first images, in their order.

    In a folder for each class that is suggested. Of files with equal pixels
    each has a link.

    Args:
      table: `Table`.
      folder: to make.
    """
    lost = 0
    for rank, (k, label) in enumerate(
        zip(table.places[:LINKED], table.classes, strict=False), start=1
    ):
        inner = os.path.join(folder, table.pool.classes[label])
        for copy, name in enumerate(table.pool.names[k].split(" = ")):
            if not os.path.exists(name):  # A name that cannot be shown.
                lost += 1
                continue
            os.makedirs(inner, exist_ok=True)
            ending = os.path.splitext(name)[1]
            target = f"{rank:04d}{'-' * bool(copy)}{copy or ''}{ending}"
            os.symlink(os.path.abspath(name), os.path.join(inner, target))
    if lost:
        logging.warning(
            "%d files have no link in %s: their names cannot be written.",
            lost,
            folder,
        )


def copies(images):
    """Rows on pictures in two places or classes, and on some that look alike.

    That a labeled image is an unlabeled one too is none.

    Args:
      images: `data.ImageData`.
    """
    rows = []
    for _, group in duplicates.equal_images(duplicates.images_by_part(images)):
        parts = [part for part, _ in group]
        classes = {
            int(getattr(images, f"{part}_labels")[place])
            for part, place in group
            if part != "unlabeled"
        }
        kind = "copies"
        if len(classes) > 1:
            kind = "two classes"
        elif len({"learned" if p in _LEARNED else p for p in parts}) > 1:
            kind = "leak"
        elif sorted(parts) == _LEARNED:
            continue
        names = dict.fromkeys(
            duplicates.names_of_image(images, *owner) for owner in group
        )
        rows.append((kind, ", ".join(parts), " = ".join(names)))
    for pair in look_alikes.look_alikes(images):
        names = [duplicates.names_of_image(images, *owner) for owner in pair]
        parts = ", ".join(part for part, _ in pair)
        rows.append(("look alike", parts, " ~ ".join(names)))
    return rows


def _as_text(counts, folder, output_dir):
    """What there is, and what to do with it."""
    what = {
        LABELS: "labeled images, the most doubted label first",
        TO_LABEL: "unlabeled images to label next",
        PSEUDO_LABELS: "unlabeled images, the surest guess first",
        COPIES: "copies, leaks and pictures that look alike",
    }
    lines = [f"Review: {folder}"]
    lines += [
        f"  {name:18s} {counts[name]:>7,} {text}" for name, text in what.items()
    ]
    return "\n".join(
        [
            *lines,
            "Write classes into the column `label`, move the file out of that "
            "folder, and train",
            "in another --output_dir with --labels_csv=<the file>.",
            f"Report: {command_for('report', output_dir)}",
        ]
    )
