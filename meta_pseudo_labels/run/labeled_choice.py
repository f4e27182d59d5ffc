"""The images whose labels a run has learned: labeled.json."""

import dataclasses
import json
import os

import numpy as np
from absl import logging

from meta_pseudo_labels import data
from meta_pseudo_labels.data.class_distributions import images_digest
from meta_pseudo_labels.data.duplicates import names_of_image
from meta_pseudo_labels.data.image_data import ARRAYS, HELD_OUT
from meta_pseudo_labels.data.spec import same_names
from meta_pseudo_labels.run.folder import LABELED
from meta_pseudo_labels.utils.files import read_json, write_whole
from meta_pseudo_labels.utils.settings import ConfigError

_DEEPEST = 4  # How far below its folder a run keeps weights, in exports.
# In labeled.json besides the choice; old runs have none of them.
_FACTS = ("fingerprint", "class_names", "mean", "std", "names", "test_images")


def check_choice_of_labels(
    config, images, *, learns=True, trains=False, choice=None
):
    """Refuses to go on with a run that had other data.

    Args:
      config: `Config` of the run.
      images: `data.ImageData` or `data.ShardedData`.
      learns: whether the stage learns from the images. Tests and exports need
        the same choice, classes and normalization, but not the same pixels.
      trains: whether the stage may choose a best checkpoint by test images.
      choice: used in place of the choice in labeled.json, if not None.

    Raises:
      ConfigError: if its labeled.json names other images, was written for
        images with other pixels, or cannot be read.
    """
    path = os.path.join(config.output_dir, LABELED)
    if not os.path.exists(path):
        return
    saved, facts = _saved_choice(path)
    choice, changed = choice or saved, None
    now = data.labeled_choice(images)
    if choice["source"] == ARRAYS:  # Once the name of every plug-in's set.
        choice = choice | {"source": now["source"]}
    if _chosen(choice) != _chosen(now):
        difference = _difference(choice, now, facts["names"], _names(images))
        changed = f"{path} names other labeled images than those found now"
        changed += f" ({difference})"
    names = list(images.spec.class_names)
    if not same_names(facts["class_names"] or names, names):
        changed = changed or (
            f"{path} has the classes {', '.join(facts['class_names'])}, but "
            f"those found now are {', '.join(names)}"
        )
    for key in ("mean", "std"):
        used = getattr(images.spec, key)
        if facts[key] and not np.allclose(facts[key], used, rtol=0, atol=1e-5):
            changed = changed or (
                f"The {key} by which the run in {config.output_dir} normalizes "
                f"images is {_rounded(facts[key])}, but that of the data found "
                f"now is {_rounded(used)}"
            )
    if learns and not changed and facts["fingerprint"]:
        if facts["fingerprint"] != data.fingerprint(images):
            changed = f"{path} was written for images with other pixels"
    tested = _of_test_images(config, images) if trains else {}
    if tested and facts["test_images"] not in (None, *tested.values()):
        changed = changed or (
            f"{path} was written for other test images, by which --best_on="
            "test chose the best checkpoint"
        )
    if changed:
        raise ConfigError(
            f"{changed}: the data has changed since the run began. Restore it, "
            "or train in another --output_dir."
        )


def has_classes(path, class_names):
    """Whether weights are of a run with other classes: False if they are.

    Args:
      path: of the run, or of any file in it, such as a checkpoint or an export;
        or of any other file of weights.
      class_names: in the order of their numbers; () if unknown.
    """
    names = _class_names_of(path)
    return not names or not class_names or same_names(names, class_names)


def _class_names_of(path):
    """The classes of the run that a path lies in; None if they are unknown."""
    folder = os.path.abspath(path)
    for _ in range(_DEEPEST + 1):
        choice = os.path.join(folder, LABELED)
        if os.path.exists(choice):
            try:
                return _saved_choice(choice)[1]["class_names"]
            except ConfigError:  # The weights are fine.
                logging.warning(
                    "%s cannot be read, so it is not known whether its classes "
                    "are those of this run.",
                    choice,
                )
                return None
        folder = os.path.dirname(folder)
    return None


