import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data.images import views
from meta_pseudo_labels.data.images.view_settings import ViewSettings
from meta_pseudo_labels.data.streams import keyed
from tests.batch_parts import assert_equal, take

SETTINGS = dict(batch_size=3, unlabeled_ratio=2, magnitude=10, seed=7)


def problem(labeled=5, unlabeled=11, size=8):
    """Images told apart by their one color, the count of the image."""
    spec = data.DatasetSpec(
        name="mine",
        num_classes=5,
        image_size=size,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.4),
        flip=True,
    )

    def images(count):
        color = np.arange(count, dtype=np.uint8)[:, None, None, None]
        return np.tile(color, [1, size, size, 3])

    return data.ImageData(
        spec=spec,
        labeled_images=images(labeled),
        labeled_labels=np.arange(labeled, dtype=np.int32) % 5,
        unlabeled_images=images(unlabeled),
        test_images=images(4),
        test_labels=np.int32([3, 2, 1, 0]),
        labeled_indices=np.arange(labeled),
    )


def counts(images):
    """The image's own count, read off its center, which no crop grays."""
    red = (images[:, 4, 4, 0] * 0.2 + 0.5) * 255
    return np.round(red).astype(int).tolist()


@pytest.fixture(scope="module")
def training():
    return data.training_dataset(problem(), **SETTINGS)


@pytest.fixture(scope="module")
def batches(training):
    """The first steps; tests leave them as they are."""
    return take(training, 55)


@pytest.mark.long
def test_batches_have_the_contract_s_shapes(training):
    spec = training.element_spec
    assert {k: (v.shape.as_list(), v.dtype) for k, v in spec.items()} == {
        "labeled": ([3, 8, 8, 3], tf.float32),
        "labels": ([3], tf.int32),
        "weak": ([6, 8, 8, 3], tf.float32),
        "strong": ([6, 8, 8, 3], tf.float32),
    }


def test_ratio_zero_leaves_the_labeled_part_as_it_is(batches):
    alone = data.training_dataset(
        problem(unlabeled=0), **SETTINGS | dict(unlabeled_ratio=0)
    )
    want = [{k: b[k] for k in ("labeled", "labels")} for b in batches[:3]]
    assert_equal(take(alone, 3), want)


@pytest.mark.long
def test_augmented_labeled_images(batches):
    """The other parts of the stream stay as they are, bit for bit."""
    got = take(
        data.training_dataset(problem(), **SETTINGS, augment_labeled=True), 9
    )
    for one, other in zip(got, batches[:9], strict=True):
        for key in ("labels", "weak", "strong"):
            np.testing.assert_array_equal(one[key], other[key])
    labeled = np.concatenate([batch["labeled"] for batch in got])
    plain = np.concatenate([batch["labeled"] for batch in batches[:9]])
    changed = np.any(labeled != plain, axis=(1, 2, 3))
    # The cutout, 4 x 4 in the middle, always leaves a mark.
    assert changed.all()
    alone = data.training_dataset(
        problem(unlabeled=0),
        **SETTINGS | dict(unlabeled_ratio=0),
        augment_labeled=True,
        start_step=4,
    )
    np.testing.assert_array_equal(
        take(alone, 1)[0]["labeled"], got[4]["labeled"]
    )


@pytest.mark.long
def test_augmented_labeled_images_equal_the_views():
    """The weak view of the stream, then RandAugment and cutout."""
    settings = SETTINGS | dict(unlabeled_ratio=0)
    got = problem()
    (plain,) = take(data.training_dataset(got, **settings), 1)
    (batch,) = take(
        data.training_dataset(got, **settings, augment_labeled=True), 1
    )
    pixels = (plain["labeled"] * got.spec.std + got.spec.mean) * 255
    view = views.labeled_strong(got.spec, ViewSettings(magnitude=10))
    key = keyed.key(7, keyed.LABELED, keyed.STRONG, 0)
    want = view(tf.constant(np.rint(pixels).astype(np.uint8)), key)
    want = data.normalize(want, mean=got.spec.mean, std=got.spec.std)
    np.testing.assert_allclose(batch["labeled"], want, atol=1e-6)


