"""The `tf.data` data sets for training, finetuning and evaluation.

Training streams are exact and resumable, see engine.py.
"""

import functools

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.class_distributions import check_fits
from meta_pseudo_labels.data.image_data import (
    check_images,
    check_labels,
)
from meta_pseudo_labels.data.images import photo_views, views
from meta_pseudo_labels.data.images.view_settings import ViewSettings
from meta_pseudo_labels.data.sharded_data import ShardedData
from meta_pseudo_labels.data.streams import engine, keyed, ordered
from meta_pseudo_labels.data.streams.array_rows import array_rows
from meta_pseudo_labels.data.streams.record_rows import record_rows, reported
from meta_pseudo_labels.data.streams.records import Records
from meta_pseudo_labels.distribute.shares import WHOLE

# Batches of records at once: while one is decoded, the next one begins.
_DECODED = 2


def training_dataset(
    data,
    *,
    batch_size,
    unlabeled_ratio,
    magnitude,
    seed,
    cutout_share=0.5,
    policy="release",
    augment_labeled=False,
    alternate_flips=False,
    crop_padding=None,
    balanced=False,
    start_step=0,
    service=None,
    distributions=None,
    indices=False,
    share=None,
):
    """The endless stream of training batches.

    Args:
      data: `ImageData`, or `ShardedData`, whose views are those of
        photo_views.py: they have no cutout, so `cutout_share` is not used.
      batch_size: labeled images in a batch, B >= 1 (all replicas together).
      unlabeled_ratio: unlabeled images per labeled one, mu >= 0; U = B * mu.
      magnitude, cutout_share, policy: of the strong view, see `strong_view`.
      augment_labeled: whether labeled images get RandAugment and a cutout
        after their flip and crop, see `views.labeled_strong`. This is the
        release's --use_augment, which its UDA and MPL runs ignore.
      alternate_flips: whether weak views are mirrored in every other epoch, a
        random half of the images in the first, rather than at random each
        time. Only for `ImageData`.
      crop_padding: largest shift of a view in pixels; None is an eighth of the
        side. Only for `ImageData`.
      balanced: whether every class that occurs comes equally often in labeled
        and in feedback batches, see `keyed.balanced_examples`; otherwise every
        image does. Only for `ImageData`.
      seed: int, fixes all randomness of the stream.
      start_step: the step of the first batch, >= 0.
      service: address of a tf.data service whose workers make the batches,
        grpc://host:port; None makes them here. The stream is the same. Each of
        several trainers has a job of its own there, for its share.
      distributions: `ClassDistributions` of these images; None for none.
      indices: whether to add the indices of the unlabeled images.
      share: `Share` of the batches: instead of each batch, the parts of the
        share's replicas one after another, B/R and U/R rows each. None for
        whole batches.

    Returns:
      tf.data.Dataset of dicts: "labeled" [B, H, W, 3] float32, normalized;
      "labels" [B] int32; and unless mu is 0, "weak" and "strong"
      [U, H, W, 3] float32, two views of the same unlabeled images. With
      `distributions` also those of the same images, "labeled_distributions"
      [B, classes] and "unlabeled_distributions" [U, classes] float32. With
      `indices` also "unlabeled_indices" [U] int64, from 0. If `data` has
      feedback images and mu is not 0, also weak views of these and their
      labels, "feedback" [B, H, W, 3] and "feedback_labels" [B].

    Raises:
      ValueError: if a setting is out of range, mu > 0 and `data` has no
        unlabeled images, the replicas of `share` cannot have equal parts, or
        the service does not answer.
    """
    keyed.check_stream(batch_size=batch_size, start_step=start_step)
    share = share or WHOLE
    share.check(batch_size)
    if unlabeled_ratio < 0:
        raise ValueError(
            f"unlabeled_ratio is {unlabeled_ratio}; give an integer >= 0."
        )
    if unlabeled_ratio and len(data.unlabeled_images) == 0:
        raise ValueError(
            f"unlabeled_ratio is {unlabeled_ratio} but {data.spec.name!r} has "
            "no unlabeled images left; label fewer or set it to 0."
        )
    if distributions is not None:
        check_fits(distributions, data)
    view_settings = ViewSettings(
        magnitude=magnitude,
        cutout_share=cutout_share,
        policy=policy,
        augment_labeled=augment_labeled,
        alternate_flips=alternate_flips,
        crop_padding=crop_padding,
    )
    if alternate_flips:
        _check_alternate_flips(data)
    if balanced:
        _check_labels_known(data)
    parts = _training_parts(
        data,
        batch_size=batch_size,
        unlabeled_ratio=unlabeled_ratio,
        distributions=distributions,
        indices=indices,
        seed=seed,
        view_settings=view_settings,
        balanced=balanced,
    )
    return _stream(
        data, parts, start_step=start_step, share=share, service=service
    ).prefetch(tf.data.AUTOTUNE)


