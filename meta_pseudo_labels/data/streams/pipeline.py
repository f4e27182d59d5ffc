"""tf.data pipelines over arrays in memory, exact and resumable.

Element `step` of a training stream is a function of (seed, step) alone:

* the batch holds the stream's positions step * B + j, j = 0..B-1;
* position p shows example shuffle(p mod N) of epoch p div N, where each epoch
  has a true permutation of its own (not a shuffle buffer);
* the random draws of its views are keyed by (seed, step) and the place j.

So the stream from step k is the tail of the stream from step 0, whatever the
number of threads: a killed run goes on where it was. And a batch may be split
over replicas, see shares.py: together they see what one device would see.
"""

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.class_distributions import check_fits
from meta_pseudo_labels.data.image_data import (
    check_images,
    check_labels,
)
from meta_pseudo_labels.data.images import views
from meta_pseudo_labels.data.images.view_settings import ViewSettings
from meta_pseudo_labels.data.streams import keyed, ordered, streaming
from meta_pseudo_labels.data.streams.array_batches import (
    labeled_batches,
    unlabeled_batches,
)
from meta_pseudo_labels.data.streams.keyed import FEEDBACK, FINETUNING, LABELED
from meta_pseudo_labels.data.streams.records import Records
from meta_pseudo_labels.data.streams.service import through_service
from meta_pseudo_labels.distribute.shares import WHOLE


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
    start_step=0,
    service=None,
    distributions=None,
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
        after their flip and crop, see `views.labeled_strong`. The release's
        --use_augment, which its UDA and MPL runs do not heed.
      seed: int, all randomness of the stream.
      start_step: the step of the first batch, >= 0.
      service: address of a tf.data service whose workers make the batches,
        grpc://host:port; None makes them here. The stream is the same. With
        several trainers each has a job of its own there, for its share.
      distributions: `ClassDistributions` of these images; None for none.
      share: `Share` of the batches: instead of each batch, the parts of the
        share's replicas one after another, B/R and U/R rows each. None for
        whole batches.

    Returns:
      tf.data.Dataset of dicts: "labeled" [B, H, W, 3] float32, normalised;
      "labels" [B] int32; and unless mu is 0, "weak" and "strong"
      [U, H, W, 3] float32, two views of the same unlabeled images. With
      `distributions` also those of the same images, "labeled_distributions"
      [B, classes] and "unlabeled_distributions" [U, classes] float32. Where
      `data` has feedback images, and mu is not 0, also weak views of these
      and their labels, "feedback" [B, H, W, 3] and "feedback_labels" [B].

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
    )
    if isinstance(data, streaming.ShardedData):
        return streaming.training_dataset(
            data,
            batch_size=batch_size,
            unlabeled_ratio=unlabeled_ratio,
            distributions=distributions,
            view_settings=view_settings,
            seed=seed,
            start_step=start_step,
            service=service,
            share=share,
        )
    parts = _training_parts(
        data,
        batch_size=batch_size,
        unlabeled_ratio=unlabeled_ratio,
        distributions=distributions,
        seed=seed,
        view_settings=view_settings,
    )

    def batch(turn):
        return {key: x for part in parts for key, x in part(turn).items()}

    return _turns(batch, start_step, share, service)


def finetuning_dataset(data, batch_size, seed, start_step=0, share=None):
    """The endless stream of labeled batches, weak views only.

    Args: as for `training_dataset`.

    Returns:
      tf.data.Dataset of ([B, H, W, 3] float32, [B] int32); with `share` B/R.
    """
    keyed.check_stream(batch_size=batch_size, start_step=start_step)
    share = share or WHOLE
    share.check(batch_size)
    if isinstance(data, streaming.ShardedData):
        return streaming.finetuning_dataset(
            data,
            batch_size=batch_size,
            seed=seed,
            start_step=start_step,
            share=share,
        )
    batches = labeled_batches(
        data, batch_size=batch_size, seed=seed, stream=FINETUNING
    )

    def pair(turn):
        batch = batches(turn)
        return batch["labeled"], batch["labels"]

    return _turns(pair, start_step, share)


def validation_dataset(data, batch_size):
    """All held-out validation images once, as `evaluation_dataset`.

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
            "images apart with hold_out(..., part='validation'), on the "
            "command line --num_validation."
        )
    return evaluation_dataset(
        data.validation_images,
        data.validation_labels,
        spec=data.spec,
        batch_size=batch_size,
    )


def evaluation_dataset(images, labels, spec, batch_size, skip_counter=None):
    """All images once, in order, normalised and not augmented.

    Args:
      images: [N, H, W, 3] uint8, or `Records`.
      labels: [N] int; None for `Records`, which hold theirs.
      spec: `DatasetSpec` of both.
      batch_size: images per batch; the last batch may be smaller.
      skip_counter: of damaged `Records`, see `ordered.evaluation_dataset`.

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
):
    """Functions from a turn to a part of its batch."""
    common = dict(batch_size=batch_size, seed=seed)
    strong_view = None
    if view_settings.augment_labeled:
        strong_view = views.labeled_strong(data.spec, view_settings)
    labeled = labeled_batches(
        data,
        stream=LABELED,
        strong_view=strong_view,
        distributions=distributions and distributions.labeled,
        **common,
    )
    if not unlabeled_ratio:
        return [labeled]
    unlabeled = unlabeled_batches(
        data,
        batch_size=batch_size * unlabeled_ratio,
        strong_view=views.strong(data.spec, view_settings),
        seed=seed,
        distributions=distributions and distributions.unlabeled,
    )
    if data.feedback_images is None:
        return [labeled, unlabeled]
    feedback = labeled_batches(data, stream=FEEDBACK, part="feedback", **common)
    return [labeled, unlabeled, feedback]


def _turns(batch, start_step, share, service=None):
    """The data set of batch(turn) for all turns of a share from a step on."""

    def numbered(number):
        return batch(share.turn(number))

    first = share.first_number(start_step)
    if service:
        return through_service(numbered, service, start_step=first)
    # Nothing here needs AutoGraph, which makes tracing several times slower.
    numbered = tf.autograph.experimental.do_not_convert(numbered)
    numbers = tf.data.Dataset.range(first, np.iinfo(np.int64).max)
    return numbers.map(
        numbered, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    ).prefetch(tf.data.AUTOTUNE)


def _normalize(images, spec):
    return views.normalize(images, mean=spec.mean, std=spec.std)
