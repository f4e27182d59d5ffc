"""Variants of a semi-supervised problem: harder ones, and held-out parts.

    images = vary(images, seed=0, label_noise=0.2, num_feedback=10)

Each function takes `ImageData` and returns another; its draws depend on the
seed alone. `vary` applies them in this order:

1. `keep_classes`: images of the other classes become unlabeled;
2. `spoil_labels`: some labels become wrong;
3. `hold_out`: labeled images for validation leave the training set;
4. `hold_out`: labeled images for the feedback leave it too.

So held-out labels are as noisy as all others, as for someone who does not know
which labels are wrong. The test labels stay as they are.
"""

import dataclasses

import numpy as np

from meta_pseudo_labels.data.duplicates import digest_of, warn_of_copies
from meta_pseudo_labels.data.image_data import HELD_OUT, ImageData
from meta_pseudo_labels.data.labels import LabelChoice, turns

# Draws of one seed that must not be correlated.
_DRAWS = {"noise": 1, "validation": 2, "feedback": 3}


def vary(
    data,
    *,
    seed,
    known_classes=None,
    label_noise=0.0,
    num_validation=0,
    num_feedback=0,
):
    """Applies the requested variants, in the order above.

    Args:
      data: `ImageData`; or `ShardedData`, which has no variants.
      seed: int in [0, 2**32), for all draws.
      known_classes: see `keep_classes`; None for all.
      label_noise: see `spoil_labels`; 0 for none.
      num_validation, num_feedback: see `hold_out`; 0 for none.

    Returns:
      `ImageData`; `data` itself if no variant is requested.

    Raises:
      ValueError: for a number that the images do not allow.
    """
    if known_classes is not None:
        data = keep_classes(data, known_classes)
    if label_noise:
        data = spoil_labels(data, label_noise, seed=seed)
    if num_validation:
        data = hold_out(data, num_validation, seed=seed, part="validation")
    if num_feedback:
        data = hold_out(data, num_feedback, seed=seed, part="feedback")
    return data


def keep_classes(data, count):
    """Keeps the first classes as the task; the others become foreign to it.

    Args:
      data: `ImageData`.
      count: number of known classes, 2 to num_classes.

    Returns:
      `ImageData` of `count` classes. The test images of the other classes are
      gone; their training images, labeled ones too, are now unlabeled.

    Raises:
      ValueError: if there are fewer classes, or no label is left.
    """
    _require_memory(data)
    spec = data.spec
    if not 2 <= count <= spec.num_classes:
        raise ValueError(
            f"known_classes is {count}; give 2 to {spec.num_classes}, the "
            f"number of classes of {spec.name!r}."
        )
    known, tested = data.labeled_labels < count, data.test_labels < count
    if not known.any():
        raise ValueError(
            f"known_classes is {count}, but no labeled image is in the first "
            f"{count} classes; keep more classes or label other images."
        )
    foreign = data.labeled_images[~known]
    return dataclasses.replace(
        data,
        spec=dataclasses.replace(
            spec, num_classes=count, class_names=spec.class_names[:count]
        ),
        labeled_images=data.labeled_images[known],
        labeled_labels=data.labeled_labels[known],
        labeled_indices=data.labeled_indices[known],
        # In some sources labeled images are also among the unlabeled ones.
        unlabeled_images=np.concatenate(
            [data.unlabeled_images, _without(foreign, data.unlabeled_images)]
        ),
        test_images=data.test_images[tested],
        test_labels=data.test_labels[tested],
        chosen=_chosen(data),
    )