def finetuning_dataset(
    data,
    batch_size,
    seed,
    start_step=0,
    share=None,
    *,
    balanced=False,
    crop_padding=None,
):
    """The endless stream of labeled batches, weak views only.

    Args: as for `training_dataset`.

    Returns:
      tf.data.Dataset of ([B, H, W, 3] float32, [B] int32); with `share`, B/R.
    """
    keyed.check_stream(batch_size=batch_size, start_step=start_step)
    share = share or WHOLE
    share.check(batch_size)
    if balanced:
        _check_labels_known(data)
    part = _part(
        data,
        "labeled",
        _views(data, ViewSettings(magnitude=0, crop_padding=crop_padding)),
        batch_size,
        keyed.FINETUNING,
        seed=seed,
        balanced=balanced,
    )
    batches = _stream(
        data, {"labeled": part}, start_step=start_step, share=share
    )
    pairs = batches.map(lambda batch: (batch["labeled"], batch["labels"]))
    return pairs.prefetch(tf.data.AUTOTUNE)


def validation_dataset(data, batch_size):
    """All held-out validation images once, like `evaluation_dataset`.

    Args:
      data: `ImageData` with validation images, see `hold_out`.
      batch_size: images per batch; the last batch may be smaller.

    Returns:
      tf.data.Dataset of ([b, H, W, 3] float32, [b] int32).

    Raises:
      ValueError: if `data` has no validation images.
    """
    if getattr(data, "validation_images", None) is None:
        raise ValueError(
            f"{data.spec.name!r} has no validation images; set some labeled "
            "images apart with hold_out(..., part='validation'), or "
            "--num_validation on the command line."
        )
    return evaluation_dataset(
        data.validation_images,
        data.validation_labels,
        spec=data.spec,
        batch_size=batch_size,
    )


def evaluation_dataset(images, labels, spec, batch_size, skip_counter=None):
    """All images once, in order, normalized and not augmented.

    Args:
      images: [N, H, W, 3] uint8, or `Records`.
      labels: [N] int; None for `Records`, which hold theirs.
      spec: `DatasetSpec` of both.
      batch_size: images per batch; the last batch may be smaller.
      skip_counter: for damaged `Records`, see `ordered.evaluation_dataset`.

    Returns:
      tf.data.Dataset of ([b, H, W, 3] float32, [b] int32).
    """
    keyed.check_stream(batch_size=batch_size, start_step=0)
    if isinstance(images, Records):
        return ordered.evaluation_dataset(
            images, spec=spec, batch_size=batch_size, skip_counter=skip_counter
        )
    images, labels = np.asarray(images), np.asarray(labels)
    check_images(images, spec, name="images")
    check_labels(labels, spec, count=len(images), name="labels")
    dataset = tf.data.Dataset.from_tensor_slices(
        (images, labels.astype(np.int32))
    )
    return (
        dataset.batch(batch_size)
        .map(lambda x, y: (_normalize(x, spec), y))
        .prefetch(tf.data.AUTOTUNE)
    )


def _training_parts(
    data,
    *,
    batch_size,
    unlabeled_ratio,
    distributions,
    seed,
    view_settings,
    balanced,
    indices=False,
):
    """The parts of a training batch by name, see `training_dataset`."""
    part = functools.partial(
        _part,
        data,
        seed=seed,
        distributions=distributions,
        balanced=balanced,
        alternate_flips=view_settings.alternate_flips,
    )
    views_of = functools.partial(_views, data, view_settings)
    weak = views_of()
    labeled = views_of(labeled_strong=view_settings.augment_labeled)
    parts = {"labeled": part("labeled", labeled, batch_size, keyed.LABELED)}
    if not unlabeled_ratio:
        return parts
    unlabeled = views_of(strong=True)
    count = batch_size * unlabeled_ratio
    parts["unlabeled"] = part(
        "unlabeled", unlabeled, count, keyed.UNLABELED, indices=indices
    )
    if getattr(data, "feedback_images", None) is not None:
        parts["feedback"] = part("feedback", weak, batch_size, keyed.FEEDBACK)
    return parts


