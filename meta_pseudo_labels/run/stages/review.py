"""A review of a run's images: labels to doubt, and what to label next.

review/labels.csv         labeled images, the most doubted labels first
review/to_label.csv       unlabeled images that are worth labeling next
review/pseudo_labels.csv  the networks' guesses for unlabeled images
review/copies.csv         pictures in two places, and some that look alike
review/*.png              the first images of labels, to_label, pseudo_labels
review/links/             the files themselves, with --review_links
review/review.json        counts, for the report
"""

import json
import os

from absl import logging

from meta_pseudo_labels import data
from meta_pseudo_labels.data import answers
from meta_pseudo_labels.run.config.after_training import ReviewSettings
from meta_pseudo_labels.run.folder import ANSWERED, REVIEW, REVIEW_SUMMARY
from meta_pseudo_labels.run.review_tables import (
    copies,
    doubted,
    pools,
    pseudo_labels,
    wanted,
)
from meta_pseudo_labels.run.stages import STAGES, RunFile, Stage
from meta_pseudo_labels.utils import figures
from meta_pseudo_labels.utils.deleting import delete
from meta_pseudo_labels.utils.files import reports_full_disk, write_whole
from meta_pseudo_labels.utils.settings import ConfigError, command_for

LABELS, TO_LABEL, PSEUDO_LABELS = ANSWERED
COPIES, LINKS = "copies.csv", "links"
SHOWN, LINKED = 40, 100  # Images on a sheet, and with a link.
# The title above the sheet of each table.
SHEETS = {
    LABELS: "The most doubted labels, red if another class is likelier",
    TO_LABEL: "Worth labeling next, with the guessed classes",
    PSEUDO_LABELS: "The most confident pseudo labels",
}
# Users write their answers into the empty column `label`.
_COLUMNS = {
    LABELS: ("image", "part", "class", "suggested", "doubt", "label"),
    TO_LABEL: ("image", "guess", "uncertainty", "disagreement", "label"),
    PSEUDO_LABELS: ("image", "guess", "confidence", "student_guess", "label"),
    COPIES: ("kind", "parts", "images"),
}


@STAGES.register("review")
class Review(Stage):
    help = "Rank labels to doubt, and images to label next."
    settings = (ReviewSettings,)
    looks_only = True
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
      ConfigError: if images stay in their files, or somebody wrote labels
        into an earlier review.
    """
    config, images = experiment.config, experiment.data
    if not isinstance(images, data.ImageData):
        raise ConfigError(
            f"`mpl review` looks at images in memory; those of "
            f"{config.dataset} stay in their files."
        )
    if config.review_links and not images.names:
        raise ConfigError(
            f"--review_links links to image files, which {config.dataset} does "
            "not have."
        )
    folder = experiment.folder.path(REVIEW)
    experiment.folder.check_unanswered()
    learner = experiment.trained_learner()
    labeled, unlabeled = pools(learner, config, images)
    tables = {
        LABELS: doubted(labeled),
        TO_LABEL: wanted(unlabeled, labeled, config.review_images),
        PSEUDO_LABELS: pseudo_labels(unlabeled),
    }
    found = copies(images)
    experiment.folder.check_unanswered()  # Looking at many took minutes.
    os.makedirs(folder, exist_ok=True)
    # First, so that no report shows half a review.
    summary_path = os.path.join(folder, REVIEW_SUMMARY)
    delete(summary_path)
    with reports_full_disk(folder):
        for name, table in tables.items():
            _write(folder, name, table.rows)
        _write(folder, COPIES, found)
        draw(tables, folder)
        if config.review_links:
            delete(os.path.join(folder, LINKS))  # Of an earlier review.
            for name in (LABELS, TO_LABEL):
                link(tables[name], os.path.join(folder, LINKS, name[:-4]))
        counts = {name: len(table.rows) for name, table in tables.items()}
        summary = {
            "step": int(learner.step.numpy()),
            "rows": counts | {COPIES: len(found)},
        }
        write_whole(summary_path, json.dumps(summary, indent=1) + "\n")
    return _as_text(summary["rows"], folder, config.output_dir)


def _write(folder, name, rows):
    answers.write_table(os.path.join(folder, name), _COLUMNS[name], rows)


def draw(tables, folder):
    """Draws the first images of each table, on a sheet beside its file.

    Without matplotlib, a warning says that there are no sheets.

    Args:
      tables: `Table`s by the names of their files.
      folder: to write to.
    """
    paths = {name: os.path.join(folder, sheet_of(name)) for name in tables}
    delete(*paths.values())
    for name, table in tables.items():
        pool, first = table.pool, table.places[:SHOWN]
        if not len(first):
            continue
        odds = table.odds[:SHOWN]
        guesses = odds.argmax(axis=1)
        try:
            figures.prediction_sheet(
                pool.images[first],
                paths[name],
                labels=guesses if pool.labels is None else pool.labels[first],
                predictions=guesses,
                probabilities=odds,
                class_names=pool.classes,
                title=SHEETS[name],
                truth="labeled",
            )
        except ImportError as error:
            logging.warning("%s", error)
            return


def sheet_of(name):
    """The PNG file beside the file of a table."""
    return name.removesuffix(".csv") + ".png"


def link(table, folder):
    """Links to the files of a table's first images, in their order.

    There is a folder for each suggested class. If files have equal pixels,
    each of them gets a link.

    Args:
      table: `Table`.
      folder: to make.
    """
    lost = 0
    for rank, (k, label) in enumerate(
        zip(table.places[:LINKED], table.classes, strict=False), start=1
    ):
        inner = os.path.join(folder, table.pool.classes[label])
        for copy, name in enumerate(table.pool.files[k]):
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


def _as_text(counts, folder, output_dir):
    """What the review holds, and what to do with it."""
    what = {
        LABELS: "labeled images, the most doubted label first",
        TO_LABEL: "unlabeled images to label next",
        PSEUDO_LABELS: "unlabeled images, the most confident guess first",
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