def as_trained(config, images):
    """The images found now, normalized as in training, for inspection only.

    A warning counts the labeled images if they are not those of the run.

    Args, Raises: see `check_choice_of_labels`; the choice may differ.
    """
    path = os.path.join(config.output_dir, LABELED)
    if not os.path.exists(path) or not isinstance(images, data.ImageData):
        return images
    choice, facts = _saved_choice(path)
    used = {key: tuple(facts[key]) for key in ("mean", "std") if facts[key]}
    spec = dataclasses.replace(images.spec, **used)
    images = dataclasses.replace(images, spec=spec)
    now = data.labeled_choice(images)
    check_choice_of_labels(config, images, learns=False, choice=now)
    if _chosen(choice) != _chosen(now):
        logging.warning(
            "%s names other labeled images than those found now (%s). The "
            "latter are used; which ones were held out may have changed.",
            path,
            _difference(choice, now, facts["names"], _names(images)),
        )
    return images


def _of_test_images(config, images):
    """{"test_images": hash} of those that choose a checkpoint; {} if none."""
    if config.best_on != "test":
        return {}
    labels = getattr(images, "test_labels", None)
    return {"test_images": images_digest(images.test_images, labels)}


def _chosen(choice):
    """A choice without how it came about, which need not be repeated."""
    how = ("label_subset", "seed", "files")
    return {key: value for key, value in choice.items() if key not in how}


def _names(images):
    """What the chosen images are called; None if they have no names."""
    if not getattr(images, "names", None):
        return None
    return [
        names_of_image(images, part, place)
        for part in ("labeled", *HELD_OUT)
        if getattr(images, f"{part}_labels") is not None
        for place in range(len(getattr(images, f"{part}_labels")))
    ]


def _difference(before, now, names, found):
    """How the present choice differs, with the first file that does."""
    counts = [np.size(choice.get("indices", ())) for choice in (now, before)]
    text = "{:,} for {:,}".format(*counts)
    if names is None or found is None:
        return text
    # A picture with copies has all their names, and keeps the others if one
    # comes or goes.
    before, after = (
        {one for name in several for one in name.split(" = ")}
        for several in (names, found)
    )
    for what, more, less in (
        ("no longer", before, after),
        ("not before", after, before),
    ):
        first = min(more - less, default=None)
        if first is not None:
            return f"{text}; {what} {first}"
    return text


def _saved_choice(path):
    """What labeled.json holds: the choice, and a dict of `_FACTS`."""
    try:
        choice = read_json(path)
        facts = {key: choice.pop(key, None) for key in _FACTS}
        for key in ("mean", "std"):
            if np.shape(np.float64(facts[key] or [])) not in ((0,), (1,), (3,)):
                raise ValueError(f"{key} is not a list of one number or three")
        texts = [*(facts["class_names"] or []), *(facts["names"] or [])]
        if not all(type(name) is str for name in texts):
            raise ValueError("the names of its classes or files are not text")
        return choice, facts
    except (
        ArithmeticError,
        AttributeError,
        OSError,
        TypeError,
        ValueError,
    ) as error:
        raise ConfigError(
            f"{path} cannot be read as the run's choice of labels: {error}. "
            "Restore it, or train in another --output_dir."
        ) from error


def save_choice_of_labels(config, images):
    """Writes labeled.json, from which the choice can be repeated.

    Besides the choice, it holds what reveals changed data: a fingerprint of the
    images that are learned from, the names of the classes in the order of their
    numbers, what normalizes images, and their files, if they have any.
    """
    content = data.labeled_choice(images) | {
        "fingerprint": data.fingerprint(images),
        "class_names": list(images.spec.class_names),
        "mean": list(images.spec.mean),
        "std": list(images.spec.std),
    }
    content |= _of_test_images(config, images)
    names = _names(images)
    if names is not None:
        content["names"] = names
    text = json.dumps(content) + "\n"
    write_whole(os.path.join(config.output_dir, LABELED), text)


def _rounded(numbers):
    return ", ".join(f"{number:.4f}" for number in numbers)