def _check_labels_known(data):
    """Refuses data whose labels are known only when its images are read."""
    if isinstance(data, ShardedData):
        raise ValueError(
            f"balanced=True needs to know all labels, but {data.spec.name!r} "
            "stays in its files. Leave it out."
        )


def _check_alternate_flips(data):
    """Refuses images that cannot be mirrored in every other epoch."""
    if isinstance(data, ShardedData):
        raise ValueError(
            f"alternate_flips=True: {data.spec.name!r} is read from files; "
            "only images in memory can be mirrored in every other epoch. Leave "
            "it out."
        )
    if not data.spec.flip:
        raise ValueError(
            f"alternate_flips=True: images of {data.spec.name!r} must not be "
            "mirrored. Leave it out."
        )


def _views(data, settings, *, strong=False, labeled_strong=False):
    """The `engine.Views` of a data set's images.

    Args:
      data: `ImageData` or `ShardedData`.
      settings: `ViewSettings`.
      strong, labeled_strong: whether to make these in addition to weak ones.
    """
    sharded = isinstance(data, ShardedData)
    kind, spec = photo_views if sharded else views, data.spec
    return engine.Views(
        weak=kind.weak(spec, settings),
        strong=kind.strong(spec, settings) if strong else None,
        labeled_strong=kind.labeled_strong(spec, settings)
        if labeled_strong
        else None,
        # A photograph's strong view is made from the crop, not from its weak
        # view, which may be flipped.
        of_weak=not sharded,
        finish=functools.partial(_normalize, spec=spec),
    )


def _part(
    data,
    name,
    kind,
    batch_size,
    stream,
    *,
    seed,
    distributions=None,
    indices=False,
    alternate_flips=False,
    balanced=False,
):
    """One part of the stream of a data set.

    Args:
      data: `ImageData` or `ShardedData`.
      name: "labeled", "unlabeled" or "feedback".
      kind: `engine.Views`.
      batch_size, stream, seed: see `engine.labeled_part`.
      distributions: `ClassDistributions`, or None.
      indices: whether to add the indices of these images, "<name>_indices".
      alternate_flips: see `ViewSettings`.
      balanced: whether the classes of labeled rows come equally often.
    """
    keys = dict(batch_size=batch_size, seed=seed, stream=stream)
    images = getattr(data, f"{name}_images")
    beside = {}
    table = getattr(distributions, name, None)
    if table is not None:
        beside[f"{name}_distributions"] = table
    if indices:
        beside[f"{name}_indices"] = np.arange(len(images))
    if isinstance(data, ShardedData):
        read = record_rows(images, data.spec, name=name, beside=beside, **keys)
    else:
        arrays, classes = {"inputs": images, **beside}, None
        if name != "unlabeled":
            key = "labels" if name == "labeled" else f"{name}_labels"
            labels = getattr(data, f"{name}_labels")
            arrays[key] = np.asarray(labels, np.int32)
            classes = labels if balanced else None
        read = array_rows(
            arrays,
            len(images),
            alternate_flips=alternate_flips,
            classes=classes,
            **keys,
        )
    if name == "unlabeled":
        return engine.unlabeled_part(read, kind, **keys)
    return engine.labeled_part(read, kind, name=name, **keys)


def _stream(data, parts, **settings):
    """The engine's stream of the named parts of a data set."""
    if not isinstance(data, ShardedData):
        return engine.stream(parts.values(), **settings)
    batches = engine.stream(parts.values(), at_once=_DECODED, **settings)
    sources = {name: getattr(data, f"{name}_images") for name in parts}
    return reported(batches, sources, data.skip_counter)


def _normalize(images, spec):
    return views.normalize(images, mean=spec.mean, std=spec.std)
