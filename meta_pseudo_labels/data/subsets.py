"""Which images keep their labels."""

import numpy as np

LABEL_SUBSETS = ("balanced", "first")


def labeled_positions(
    labels, *, num_labeled, num_classes, seed, label_subset="balanced"
):
    """Chooses the images that keep their labels.

    Args:
      labels: [N] int, in [0, num_classes), in the order of the source.
      num_labeled: how many in all, or None for all N.
      num_classes: number of classes.
      seed: int in [0, 2**32), draws the balanced ones.
      label_subset: "balanced", as many of each class, drawn by the seed; or
        "first", the first `num_labeled` as they come: the release's choice
        (`cifar10_4000` takes the first 4,000 records of train.bin).

    Returns:
      [num_labeled] int64, increasing positions in `labels`.

    Raises:
      ValueError: if there is no such subset or number of examples.
    """
    if label_subset not in LABEL_SUBSETS:
        raise ValueError(
            f"label_subset is {label_subset!r}; choose one of "
            f"{', '.join(LABEL_SUBSETS)}."
        )
    if num_labeled is None:
        num_labeled = len(labels)
    if label_subset == "first":
        return first_indices(labels, num_labeled=num_labeled)
    return balanced_indices(
        labels, num_labeled=num_labeled, num_classes=num_classes, seed=seed
    )


def first_indices(labels, *, num_labeled):
    """The first examples, whatever their classes: [num_labeled] int64."""
    if not 1 <= num_labeled <= len(labels):
        raise ValueError(
            f"num_labeled is {num_labeled}; give 1 to {len(labels)}, the "
            "number of labels that there are."
        )
    return np.arange(num_labeled, dtype=np.int64)


def balanced_indices(labels, *, num_labeled, num_classes, seed):
    """Draws the same number of examples of every class.

    Args:
      labels: [N] int, in [0, num_classes).
      num_labeled: how many in all: a multiple of num_classes, or N for all.
      num_classes: number of classes.
      seed: int in [0, 2**32); the same one draws the same examples.

    Returns:
      [num_labeled] int64, increasing positions in `labels`.

    Raises:
      ValueError: if there is no such number of examples.
    """
    if num_labeled == len(labels):
        return np.arange(len(labels), dtype=np.int64)
    if num_labeled < 1 or num_labeled % num_classes:
        raise ValueError(
            f"num_labeled is {num_labeled}; give a positive multiple of the "
            f"{num_classes} classes, or {len(labels)} for all labels."
        )
    per_class = num_labeled // num_classes
    rarest = np.bincount(labels, minlength=num_classes).min()
    if per_class > rarest:
        raise ValueError(
            f"num_labeled is {num_labeled}, {per_class} of each class, but "
            f"the rarest class has {rarest}; give at most "
            f"{rarest * num_classes}, or {len(labels)} for all labels."
        )
    # RandomState's streams are frozen for ever; those of newer generators
    # may change with NumPy's version.
    order = np.random.RandomState(seed).permutation(len(labels))
    chosen = [
        order[labels[order] == label][:per_class]
        for label in range(num_classes)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)
