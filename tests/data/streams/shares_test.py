"""Shares of the batches: what replicas and workers see, and what they read."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data.images import photo_views
from meta_pseudo_labels.data.images.view_settings import ViewSettings
from meta_pseudo_labels.data.streams import pipeline, record_rows, records
from meta_pseudo_labels.distribute import shares
from tests import jpeg_records
from tests.batch_parts import assert_equal, part, take

SETTINGS = dict(batch_size=8, unlabeled_ratio=3, magnitude=9, seed=7)
STEPS = 6
SHARES = [
    # (replicas, first, count), the step that it begins with
    ((1, 0, 1), 0),
    ((2, 0, 2), 0),
    ((4, 1, 2), 2),
    ((8, 5, 1), 0),
]


@pytest.fixture(scope="module")
def digits():
    """With flips, so that no operation of the views is left out."""
    got = data.load("digits", num_labeled=60, label_subset="balanced", seed=0)
    got = data.hold_out(got, count=20, part="feedback", seed=0)
    spec = dataclasses.replace(got.spec, flip=True)
    return dataclasses.replace(got, spec=spec)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """5 labeled and 11 unlabeled records, one of the latter damaged."""
    folder = tmp_path_factory.mktemp("records")
    jpeg_records.write_split(folder, "ten_percent", [2, 3])
    jpeg_records.write_split(folder, "train", [4, 1, 6])
    jpeg_records.damage(folder / "train-00002-of-00003", 2)

    return data.ShardedData(
        spec=data.DatasetSpec(
            name="mine",
            num_classes=25,
            image_size=8,
            mean=(0.5, 0.4, 0.3),
            std=(0.2, 0.3, 0.4),
            flip=True,
        ),
        labeled_images=jpeg_records.index(folder, "ten_percent"),
        unlabeled_images=jpeg_records.index(folder, "train"),
        test_images=records.no_records(),
    )


def numbered(images):
    """A class distribution for each image, which tells its number."""

    def rows(count):
        table = np.zeros([count, images.spec.num_classes], np.float32)
        table[:, 0] = (np.arange(count) + 1) / (2 * count)
        table[:, 1] = 1 - table[:, 0]
        return table

    return data.ClassDistributions(
        labeled=rows(len(images.labeled_images)),
        unlabeled=rows(len(images.unlabeled_images)),
        source={"model_type": "mlp"},
    )


def parts(batches, replicas, first, count):
    """What a share of these batches holds, as it is promised."""
    return [
        part(batch, replica, replicas)
        for batch in batches
        for replica in range(first, first + count)
    ]


class Stream:
    """The training batches of one kind of data, whole and in shares."""

    def __init__(self, images, **settings):
        self.images, self.settings = images, SETTINGS | settings
        self.whole = take(self.shared(None), STEPS)

    def shared(self, share, **settings):
        return data.training_dataset(
            self.images, **self.settings | settings, share=share
        )


KINDS = {
    "arrays": ("digits", dict(augment_labeled=True)),
    "keras_cv": ("digits", dict(policy="keras_cv")),
    "records": ("sharded", dict(augment_labeled=True)),
}


@pytest.fixture(scope="module", params=KINDS)
def stream(request):
    images, settings = KINDS[request.param]
    images = request.getfixturevalue(images)
    if "policy" in settings:
        pytest.importorskip("keras_cv")
    return Stream(images, distributions=numbered(images), **settings)


@pytest.mark.fast("arrays-wanted2-2")
@pytest.mark.parametrize("wanted, start", SHARES)
def test_shares_are_rows_of_the_whole_batches(stream, wanted, start):
    share = data.Share(*wanted)
    dataset = stream.shared(share, start_step=start)
    got = take(dataset, (STEPS - start) * share.count)
    assert_equal(got, parts(stream.whole[start:], *wanted))
    shapes = {key: x.shape for key, x in got[0].items()}
    assert {
        key: tuple(x.shape) for key, x in dataset.element_spec.items()
    } == shapes  # They are static.


@pytest.mark.long
def test_all_parts_are_there(digits, sharded):
    common = ["labeled", "labels", "weak", "strong"]
    tables = ["labeled_distributions", "unlabeled_distributions"]
    for images, more in [
        (digits, ["feedback", "feedback_labels"]),
        (sharded, []),
    ]:
        dataset = data.training_dataset(
            images,
            **SETTINGS,
            distributions=numbered(images),
            share=data.Share(2, 0, 2),
        )
        assert sorted(dataset.element_spec) == sorted(common + tables + more)
        rows = {key: x.shape[0] for key, x in dataset.element_spec.items()}
        unlabeled = ("weak", "strong", "unlabeled_distributions")
        assert rows == {key: 12 if key in unlabeled else 4 for key in rows}


@pytest.mark.long
@pytest.mark.parametrize("images", ["digits", "sharded"])
def test_indices_tell_which_images_are_shown(images, request):
    """As the tables of distributions do, and nothing else changes."""
    images = request.getfixturevalue(images)
    make = functools.partial(
        data.training_dataset, images, **SETTINGS, start_step=2
    )
    plain = take(make(), 3)
    told = take(make(indices=True, distributions=numbered(images)), 3)
    for before, batch in zip(plain, told, strict=True):
        indices = batch.pop("unlabeled_indices")
        shown = batch.pop("unlabeled_distributions")
        np.testing.assert_array_equal(
            numbered(images).unlabeled[indices], shown
        )
        del batch["labeled_distributions"]
        assert_equal([batch], [before])
    share = data.Share(2, 1, 1)
    (half,) = take(make(indices=True, share=share), 1)
    (whole,) = take(make(indices=True), 1)
    np.testing.assert_array_equal(
        half["unlabeled_indices"], whole["unlabeled_indices"][12:]
    )


@pytest.mark.fast("digits")
@pytest.mark.parametrize("images", ["digits", "sharded"])
def test_finetuning_batches_are_shared_alike(images, request):
    images = request.getfixturevalue(images)
    whole = take(data.finetuning_dataset(images, 6, 0), 5)
    share = data.Share(3, 1, 2)
    got = take(data.finetuning_dataset(images, 6, 0, share=share), 10)
    assert_equal(got, parts(whole, 3, 1, 2))
    got = take(data.finetuning_dataset(images, 6, 0, 3, share=share), 4)
    assert_equal(got, parts(whole[3:], 3, 1, 2))


def image_tensors(graph):
    """Shapes of all tensors of a graph that hold images, with pixels."""
    for function in [graph, *(f.graph for f in graph._functions.values())]:
        for operation in function.get_operations():
            for tensor in operation.outputs:
                if tensor.shape.rank == 4 and tensor.shape.as_list()[-1]:
                    yield tensor.shape.as_list()


@pytest.mark.long
@pytest.mark.parametrize("policy", ["release", "keras_cv"])
def test_only_its_own_images_are_gathered_and_augmented(digits, policy):
    if policy == "keras_cv":
        pytest.importorskip("keras_cv")
    parts = pipeline._training_parts(
        digits,
        batch_size=8,
        unlabeled_ratio=3,
        distributions=None,
        balanced=False,
        seed=7,
        view_settings=ViewSettings(
            magnitude=9, policy=policy, augment_labeled=True
        ),
    )

    def sizes(share):
        """How many images the tensors of a graph hold, where it is known."""
        graph = tf.function(
            lambda number: [
                part(share.turn(number)) for part in parts.values()
            ],
            autograph=False,
        ).get_concrete_function(tf.TensorSpec([], tf.int64))
        held = {len(digits.labeled_images), len(digits.unlabeled_images)}
        held.add(len(digits.feedback_images))
        sizes = {shape[0] for shape in image_tensors(graph.graph)}
        return sizes - held - {None}

    assert {8, 24} <= sizes(shares.WHOLE)
    shared = sizes(data.Share(4, 1, 1))
    assert {2, 6} <= shared and not {8, 24} & shared


@pytest.mark.long
def test_only_its_own_records_are_decoded(sharded, monkeypatch):
    seen = []
    decode = photo_views.decode_random_crop

    def count(encoded, **settings):
        def note(crop_seed):
            seen.append(tuple(crop_seed))
            return np.int64(0)

        noted = tf.numpy_function(note, [settings["seed"]], tf.int64)
        with tf.control_dependencies([noted]):
            return decode(encoded, **settings)

    monkeypatch.setattr(photo_views, "decode_random_crop", count)
    read = record_rows.record_rows(
        sharded.labeled_images,
        sharded.spec,
        batch_size=8,
        seed=7,
        stream=0,
        name="labeled",
    )

    def decoded(share, number):
        """The crops that one element of a share takes, each by its key."""
        seen.clear()
        rows = read(share.turn(tf.constant(number, tf.int64)))
        assert len(rows["labels"]) == len(seen)
        return sorted(seen)

    whole = decoded(shares.WHOLE, 5)
    assert len(set(whole)) == 8
    split = [decoded(data.Share(4, 0, 4), 20 + r) for r in range(4)]
    assert [len(crop) for crop in split] == [2, 2, 2, 2]
    assert sorted(sum(split, [])) == whole


@pytest.mark.parametrize("images", ["digits", "sharded"])
@pytest.mark.parametrize(
    "batch_size, replicas, sizes",
    [(6, 4, "such as 4 or 8"), (3, 8, "such as 8,"), (9, 2, "8 or 10")],
)
def test_batches_that_cannot_be_split(
    images, batch_size, replicas, sizes, request
):
    images = request.getfixturevalue(images)
    share = data.Share(replicas, 0, 1)
    message = f"batch_size is {batch_size}, which {replicas} .*{sizes}"
    with pytest.raises(ValueError, match=message):
        data.training_dataset(
            images, **SETTINGS | dict(batch_size=batch_size), share=share
        )
    with pytest.raises(ValueError, match=message):
        data.finetuning_dataset(images, batch_size, 0, share=share)


@pytest.mark.parametrize(
    "wrong", [(2, 2, 1), (2, 1, 2), (2, 0, 0), (2, -1, 1), (0, 0, 1)]
)
def test_shares_of_no_replicas(wrong):
    with pytest.raises(ValueError, match="asks for the replicas"):
        data.Share(*wrong)


@pytest.mark.long
@pytest.mark.parametrize("images", ["digits", "sharded"])
def test_two_trainers_share_a_service(images, request):
    """Each has a job of its own: none takes the other's elements."""
    images = request.getfixturevalue(images)
    settings = SETTINGS | dict(unlabeled_ratio=1, start_step=2)
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    worker = service.WorkerServer(
        service.WorkerConfig(
            dispatcher_address=dispatcher.target.split("://")[1],
            heartbeat_interval_ms=100,
        )
    )
    trainers = [
        data.training_dataset(
            images,
            **settings,
            share=data.Share(4, first, 2),
            service=dispatcher.target,
        ).as_numpy_iterator()
        for first in (0, 2)
    ]
    whole = take(data.training_dataset(images, **settings), 4)
    got = [[next(trainer) for trainer in trainers] for _ in range(8)]
    for first, own in zip((0, 2), zip(*got, strict=True), strict=True):
        assert_equal(own, parts(whole, 4, first, 2))
    del worker
