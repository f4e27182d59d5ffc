"""A look before training: what a data set holds, how its views look.

summary = inspect(data)
print(as_text(summary))
draw_views(data, "views.png", magnitude=16, seed=0)
"""

import dataclasses

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data import (
    ShardedData,
    duplicates,
    look_alikes,
    samples,
)
from meta_pseudo_labels.data.image_data import HELD_OUT
from meta_pseudo_labels.data.images import photo_views, views
from meta_pseudo_labels.data.images.view_settings import ViewSettings
from meta_pseudo_labels.data.labels import turns
from meta_pseudo_labels.data.pixel_statistics import channel_statistics
from meta_pseudo_labels.data.streams import keyed
from meta_pseudo_labels.utils import figures
from meta_pseudo_labels.utils.text_tables import text_table

UNEVEN = 3  # A line warns of a class with this many times another's labels.
BAR_LENGTH = 20  # Characters of the largest class's bar.
CLASSES_IN_TEXT, NAMES_IN_TEXT = 30, 5
MAX_COLUMNS = 20


SAMPLE = 256  # Records of each part that are examined if all are too many.


def find_look_alikes(data):
    """Pairs of images that look alike; see `look_alikes.look_alikes`.

    Args:
      data: see `inspect`.
    """
    return look_alikes.look_alikes(_looked_at(data))


def inspect(data, pairs=None):
    """The facts about a data set, ready for JSON.

    Args:
      data: `ImageData`, or `ShardedData`: then only the first `SAMPLE` records
        of each part are examined.
      pairs: what `find_look_alikes` found; None searches for them here.

    Returns:
      A dict:
        name: of the data set.
        image_shape: [height, width, 3].
        counts: number of images by part: "labeled", "unlabeled" and "test",
          and "feedback" and "validation" if these were held out.
        wrong_labels: number of labeled images, held-out ones included, that
          were given another class on purpose.
        classes: a dict per class with "label", "name" (empty if the classes
          have none) and the number of its images in each part but "unlabeled".
        mean, std: of each channel over the labeled and the unlabeled images,
          0..1 units; an image in both counts twice.
        normalized_with: the "mean" and "std" that training uses.
        skipped: names of the files or records that could not be read.
        passed_over: names of hidden files and those that systems leave.
        copies: images with equal pixels in two parts or with two classes, see
          `duplicates.copies`.
        look_alikes: likewise, images that look alike.
        sample: how many images of each part were examined for everything but
          the counts; None for all.
    """
    counts = {
        part: len(getattr(data, f"{part}_images"))
        for part in ("labeled", *HELD_OUT, "unlabeled", "test")
        if getattr(data, f"{part}_images", None) is not None
    }
    sample = SAMPLE if isinstance(data, ShardedData) else None
    data = _looked_at(data)
    if pairs is None:
        pairs = look_alikes.look_alikes(data)
    spec = data.spec
    mean, std = channel_statistics(data.labeled_images, data.unlabeled_images)
    by_class = {
        part: np.bincount(
            getattr(data, f"{part}_labels"), minlength=spec.num_classes
        ).tolist()
        for part in counts
        if part != "unlabeled"
    }
    names = spec.class_names or [""] * spec.num_classes
    changes = data.chosen.changes if data.chosen is not None else {}
    return {
        "name": spec.name,
        "image_shape": list(data.labeled_images.shape[1:]),
        "counts": counts,
        "sample": sample,
        "wrong_labels": len(changes.get("wrong", ())),
        "classes": [
            {
                "label": label,
                "name": names[label],
                **{part: images[label] for part, images in by_class.items()},
            }
            for label in range(spec.num_classes)
        ],
        "mean": list(mean),
        "std": list(std),
        "normalized_with": {"mean": list(spec.mean), "std": list(spec.std)},
        "skipped": list(getattr(data, "skipped", ())),
        "passed_over": list(data.passed_over),
        "copies": duplicates.copies(data),
        "look_alikes": look_alikes.facts(pairs, data),
    }


def _looked_at(data):
    """The images of a data set that are examined, as `ImageData`."""
    if isinstance(data, ShardedData):
        return samples.sample(data, count=SAMPLE)
    return data


def as_text(summary):
    """The result of `inspect` as lines of text for a terminal."""
    height, width, _ = summary["image_shape"]
    counts = ", ".join(f"{n:,} {part}" for part, n in summary["counts"].items())
    return "\n".join(
        [
            f"{summary['name']}: {len(summary['classes'])} classes, images of "
            f"{height} x {width} pixels",
            f"images: {counts}",
            *_sample_lines(summary["sample"]),
            *_noise_lines(summary["wrong_labels"]),
            "",
            _class_lines(summary["classes"]),
            "",
            _statistics_lines(summary),
            _skipped_line(summary["skipped"]),
            *_passed_over_lines(summary["passed_over"]),
            *duplicates.lines(summary["copies"], "by equal pixels"),
            *duplicates.lines(summary["look_alikes"], "perhaps copies"),
        ]
    )


def _passed_over_lines(names):
    if not names:
        return []
    return [
        f"{len(names):,} files or folders passed over, hidden or left by "
        "systems: " + _first(names)
    ]


def _sample_lines(sample):
    if sample is None:
        return []
    return [f"the rest is about the first {sample:,} images of each part"]


def _noise_lines(wrong):
    if not wrong:
        return []
    return [f"{wrong:,} labels were made wrong, as --label_noise asks"]