def spoil_labels(data, share, *, seed):
    """Gives some labeled images a wrong class, drawn uniformly from the others.

    Args:
      data: `ImageData`.
      share: of the labeled images, in (0, 1), rounded to whole images, halves
        up. With the same seed, a larger share spoils the same images and more.
      seed: int in [0, 2**32).

    Returns:
      `ImageData` with changed labeled_labels.

    Raises:
      ValueError: if the share is out of range or rounds to no image, or there
        is no other class.
    """
    _require_memory(data)
    total, num_classes = len(data.labeled_labels), data.spec.num_classes
    if not 0 < share < 1:
        raise ValueError(
            f"label_noise is {share}; give a share of the labels between 0 "
            "and 1."
        )
    count = int(share * total + 0.5)
    if count == 0:
        raise ValueError(
            f"label_noise is {share} of {total} labeled images, which is less "
            f"than one; give at least {1 / total:.2g}, or 0."
        )
    if num_classes < 2:
        raise ValueError("label_noise needs a second class; there is only one.")
    random = np.random.RandomState([seed, _DRAWS["noise"]])
    wrong = np.sort(random.permutation(total)[:count])
    # Drawn for all images, so that a class does not depend on the share.
    shift = random.randint(1, num_classes, size=total)
    labels = data.labeled_labels.copy()
    labels[wrong] = (labels[wrong] + shift[wrong]) % num_classes
    return dataclasses.replace(
        data,
        labeled_labels=labels,
        chosen=_chosen(data, wrong=data.labeled_indices[wrong]),
    )


def hold_out(data, count, *, seed, part="feedback"):
    """Sets labeled images apart, so that no network is trained on them.

    They are balanced over the classes as far as possible, and every class keeps
    at least one labeled image. The seed draws the classes that give one more.

    Args:
      data: `ImageData`.
      count: number of labeled images to hold out, at least 1.
      seed: int in [0, 2**32).
      part: "feedback" or "validation", see `ImageData`.

    Returns:
      `ImageData` with the fields of `part`. Its labeled images are the rest;
      images with the pixels of held-out ones are removed from the unlabeled
      images. Copies that stay labeled are logged.

    Raises:
      ValueError: if there are too few, or some were held out already.
    """
    _require_memory(data)
    if part not in HELD_OUT:
        raise ValueError(f"part is {part!r}; choose one of {HELD_OUT}.")
    if getattr(data, f"{part}_images") is not None:
        raise ValueError(f"The data already has {part} images; hold out once.")
    labels = data.labeled_labels
    spare = len(labels) - len(np.unique(labels))
    if not 1 <= count <= spare:
        raise ValueError(
            f"num_{part} is {count}; of {len(labels)} labeled images 1 to "
            f"{spare} can be held out, as one of each class must stay to "
            "learn from."
        )
    random = np.random.RandomState([seed, _DRAWS[part]])
    held = _draw_balanced(labels, count, random=random)
    images = data.labeled_images[held]
    varied = dataclasses.replace(
        data,
        labeled_images=np.delete(data.labeled_images, held, axis=0),
        labeled_labels=np.delete(labels, held),
        labeled_indices=np.delete(data.labeled_indices, held),
        unlabeled_images=_without(data.unlabeled_images, images),
        chosen=_chosen(data, **{part: data.labeled_indices[held]}),
        **{f"{part}_images": images, f"{part}_labels": labels[held]},
    )
    warn_of_copies(varied, among=(part,))
    return varied


def _draw_balanced(labels, count, *, random):
    """Increasing positions of `count` images; each class keeps one."""
    order = random.permutation(len(labels))
    turn = np.empty(len(labels), np.int64)
    turn[order] = turns(labels[order])
    sizes = np.bincount(labels)
    spare = np.flatnonzero(turn < sizes[labels] - 1)
    rank = random.permutation(len(sizes))  # Classes that give first at the end.
    by_turn = np.lexsort((rank[labels[spare]], turn[spare]))
    return np.sort(spare[by_turn[:count]])


def _chosen(data, **changes):
    """The `LabelChoice` of what is about to be changed."""
    before = data.chosen or LabelChoice(
        indices=data.labeled_indices, labels=data.labeled_labels, changes={}
    )
    return dataclasses.replace(before, changes=before.changes | changes)


def _without(images, others):
    """The images that do not have the same pixels as one of the others."""
    unwanted = {digest_of(image) for image in others}
    kept = np.array(
        [digest_of(image) not in unwanted for image in images], bool
    )
    return images if kept.all() else images[kept]


def _require_memory(data):
    if not isinstance(data, ImageData):
        raise ValueError(
            "known_classes, label_noise, num_validation and num_feedback are "
            f"for images in memory, but {data.spec.name!r} stays in its files; "
            "leave them out, or use another data set."
        )
