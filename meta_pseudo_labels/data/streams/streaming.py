"""tf.data pipelines over records in files, exact and resumable.

The promise and the order are those of pipeline.py: element `step` is a
function of (seed, step) alone, and each epoch is a true permutation of all
records, not a window of them. A step reads its records where they lie, so a
stream that starts late reads nothing of what went before. One source element
is one turn (a step, or a replica's rows of it), and all is plain graph: the
tf.data service may hand out the turns to any number of workers.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data.images import photo_views, views
from meta_pseudo_labels.data.spec import DatasetSpec
from meta_pseudo_labels.data.streams import keyed
from meta_pseudo_labels.data.streams.crops import crop_batches, with_rows
from meta_pseudo_labels.data.streams.record_checks import skip_reporter
from meta_pseudo_labels.data.streams.records import Records
from meta_pseudo_labels.data.streams.service import through_service
from meta_pseudo_labels.distribute.shares import WHOLE

_STEPS_AT_ONCE = 2  # One is decoded while the next one begins.


@dataclasses.dataclass(frozen=True, eq=False)
class ShardedData:
    """Images and labels of one semi-supervised problem, in files.

    What `ImageData` is for arrays; the pipelines take either.

    Attributes:
      spec: the facts; image_size is what images are cropped and resized to.
      labeled_images, unlabeled_images, test_images: `Records`; the last two
        may be empty. Their labels stand in the records.
      skip_counter: [] int64 variable, which counts damaged records whenever
        they are met in training; None for no count.
      skipped, label_subset, seed: see `ImageData`; none is skipped beforehand.

    Raises:
      ValueError: if there is no labeled record.
    """

    spec: DatasetSpec
    labeled_images: Records
    unlabeled_images: Records
    test_images: Records
    skip_counter: tf.Variable | None = None
    skipped: tuple[str, ...] = ()
    label_subset: str | None = None
    seed: int | None = None

    def __post_init__(self):
        if len(self.labeled_images) == 0:
            raise ValueError(
                "labeled_images is empty; give at least one labeled record."
            )

    @property
    def labeled_indices(self):
        """[N] int64: the first records of their source, see `ImageData`."""
        return np.arange(len(self.labeled_images))

    @property
    def test_labels(self):
        """None: they stand in the records."""


def training_dataset(
    data,
    *,
    batch_size,
    unlabeled_ratio,
    view_settings,
    seed,
    start_step=0,
    service=None,
    distributions=None,
    share=WHOLE,
):
    """The endless stream of training batches.

    Args:
      data: `ShardedData`.
      view_settings: `ViewSettings`.
      batch_size, unlabeled_ratio, seed, start_step, service, distributions,
        share: see `pipeline.training_dataset`, which checks them.

    Returns:
      tf.data.Dataset of dicts, see `pipeline.training_dataset`; the views are
      those of photo_views.py.
    """
    labeled = _labeled_batches(
        data,
        batch_size=batch_size,
        seed=seed,
        stream=keyed.LABELED,
        strong_view=photo_views.labeled_strong(data.spec, view_settings)
        if view_settings.augment_labeled
        else None,
    )
    if distributions is not None:
        labeled = with_rows(
            labeled, "labeled_distributions", distributions.labeled
        )
    parts, sources = [labeled], [data.labeled_images]
    if unlabeled_ratio:
        unlabeled = _unlabeled_batches(
            data,
            batch_size=batch_size * unlabeled_ratio,
            seed=seed,
            strong_view=photo_views.strong(data.spec, view_settings),
        )
        if distributions is not None:
            unlabeled = with_rows(
                unlabeled, "unlabeled_distributions", distributions.unlabeled
            )
        parts, sources = [labeled, unlabeled], [*sources, data.unlabeled_images]
    turns = _turns(parts, start_step, share, service)
    batches = _report(turns, sources, data.skip_counter)
    return batches.prefetch(tf.data.AUTOTUNE)


def finetuning_dataset(data, *, batch_size, seed, start_step=0, share=WHOLE):
    """The endless stream of labeled batches, weak views only.

    Args: as for `training_dataset`.

    Returns:
      tf.data.Dataset of ([B, H, W, 3] float32, [B] int32).
    """
    labeled = _labeled_batches(
        data, batch_size=batch_size, seed=seed, stream=keyed.FINETUNING
    )
    batches = _turns([labeled], start_step, share)
    batches = _report(batches, [data.labeled_images], data.skip_counter)
    return batches.map(lambda x: (x["labeled"], x["labels"])).prefetch(
        tf.data.AUTOTUNE
    )


def _labeled_batches(data, *, batch_size, seed, stream, strong_view=None):
    """A function from a turn to a data set of one {"labeled", "labels"}.

    Beside these are "number" and "skipped" of `crop_batches`.
    """
    crops = crop_batches(
        data.labeled_images,
        data.spec,
        batch_size=batch_size,
        seed=seed,
        stream=stream,
    )
    weak_view = photo_views.weak_view(data.spec)

    def batch(turn):
        def view(crop):
            rows = turn.rows(batch_size)
            key = keyed.key(seed, stream, keyed.WEAK, turn.step)
            image = weak_view(crop.pop("image"), key, rows)
            if strong_view:
                key = keyed.key(seed, stream, keyed.STRONG, turn.step)
                image = strong_view(image, key, rows)
            labeled = _normalize(image, data.spec)
            return crop | {"labeled": labeled, "labels": crop.pop("label")}

        return crops(turn).map(view)

    return batch


def _unlabeled_batches(data, *, batch_size, seed, strong_view):
    """A function from a turn to a data set of one {"weak", "strong"}.

    Beside these are "number" and "skipped" of `crop_batches`.
    """
    stream = keyed.UNLABELED
    crops = crop_batches(
        data.unlabeled_images,
        data.spec,
        batch_size=batch_size,
        seed=seed,
        stream=stream,
        labeled=False,
    )
    weak_view = photo_views.weak_view(data.spec)

    def batch(turn):
        def view(crop):
            del crop["label"]
            image, rows = crop.pop("image"), turn.rows(batch_size)
            key = keyed.key(seed, stream, keyed.WEAK, turn.step)
            weak = weak_view(image, key, rows)
            # Of the crop, not of its weak view, which may be flipped.
            key = keyed.key(seed, stream, keyed.STRONG, turn.step)
            strong = strong_view(image, key, rows)
            return crop | {
                "weak": _normalize(weak, data.spec),
                "strong": _normalize(strong, data.spec),
            }

        return crops(turn).map(view)

    return batch


def _turns(parts, start_step, share, service=None):
    """The data set of tuples of the parts' batches, turn by turn.

    Args:
      parts: functions from a turn to a data set of one batch.
      start_step: int.
      share: `Share`.
      service: address of a tf.data service, or None.
    """

    def batches(number):
        turn = share.turn(number)
        return tf.data.Dataset.zip(tuple(part(turn) for part in parts))

    first = share.first_number(start_step)
    if service:
        return through_service(
            lambda number: batches(number).get_single_element(),
            service,
            start_step=first,
        )
    numbers = tf.data.Dataset.range(first, np.iinfo(np.int64).max)
    return numbers.interleave(
        _plain(batches),
        cycle_length=_STEPS_AT_ONCE,
        num_parallel_calls=_STEPS_AT_ONCE,
        deterministic=True,
    )


def _report(batches, sources, counter):
    """Merges tuples of batches; names and counts what was skipped."""
    reporters = [skip_reporter(records, counter) for records in sources]

    def report(*parts):
        reports = [
            reporter(part.pop("number"), part.pop("skipped"))
            for reporter, part in zip(reporters, parts, strict=True)
        ]
        merged = {key: x for part in parts for key, x in part.items()}
        with tf.control_dependencies(reports):
            return tf.nest.map_structure(tf.identity, merged)

    return batches.map(_plain(report))


def _plain(function):
    """Nothing here needs AutoGraph, which makes tracing much slower."""
    return tf.autograph.experimental.do_not_convert(function)


def _normalize(images, spec):
    return views.normalize(images, mean=spec.mean, std=spec.std)