def skip_summary(data):
    """A line on what could not be read so far; None if all could."""
    names = list(data.skipped)
    counter = getattr(data, "skip_counter", None)
    if counter is not None and int(counter) > 0:
        reads = "read" if int(counter) == 1 else "reads"
        return f"{int(counter):,} {reads} met a damaged record"
    return _skipped_line(names) if names else None


def _class_lines(classes):
    """A histogram of the classes, the first ones of many, and its extremes."""
    largest = max(row["labeled"] for row in classes)
    rows = [
        row | {"": "#" * round(BAR_LENGTH * row["labeled"] / largest)}
        for row in classes[:CLASSES_IN_TEXT]
    ]
    lines = [text_table(rows)]
    if len(classes) > len(rows):
        lines.append(f"... and {len(classes) - len(rows):,} more classes")
    for part in ("labeled", "test"):
        numbers = [row[part] for row in classes]
        absent = [str(row["label"]) for row in classes if not row[part]]
        lines.append(
            f"{part} images of a class: {min(numbers):,} to {max(numbers):,}"
        )
        if absent and any(numbers):
            lines.append(f"  none of: {_first(absent)}")
    least = min(row["labeled"] for row in classes if row["labeled"])
    if largest >= UNEVEN * least:
        lines.append(
            f"a class has up to {largest / least:.3g} times the labels of "
            "another: --label_sampling=balanced shows all equally often, "
            "--class_weight=balanced makes all count equally"
        )
    return "\n".join(lines)


def _statistics_lines(summary):
    """The measured mean and deviation, beside those that training uses."""
    used = summary["normalized_with"]
    rows = [
        {"channel": channel}
        | {
            column: f"{values[index]:.4f}"
            for column, values in (
                ("mean", summary["mean"]),
                ("used", used["mean"]),
                ("std", summary["std"]),
                ("used ", used["std"]),
            )
        }
        for index, channel in enumerate(("red", "green", "blue"))
    ]
    return text_table(rows)


def _skipped_line(skipped):
    if not skipped:
        return "no file was skipped"
    files = "file was" if len(skipped) == 1 else "files were"
    return f"{len(skipped):,} {files} skipped: {_first(skipped)}"


def _first(names):
    """The first names, and how many more there are."""
    text = ", ".join(names[:NAMES_IN_TEXT])
    more = len(names) - NAMES_IN_TEXT
    return f"{text} and {more:,} more" if more > 0 else text


def draw_views(data, path, *, seed, columns=12, **view_settings):
    """Draws labeled images of all classes, above their weak and strong views.

    Args:
      data: `ImageData`, or `ShardedData`: then its first images are drawn, as
        views of center crops, not of the random crops that training makes.
      path: PNG file to write.
      seed: int; the same seed draws the same sheet.
      columns: number of images at most, 1 to 20. Classes take turns, in their
        order, until there are enough.
      **view_settings: see `ViewSettings`. If labeled images get strong views,
        these are drawn below.

    Raises:
      ValueError: if a number is out of range.
      ImportError: if matplotlib is not installed.
    """
    if not 1 <= columns <= MAX_COLUMNS:
        raise ValueError(
            f"columns is {columns}; give 1 to {MAX_COLUMNS} images."
        )
    settings, module = ViewSettings(**view_settings), views
    if sharded := isinstance(data, ShardedData):
        module, data = photo_views, samples.sample(data, count=columns)
    spec = data.spec
    # A sheet has no epochs, so images are mirrored at random.
    weak_view = module.weak(
        spec, dataclasses.replace(settings, alternate_flips=False)
    )
    strong_view = module.strong(spec, settings)
    places = _by_class(data.labeled_labels, columns)
    titles = figures.class_titles(spec.names)
    images = tf.constant(data.labeled_images[places])
    weak = weak_view(images, keyed.key(seed, keyed.LABELED, keyed.WEAK, 0))
    strong_key = keyed.key(seed, keyed.LABELED, keyed.STRONG, 0)
    # As in training: ImageNet's is made from the crop, not from its weak view.
    strong = strong_view(images if sharded else weak, strong_key)
    shown = {"weak": weak, "strong": strong}
    if settings.augment_labeled:
        view = module.labeled_strong(spec, settings)
        shown["labeled"] = view(weak, strong_key)
    figures.view_sheet(
        path,
        original=images.numpy(),
        **{name: images.numpy() for name, images in shown.items()},
        titles=[titles[label] for label in data.labeled_labels[places]],
    )


def draw_look_alikes(data, path, pairs=None):
    """Draws images that look alike, the most alike first.

    Args:
      data, pairs: see `inspect`.
      path: PNG file to write.

    Raises:
      ImportError: if matplotlib is not installed.
    """
    data = _looked_at(data)
    if pairs is None:
        pairs = look_alikes.look_alikes(data)
    pairs = pairs[: look_alikes.SHOWN]
    above, below = (
        [getattr(data, f"{part}_images")[place] for part, place in owners]
        for owners in zip(*pairs, strict=True)
    )
    figures.pair_sheet(
        path,
        above=above,
        below=below,
        titles=[
            [duplicates.names_of_image(data, *owner) for owner in pair]
            for pair in pairs
        ],
    )


def _by_class(labels, count):
    """Places of at most `count` images, the classes taking turns, sorted."""
    labels = np.asarray(labels)
    turn = turns(labels)
    chosen = np.lexsort((labels, turn))[:count]
    return chosen[np.lexsort((turn[chosen], labels[chosen]))]
