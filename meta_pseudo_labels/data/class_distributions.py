"""A teacher's class probabilities for all images, kept in a file.

A fixed teacher labels every image once. A fingerprint ties the file to the
images: it does not load for other images, or for another order of them.
"""

import dataclasses
import hashlib
import json
import os
import zipfile

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.images import views
from meta_pseudo_labels.data.streams import ordered
from meta_pseudo_labels.data.streams.records import Records
from meta_pseudo_labels.utils.files import parse_json, replaces

CLASS_DISTRIBUTIONS = "class_distributions.npz"
_PARTS = ("labeled", "unlabeled")
_FACTS = (  # What identifies the data of a file.
    "dataset",
    "num_classes",
    "num_labeled",
    "num_unlabeled",
    "fingerprint",
)
# What reading raises if a file is cut off, or is something else.
_DAMAGE = (
    AttributeError,
    EOFError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)


@dataclasses.dataclass(frozen=True, eq=False)
class ClassDistributions:
    """What a classifier predicts for the images to train on.

    Attributes:
      labeled: [N, classes] float32, rows sum to 1, for `labeled_images`.
      unlabeled: [M, classes] float32, likewise, for `unlabeled_images`.
      source: where they come from, a dict for JSON.

    Raises:
      ValueError: if a row is not a distribution.
    """

    labeled: np.ndarray
    unlabeled: np.ndarray
    source: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for part in _PARTS:
            _check_rows(getattr(self, part), name=part)

    @property
    def digest(self):
        """Hexadecimal; equal for equal distributions."""
        hashed = hashlib.sha256()
        for part in _PARTS:
            _hash_array(hashed, getattr(self, part))
        return hashed.hexdigest()


def mean_distributions(several):
    """The mean of what several classifiers predict for the same images.

    Args:
      several: list of `ClassDistributions`; their order does not matter.

    Returns:
      `ClassDistributions`; its source lists all their sources as "mean_of".

    Raises:
      ValueError: if there is none, their numbers of images or classes differ,
        or two are the same: that one would count double.
    """
    if not several:
        raise ValueError("A mean needs at least one teacher; got none.")
    by_digest = {one.digest: one for one in several}
    if len(by_digest) < len(several):
        raise ValueError(
            "Two teachers predict the same for every image; name each once."
        )
    several = [by_digest[digest] for digest in sorted(by_digest)]
    means = {}
    for part in _PARTS:
        rows = [getattr(one, part) for one in several]
        shapes = sorted({one.shape for one in rows})
        if len(shapes) != 1:
            raise ValueError(
                "Class distributions must be of the same images and classes; "
                f"got the shapes {shapes} for the {part} ones."
            )
        total = np.zeros(shapes[0])
        for one in rows:
            total += one
        means[part] = (total / len(rows)).astype(np.float32)
    sources = [one.source for one in several]
    return ClassDistributions(**means, source={"mean_of": sources})


def save_class_distributions(distributions, path, *, data):
    """Writes distributions and what identifies their images, atomically.

    Args:
      distributions: `ClassDistributions`.
      path: the file to write, NumPy's .npz; its folder must exist.
      data: `ImageData` or `ShardedData`, the images.

    Raises:
      ValueError: unless there is one distribution for each image.
    """
    check_fits(distributions, data)
    facts = _facts(data) | {"source": distributions.source}
    with replaces(path) as scratch, open(scratch, "wb") as file:
        np.savez(
            file,
            labeled=distributions.labeled,
            unlabeled=distributions.unlabeled,
            facts=json.dumps(facts),
        )


def distributions_path(path):
    """The file that a path names, or that is in the run's folder it names."""
    path = os.fspath(path)
    return (
        os.path.join(path, CLASS_DISTRIBUTIONS) if os.path.isdir(path) else path
    )


def load_class_distributions(path, *, data):
    """Reads what `save_class_distributions` wrote for the same images.

    Args:
      path: the file, or the folder of the run that holds it.
      data: `ImageData` or `ShardedData`.

    Returns:
      `ClassDistributions`.

    Raises:
      ValueError: if there is no such file, it is damaged, or it was made for
        other images or labels.
    """
    path = distributions_path(path)
    try:
        with (
            open(path, "rb") as file,
            np.load(file, allow_pickle=False) as content,
        ):
            facts = parse_json(str(content["facts"]))
            parts = {part: content[part] for part in _PARTS}
        saved = {name: facts[name] for name in _FACTS}
        found = ClassDistributions(**parts, source=facts["source"])
    except FileNotFoundError:
        raise ValueError(
            f"There is no {path}; make it with `mpl cache_labels` from "
            "the run that trained the teacher."
        ) from None
    except _DAMAGE as error:
        raise ValueError(
            f"{path} cannot be read as class distributions ({error}); make it "
            "again with `mpl cache_labels`."
        ) from error
    if saved != (now := _facts(data)):
        raise ValueError(
            f"{path} was made for other data: {_describe(saved)}; this run has "
            f"{_describe(now)}. Its teacher must be trained on the same "
            "images, labels and classes, in the same order: use its --seed, "
            "with which --label_noise, --num_feedback and --num_validation "
            "draw too; without these three, repeat its choice with "
            "--label_subset=<its folder>/labeled.json. Or make the file again "
            "with `mpl cache_labels`."
        )
    check_fits(found, data)
    return found


