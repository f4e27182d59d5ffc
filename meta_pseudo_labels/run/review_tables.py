"""What a review of a run holds: images, predictions, rows of tables."""

import dataclasses

import numpy as np

from meta_pseudo_labels.data import duplicates, look_alikes
from meta_pseudo_labels.data.image_data import HELD_OUT
from meta_pseudo_labels.evaluation import review
from meta_pseudo_labels.run.progress import counted
from meta_pseudo_labels.utils.settings import ConfigError

_LEARNED = sorted(duplicates.LEARNED)
_TAUGHT = {"learned", "feedback"}  # From the latter, MPL's teacher learns.


@dataclasses.dataclass(frozen=True)
class Pool:
    """Images, and what the networks of a run predict for them.

    Attributes:
      images: [N, H, W, 3] uint8.
      names: [N] of their files, or otherwise their places.
      files: [N] tuples of the files with an image's pixels, if it has any.
      parts: [N] of the data set.
      labels: [N] ints; None for images without labels.
      student: [N, classes] probabilities.
      teacher: likewise; None for a run without one.
      features: [N, d], the student's.
      classes: names of the classes.
    """

    images: np.ndarray
    names: list[str]
    files: list[tuple[str, ...]]
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
      learner: restored from a checkpoint of the run.
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
        if not np.isfinite(seen[-1][0]).all():
            raise ConfigError(
                f"The {network.name} predicts no finite numbers for some "
                "images; review an earlier checkpoint, with --from_checkpoint."
            )
        count(len(pixels))
    return Pool(
        images=pixels,
        names=[duplicates.names_of_image(images, *owner) for owner in owners],
        files=[_files(images, owner) for owner in owners],
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


def _files(images, owner):
    found = (images.names or {}).get(
        duplicates.digest_of(_image(images, owner))
    )
    return tuple(found or ())


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of a file, and the images that they are of, in order.

    Attributes:
      rows: of the file.
      pool: `Pool` of the images.
      places: [rows] of the images in it.
      classes: [rows] that are suggested for the images, ints.
      odds: [rows, classes], how likely each class is.
    """

    rows: list[tuple]
    pool: Pool
    places: np.ndarray
    classes: np.ndarray
    odds: np.ndarray


def doubted(pool):
    """Labeled images, the most doubted labels first: a `Table`."""
    others = review.leave_one_out(pool.features, pool.labels, len(pool.classes))
    doubt, suggested, odds = review.doubts(pool.student, others, pool.labels)
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
    return Table(rows, pool, places, suggested[places], odds[places])


def wanted(pool, labeled, count):
    """Unlabeled images that are worth labeling next, in this order.

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
    return Table(rows, pool, places, guesses[places], pool.mean[places])


def pseudo_labels(pool):
    """Unlabeled images, the most confident predictions first: a `Table`."""
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
    return Table(rows, pool, places, guesses[places], mean[places])


def copies(images):
    """Rows on images in two places or classes, and on some that look alike.

    There is none for a labeled image that is also an unlabeled one.

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
        roles = {"learned" if p in _LEARNED else p for p in parts}
        kind = "copies"
        if len(classes) > 1:
            kind = "two classes"
        elif len(roles) > 1 and roles & _TAUGHT:
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
