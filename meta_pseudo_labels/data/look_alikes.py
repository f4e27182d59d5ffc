"""Images that look alike: shrunk, compressed again, a little brighter.

`duplicates` finds equal pixels. Here each image is reduced to 8 x 9 levels of
gray; whether each is brighter than its neighbor gives 64 bits, a "difference
hash". Between a picture and its copy, few of these bits differ.
"""

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.duplicates import (
    LEARNED,
    digest_of,
    images_by_part,
    names_of_image,
)

SHOWN = 12  # Pairs on a sheet.
MOST_PAIRS = 10_000  # Enough to notice it; frames of films have many more.
_MOST_BITS, _MOST_LEVELS = 4, 8  # Largest differences of two that look alike.
_LEAST_CONTRAST = 6  # Levels; flat images all look alike.
_MOST_ALIKE = 4_000  # Images that are compared with each other at a time.
_CHUNK = 1_000
_LUMA = (0.299, 0.587, 0.114)  # The weights used for gray copies of pictures.


def look_alikes(data):
    """Pairs of images that look alike, in two parts or with two classes.

    Args:
      data: `ImageData`.

    Returns:
      A list of pairs of (part, place in it), at most `MOST_PAIRS`, the most
      alike first. Labeled and unlabeled images count as one part; images with
      equal pixels are not a pair.
    """
    parts = images_by_part(data)
    owners = [
        (part, place)
        for part, images in parts.items()
        for place in range(len(images))
    ]
    grays = np.concatenate([small_grays(images) for images in parts.values()])
    found = []
    for one, other, bits in _pairs(grays, *_groups_and_labels(parts, data)):
        pair = owners[one], owners[other]
        if not _equal(*pair, parts):
            found.append((bits, one, other, pair))
        if len(found) == MOST_PAIRS:
            break
    return [pair for *_, pair in sorted(found)]


def facts(pairs, data):
    """The result of `look_alikes`, ready for JSON: see `duplicates.copies`."""
    kinds = {}
    for pair in pairs:
        (one, _), (other, _) = pair
        what = f"pairs of {other} and {one} images that look alike"
        if one == other:
            what = f"pairs of {one} images of two classes that look alike"
        kinds.setdefault(what, []).append(pair)
    return [
        {
            "what": what,
            "count": len(found),
            "examples": [
                [names_of_image(data, *owner) for owner in pair]
                for pair in found[:3]
            ],
        }
        for what, found in kinds.items()
    ]


def small_grays(images):
    """Images as 8 x 9 levels of gray, without their brightness.

    Args:
      images: [N, S, S, 3] uint8.

    Returns:
      [N, 8, 9] float32.
    """
    grays = np.empty([len(images), 8, 9], np.float32)
    with tf.device("CPU:0"):
        for start in range(0, len(images), _CHUNK):
            part = slice(start, start + _CHUNK)
            small = tf.image.resize(images[part], [8, 9], "area")
            grays[part] = tf.linalg.matvec(small, _LUMA)
    return grays - grays.mean(axis=(1, 2), keepdims=True)


def difference_bits(grays):
    """Whether each level is above the one to its left: [N, 64] bool."""
    return (np.diff(grays, axis=2) > 0).reshape(len(grays), 64)


def _groups_and_labels(parts, data):
    """What images that look alike must share: their part and their class.

    Returns:
      [N] ints, the parts, the same for all images to train on; and [N] ints,
      the classes, -1 if not known or if labels were made wrong.
    """
    wrong = data.chosen is not None and "wrong" in data.chosen.changes
    groups, labels = [], []
    for number, (part, images) in enumerate(parts.items()):
        groups += [-1 if part in LEARNED else number] * len(images)
        known = getattr(data, f"{part}_labels", None)
        if known is None or wrong:
            known = [-1] * len(images)
        labels += list(known)
    return np.array(groups), np.array(labels)


def _pairs(grays, groups, labels):
    """Pairs of places whose images look alike, and how many bits differ.

    The bits are split into one group more than bits may differ, so at least
    one group is equal in both: only images that share a group are compared.
    """
    bits = difference_bits(grays)
    codes = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    rich = np.flatnonzero(np.abs(grays).max(axis=(1, 2)) >= _LEAST_CONTRAST)
    seen = set()
    for some in np.array_split(np.arange(64), _MOST_BITS + 1):
        keys = bits[:, some] @ (1 << np.arange(len(some)))
        order = rich[np.argsort(keys[rich], kind="stable")]
        for one, other in _sharing(order, keys[order]):
            wanted = groups[one] != groups[other]
            wanted |= (labels[one] != labels[other]) & (
                np.minimum(labels[one], labels[other]) >= 0
            )
            more = codes[one[wanted]] ^ codes[other[wanted]]
            for _ in range(_MOST_BITS):
                more &= more - np.uint64(1)  # Clears the lowest set bit.
            for at in np.flatnonzero(wanted)[more == 0]:
                pair = tuple(sorted((int(one[at]), int(other[at]))))
                gap = np.abs(grays[one[at]] - grays[other[at]]).mean()
                if pair not in seen and gap <= _MOST_LEVELS:
                    seen.add(pair)
                    yield *pair, int((bits[one[at]] != bits[other[at]]).sum())


def _sharing(order, keys):
    """All pairs of places with the same key, one distance at a time.

    Many groups are small: going through them one by one would take most of the
    time.

    Args:
      order: [N] places, sorted by their keys.
      keys: [N] keys; only the first `_MOST_ALIKE` places of each are used.

    Yields:
      Two arrays of places.
    """
    first = np.searchsorted(keys, keys)
    kept = np.arange(len(keys)) - first < _MOST_ALIKE
    order, keys = order[kept], keys[kept]
    starts = np.arange(len(order))
    for distance in range(1, len(order)):
        starts = starts[: np.searchsorted(starts, len(order) - distance)]
        starts = starts[keys[starts] == keys[starts + distance]]
        if not len(starts):
            return
        yield order[starts], order[starts + distance]


def _equal(one, other, parts):
    first, second = (parts[part][place] for part, place in (one, other))
    return digest_of(first) == digest_of(second)