def test_labels_belong_to_their_images(batches):
    for batch in batches:
        assert counts(batch["labeled"]) == batch["labels"].tolist()


@pytest.mark.long
def test_weak_and_strong_show_the_same_image():
    """At magnitude 5 the blends do nothing, so many colors stay."""
    settings = SETTINGS | dict(batch_size=100, magnitude=5)
    (batch,) = take(data.training_dataset(problem(), **settings), 1)
    same = np.equal(counts(batch["weak"]), counts(batch["strong"]))
    # Views of unrelated images would agree once in eleven times.
    assert same.mean() > 0.4


@pytest.mark.parametrize("key, total", [("labeled", 5), ("weak", 11)])
def test_each_epoch_is_a_permutation(batches, key, total):
    stream = sum((counts(batch[key]) for batch in batches), [])
    epochs = np.reshape(stream[: len(stream) // total * total], [-1, total])
    assert len(epochs) > 20
    for epoch in epochs:
        assert sorted(epoch) == list(range(total))
    assert len({tuple(epoch) for epoch in epochs}) > 20
    # Every place of an epoch sees (nearly) every example.
    assert min(len(set(column)) for column in epochs.T) > total // 2


@pytest.mark.parametrize("total", [40, 2_000])
def test_orders_do_not_come_again_in_later_epochs_or_other_seeds(total):
    """By epoch 256 a cipher keyed by eight bits has used them up."""

    def start(epoch, seed):
        first = keyed.examples(
            tf.constant(epoch * total // 10, tf.int64),
            batch_size=10,
            total=total,
            seed=seed,
            stream=0,
        )
        return tuple(first.numpy().tolist())

    epochs = [*range(5), *range(256, 261)]
    assert len({start(epoch, seed=5) for epoch in epochs}) == 10
    assert len({start(0, seed) for seed in range(60)}) == 60


def test_batch_may_span_several_epochs():
    settings = SETTINGS | dict(batch_size=15, unlabeled_ratio=0)
    (batch,) = take(data.training_dataset(problem(), **settings), 1)
    epochs = np.reshape(counts(batch["labeled"]), [3, 5])
    assert np.sort(epochs).tolist() == [[0, 1, 2, 3, 4]] * 3


def test_streams_of_one_seed_are_not_correlated():
    def first_epoch(stream):
        return keyed.examples(
            tf.constant(0, tf.int64),
            batch_size=100,
            total=100,
            seed=0,
            stream=stream,
        ).numpy()

    streams = {keyed.LABELED, keyed.UNLABELED, keyed.FINETUNING, keyed.FEEDBACK}
    assert len(streams) == 4
    orders = [first_epoch(s) for s in streams]
    for one, other in itertools.combinations(orders, 2):
        assert np.sum(one == other) < 8
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.4


@pytest.mark.fast("1")
@pytest.mark.parametrize("start", [1, 40])
def test_stream_from_a_step_is_the_tail(batches, start):
    tail = data.training_dataset(problem(), **SETTINGS, start_step=start)
    assert_equal(take(tail, 6), batches[start : start + 6])


def test_stream_is_independent_of_parallelism(training, batches):
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    assert_equal(take(training.with_options(options), 55), batches)


def test_same_seed_same_stream(training, batches):
    assert_equal(take(training, 3), batches[:3])


@pytest.mark.long
def test_other_seed_other_stream(batches):
    again = data.training_dataset(problem(), **SETTINGS | dict(seed=8))
    (other,) = take(again, 1)
    assert np.any(batches[0]["labeled"] != other["labeled"])
    assert np.any(batches[0]["strong"] != other["strong"])


@pytest.mark.long
def test_views_of_one_image_differ():
    """Six epochs of one image in each batch."""
    single = data.training_dataset(problem(unlabeled=1), **SETTINGS)
    (batch,) = take(single, 1)
    assert len({image.tobytes() for image in batch["strong"]}) > 1


def test_late_steps_do_not_overflow():
    dataset = data.training_dataset(problem(), **SETTINGS, start_step=2**40)
    (batch,) = take(dataset, 1)
    assert counts(batch["labeled"]) == batch["labels"].tolist()


def test_finetuning_shows_weak_views_in_pairs():
    dataset = data.finetuning_dataset(problem(), 5, 0)
    batches = take(dataset, 4)
    for images, labels in batches:
        assert (images.shape, labels.dtype) == ((5, 8, 8, 3), np.int32)
        assert counts(images) == labels.tolist()
        assert sorted(labels) == [0, 1, 2, 3, 4]
    tail = data.finetuning_dataset(problem(), 5, 0, start_step=2)
    assert_equal(take(tail, 2), batches[2:])


def kept(images):
    """Pixels of the image's own color, at most, in a row of each image."""
    own = (images == images[:, 4:5, 4:5]).all(axis=-1)
    return own.any(axis=1).sum(axis=1)


@pytest.mark.parametrize("key", ["labeled", "weak", "feedback"])
@pytest.mark.parametrize("padding", [0, 3])
def test_streams_shift_by_as_many_pixels_as_told(key, padding):
    held_out = dataclasses.replace(
        problem(),
        feedback_images=problem().labeled_images,
        feedback_labels=problem().labeled_labels,
    )
    settings = SETTINGS | dict(magnitude=0, cutout_share=0)
    stream = data.training_dataset(held_out, **settings, crop_padding=padding)
    images = np.concatenate([batch[key] for batch in take(stream, 40)])
    assert kept(images).min() == 8 - padding


@pytest.mark.parametrize("padding", [0, 3])
def test_finetuning_shifts_by_as_many_too(padding):
    stream = data.finetuning_dataset(problem(), 5, 0, crop_padding=padding)
    images = np.concatenate([images for images, _ in take(stream, 20)])
    assert kept(images).min() == 8 - padding


def test_evaluation_shows_all_once_in_order():
    got = problem()
    dataset = data.evaluation_dataset(
        got.test_images, got.test_labels, got.spec, 3
    )
    (first, first_labels), (second, second_labels) = take(dataset, 5)
    assert counts(first) + counts(second) == [0, 1, 2, 3]
    assert [*first_labels, *second_labels] == [3, 2, 1, 0]
    want = (got.test_images / 255 - got.spec.mean) / got.spec.std
    np.testing.assert_allclose(first, want[:3], rtol=1e-5)


def test_evaluation_checks_its_arrays():
    got = problem()
    with pytest.raises(ValueError, match="images has type float64"):
        data.evaluation_dataset(
            got.test_images / 255, got.test_labels, got.spec, 3
        )
    with pytest.raises(ValueError, match="labels has values from 3 to 6"):
        data.evaluation_dataset(
            got.test_images, got.test_labels + 3, got.spec, 3
        )


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(batch_size=0), "batch_size is 0"),
        (dict(batch_size=-2), "batch_size is -2"),
        (dict(unlabeled_ratio=-1), "unlabeled_ratio is -1"),
        (dict(start_step=-1), "start_step is -1"),
        (dict(magnitude=-1), "magnitude is -1"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        data.training_dataset(problem(), **SETTINGS | wrong)


def test_ratio_without_unlabeled_images_is_refused():
    with pytest.raises(ValueError, match="no unlabeled images left"):
        data.training_dataset(problem(unlabeled=0), **SETTINGS)


def test_own_arrays_take_the_same_path(batches):
    got = problem()
    mine = data.from_arrays(
        got.labeled_images,
        got.labeled_labels.tolist(),
        got.unlabeled_images,
        mean=got.spec.mean,
        std=got.spec.std,
    )
    stream = data.training_dataset(mine, **SETTINGS)
    assert_equal(take(stream, 3), batches[:3])
