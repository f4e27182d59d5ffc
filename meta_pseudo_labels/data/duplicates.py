"""Pictures that are both among those to train on and those to evaluate on.

Training on a copy of a test image makes accuracy look better than it is; a copy
with another class makes it look worse. Copies are found by equal pixels, as
networks get them. Labeled images may be among the unlabeled ones: that is not
a leak.
"""

import collections
import hashlib
import itertools

from absl import logging

from meta_pseudo_labels.data.image_data import HELD_OUT

LEARNED = ("labeled", "unlabeled")
_NAMED = 3  # Copies named in a line.
_SIDE = 8  # Pixels per side that are compared first.


def warn_of_copies(data, *, among=("test",)):
    """Logs which parts share pictures, and which pictures have two classes.

    Args:
      data: `ImageData`.
      among: parts; pairs with at least one of them are checked. Classes are
        checked only if "test" is one of them, that is, once.
    """
    for line in lines(copies(data, among=among)):
        logging.warning("%s.", line)


def warn_of_learned(images, data, *, where):
    """Logs how many images from outside a data set are also trained on.

    Args:
      images: [N, S, S, 3] uint8, S as in the data.
      data: `ImageData`.
      where: what to call the images.
    """
    learned = {part: getattr(data, f"{part}_images") for part in LEARNED}
    found = [
        group
        for _, group in equal_images({where: images} | learned)
        if group[0][0] == where and group[-1][0] in LEARNED
    ]
    if found:
        logging.warning(
            "%d of %s are also trained on: equal pixels.", len(found), where
        )


def warn_of_two_classes(images, labels, *, where):
    """Logs how many pictures have two classes.

    Args:
      images: [N, S, S, 3] uint8.
      labels: [N] ints.
      where: what to call the images.
    """
    groups = [group for _, group in equal_images({where: images})]
    twice = [g for g in groups if len({labels[place] for _, place in g}) > 1]
    if twice:
        logging.warning(
            "%d pictures of %s have two classes, by equal pixels.",
            len(twice),
            where,
        )


def copies(data, *, among=("test", *HELD_OUT)):
    """The pictures that are in two parts, or have two classes.

    Args:
      data: `ImageData`.
      among: see `warn_of_copies`.

    Returns:
      A list of dicts: "what" the pictures are, "count", and "examples" of at
      most three, each a list of two names or more.
    """
    parts = images_by_part(data)
    groups = equal_images(parts)
    found = [
        _found(
            f"{part} images that are {other} images too",
            [
                (digest, _first_of(members, part, other))
                for digest, members in groups
                if {part, other} <= {name for name, _ in members}
            ],
            data,
        )
        for part, other in itertools.combinations(reversed(parts), 2)
        if {part, other} & {*among} and {part, other} != {*LEARNED}
    ]
    wrong = data.chosen is not None and "wrong" in data.chosen.changes
    if "test" in among and not wrong:  # Otherwise it is on purpose.
        found.append(_two_classes(groups, data))
    return [entry for entry in found if entry["count"]]


def lines(found, how="by equal pixels"):
    """The result of `copies` as text, one line per entry."""
    return [
        f"{entry['count']:,} {entry['what']}, {how}: "
        + "; ".join(map(" = ".join, entry["examples"]))
        for entry in found
    ]


def images_by_part(data):
    """A dict of the parts of a data set that have images, in a fixed order."""
    parts = {
        part: getattr(data, f"{part}_images", None)
        for part in ("labeled", "unlabeled", *HELD_OUT, "test")
    }
    return {
        part: images
        for part, images in parts.items()
        if images is not None and len(images)
    }


def names_by_digest(parts):
    """The names of images; images with the same pixels share a list of names.

    Args:
      parts: list of pairs: images [N, S, S, 3] uint8 and their N names.

    Returns:
      A dict from the digest of an image to a list of names.
    """
    found = collections.defaultdict(list)
    for images, names in parts:
        for image, name in zip(images, names, strict=True):
            found[digest_of(image)].append(name)
    return dict(found)


def names_of_image(data, part, place):
    """The file of an image, or all files with its pixels; else its place."""
    image = getattr(data, f"{part}_images")[place]
    names = (data.names or {}).get(digest_of(image))
    return " = ".join(names) if names else f"{part} image {place}"


def equal_images(parts):
    """Groups of images with the same pixels.

    Args:
      parts: a dict of images [N, S, S, 3] uint8, S the same in all.

    Returns:
      A list of pairs: a digest, and the members of its group, two or more pairs
      of a part and a place in it, in the order of the parts.
    """
    alike = collections.defaultdict(list)
    for part, images in parts.items():
        step = max(1, images.shape[1] // _SIDE)  # A few pixels tell most apart.
        for place, sample in enumerate(images[:, ::step, ::step]):
            alike[sample.tobytes()].append((part, place))
    equal = collections.defaultdict(list)
    for members in alike.values():
        if len(members) > 1:
            for part, place in members:
                equal[digest_of(parts[part][place])].append((part, place))
    return [(key, group) for key, group in equal.items() if len(group) > 1]


def digest_of(image):
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _two_classes(groups, data):
    """The pictures that have two classes."""
    labels = {
        part: getattr(data, f"{part}_labels")
        for part in images_by_part(data)
        if part != "unlabeled"
    }
    found = []
    for digest, members in groups:
        classes = {}
        for part, place in members:
            if part in labels:
                classes.setdefault(int(labels[part][place]), (part, place))
        if len(classes) > 1:
            found.append((digest, list(classes.values())))
    return _found("images with two classes", found, data)


def _first_of(members, *parts):
    return [next(m for m in members if m[0] == part) for part in parts]


def _found(what, groups, data):
    return {
        "what": what,
        "count": len(groups),
        "examples": [
            _names(digest, members, data) for digest, members in groups[:_NAMED]
        ],
    }


def _names(digest, members, data):
    """The files that hold a picture, or else its places in the arrays."""
    return list((data.names or {}).get(digest, ())) or [
        f"{part} image {place}" for part, place in members
    ]
