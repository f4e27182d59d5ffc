"""Images that look alike: shrunk, compressed again, a little brighter.

Equal pixels are for `duplicates`. Here each image is brought to 8 x 9 levels of
grey, and what is brighter than its neighbour makes 64 bits, a "difference
hash". Of a picture and its copy few of them differ.
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
MOST_PAIRS = 10_000  # Films have many; so many are enough to see it.
_MOST_BITS, _MOST_LEVELS = 4, 8  # By which two that look alike may differ.
_LEAST_CONTRAST = 6  # Levels; flat images all look alike.
_MOST_ALIKE = 4_000  # Images that are compared with each other at a time.
_CHUNK = 1_000
_LUMA = (0.299, 0.587, 0.114)  # What grey copies of pictures have.


def look_alikes(data):
    """Pairs of images that look alike, in two parts or with two classes.

    Args:
      data: `ImageData`.

    Returns:
      A list of pairs of (part, place in it), at most `MOST_PAIRS`, the most
      alike first. Labeled and unlabeled images are one part, and equal pixels
      no pair.
    """
    parts = images_by_part(data)
    owners = [
        (part, place)
        for part, images in parts.items()
        for place in range(len(images))
    ]
    greys = np.concatenate([small_greys(images) for images in parts.values()])
    found = []
    for one, other, bits in _pairs(greys, *_groups_and_labels(parts, data)):
        pair = owners[one], owners[other]
        if not _equal(*pair, parts):
            found.append((bits, one, other, pair))
        if len(found) == MOST_PAIRS:
            break
    return [pair for *_, pair in sorted(found)]


def facts(pairs, data):
    """What `look_alikes` returned, ready for json: see `duplicates.copies`."""
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


def small_greys(images):
    """Images as 8 x 9 levels of grey, without their brightness.

    Args:
      images: [N, S, S, 3] uint8.

    Returns:
      [N, 8, 9] float32.
    """
    greys = np.empty([len(images), 8, 9], np.float32)
    with tf.device("CPU:0"):
        for start in range(0, len(images), _CHUNK):
            part = slice(start, start + _CHUNK)
            small = tf.image.resize(images[part], [8, 9], "area")
            greys[part] = tf.linalg.matvec(small, _LUMA)
    return greys - greys.mean(axis=(1, 2), keepdims=True)


def difference_bits(greys):
    """Whether each level is above that to its left: [N, 64] bool."""
    return (np.diff(greys, axis=2) > 0).reshape(len(greys), 64)


def _groups_and_labels(parts, data):
    """What must not look alike: the part of each image and its class.

    Returns:
      [N] ints that are equal for those that are learned from, and [N] ints
      that are -1 where the class is not known or was made wrong.
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


def _pairs(greys, groups, labels):
    """Pairs of places whose images look alike, and by how many bits not.

    Of bits in one group more than may differ, some group is equal in both:
    only images that share one are compared.
    """
    bits = difference_bits(greys)
    codes = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    rich = np.flatnonzero(np.abs(greys).max(axis=(1, 2)) >= _LEAST_CONTRAST)
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
                more &= more - np.uint64(1)  # Without its last bit.
            for at in np.flatnonzero(wanted)[more == 0]:
                pair = tuple(sorted((int(one[at]), int(other[at]))))
                gap = np.abs(greys[one[at]] - greys[other[at]]).mean()
                if pair not in seen and gap <= _MOST_LEVELS:
                    seen.add(pair)
                    yield *pair, int((bits[one[at]] != bits[other[at]]).sum())


def _sharing(order, keys):
    """All pairs of places with the same key, those at one distance at a time.

    Many groups are small: one by one they would take most of the time.

    Args:
      order: [N] places, sorted by their keys.
      keys: [N] of them; of each the first `_MOST_ALIKE` places count.

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