def check_fits(distributions, data):
    """Raises ValueError unless there is one distribution for each image."""
    for part in _PARTS:
        shape = getattr(distributions, part).shape
        want = (len(getattr(data, f"{part}_images")), data.spec.num_classes)
        if shape != want:
            raise ValueError(
                f"The {part} distributions have the shape {list(shape)} for "
                f"{want[0]} images of {want[1]} classes; give one row each."
            )


def fingerprint(data):
    """A hash of the images and labels to train on, in their order.

    For records in files, it covers the names of the files and the place of each
    record: reading all of ImageNet would take as long as an epoch.

    Args:
      data: `ImageData` or `ShardedData`.

    Returns:
      64 hexadecimal digits.
    """
    hashed = hashlib.sha256()
    for part in _PARTS:
        _hash_images(hashed, getattr(data, f"{part}_images"))
    if hasattr(data, "labeled_labels"):  # Otherwise the records hold them.
        _hash_array(hashed, np.asarray(data.labeled_labels, np.int32))
    return hashed.hexdigest()


def images_digest(images, labels=None):
    """A hash of images in their order, and of their labels; see `fingerprint`.

    Args:
      images: [N, H, W, 3], or `Records`.
      labels: [N] integers; None for `Records`, which hold their own.

    Returns:
      64 hexadecimal digits.
    """
    hashed = hashlib.sha256()
    _hash_images(hashed, images)
    if labels is not None:
        _hash_array(hashed, np.asarray(labels, np.int32))
    return hashed.hexdigest()


def ordered_images(images, spec, *, batch_size):
    """All images once, in order, not augmented, including damaged ones.

    Args:
      images: [N, H, W, 3] uint8, or `Records`.
      spec: `DatasetSpec` of the images.
      batch_size: images per batch; the last batch may be smaller.

    Returns:
      tf.data.Dataset of ([b, H, W, 3] float32, normalized; [b] bool, whether
      the image is valid: false for a damaged record, which is blank).
    """
    if isinstance(images, Records):
        examples = ordered.ordered_examples(images, spec, labeled=False).map(
            lambda x: (x["image"], x["label"] != ordered.DAMAGED)
        )
    else:
        examples = tf.data.Dataset.from_tensor_slices(
            (images, np.ones([len(images)], bool))
        )

    def normalize(batch, found):
        return views.normalize(batch, mean=spec.mean, std=spec.std), found

    return examples.batch(batch_size).map(normalize).prefetch(tf.data.AUTOTUNE)


def _facts(data):
    """What the file says about its images, a dict for JSON."""
    values = (
        data.spec.name,
        data.spec.num_classes,
        len(data.labeled_images),
        len(data.unlabeled_images),
        fingerprint(data),
    )
    return dict(zip(_FACTS, values, strict=True))


def _describe(facts):
    return (
        f"{facts['num_labeled']} labeled and {facts['num_unlabeled']} "
        f"unlabeled images of {facts['dataset']}, {facts['num_classes']} "
        f"classes, fingerprint {facts['fingerprint'][:8]}"
    )


def _check_rows(rows, *, name):
    """Raises ValueError unless every row is a distribution over classes."""
    if rows.ndim != 2 or rows.dtype != np.float32:
        raise ValueError(
            f"{name} must be float32 [images, classes]; got {rows.dtype} "
            f"{list(rows.shape)}."
        )
    sums = rows.sum(axis=-1, dtype=np.float64)
    # A sum is NaN if an entry is.
    if not (np.abs(sums - 1) < 1e-3).all() or rows.min(initial=0) < 0:
        raise ValueError(
            f"A row of {name} is not a distribution: entries must be at least "
            "0 and sum to 1."
        )


def _hash_images(hashed, images):
    """Adds images to a hash; of `Records`, where they are."""
    if isinstance(images, Records):
        names = [os.path.basename(path) for path in images.paths]
        hashed.update(json.dumps(names).encode())
        _hash_array(hashed, images.shards)
        _hash_array(hashed, images.offsets)
    else:
        _hash_array(hashed, images)


def _hash_array(hashed, array):
    """Adds type, shape and bytes of an array to a hash."""
    array = np.ascontiguousarray(array)
    hashed.update(f"{array.dtype.str}{array.shape}".encode())
    hashed.update(array.data if array.size else b"")
