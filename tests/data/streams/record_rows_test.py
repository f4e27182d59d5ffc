import dataclasses
import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data import sharded_data
from meta_pseudo_labels.data.images import photo_views
from meta_pseudo_labels.data.streams import keyed, records
from tests import jpeg_records
from tests.batch_parts import assert_equal, take

SPEC = data.DatasetSpec(
    name="mine",
    num_classes=25,
    image_size=8,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.3, 0.4),
    flip=True,
)
SETTINGS = dict(batch_size=3, unlabeled_ratio=2, magnitude=9, seed=7)
LABELED, UNLABELED, TEST = 5, 11, 4


def problem(folder, **settings):
    return sharded_data.ShardedData(
        spec=SPEC,
        labeled_images=jpeg_records.index(folder, "ten_percent"),
        unlabeled_images=jpeg_records.index(folder, "train"),
        test_images=jpeg_records.index(folder, "validation"),
        **settings,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    jpeg_records.write_split(folder, "ten_percent", [2, 3])
    jpeg_records.write_split(folder, "train", [4, 1, 6])
    jpeg_records.write_split(folder, "validation", [1, 3], first=5)
    return folder


@pytest.fixture(scope="module")
def training(folder):
    return data.training_dataset(problem(folder), **SETTINGS)


@pytest.fixture(scope="module")
def batches(training):
    """The first steps; tests leave them as they are."""
    return take(training, 24)


@pytest.mark.long
def test_batches_have_the_contract_s_shapes(training):
    spec = training.element_spec
    assert {k: (v.shape.as_list(), v.dtype) for k, v in spec.items()} == {
        "labeled": ([3, 8, 8, 3], tf.float32),
        "labels": ([3], tf.int32),
        "weak": ([6, 8, 8, 3], tf.float32),
        "strong": ([6, 8, 8, 3], tf.float32),
    }


@pytest.mark.long
def test_labels_belong_to_their_images(batches):
    for batch in batches:
        shown = jpeg_records.shades(batch["labeled"], SPEC)
        assert shown == batch["labels"].tolist()


@pytest.mark.parametrize(
    "key, stream, total", [("labeled", 0, LABELED), ("weak", 1, UNLABELED)]
)
def test_each_epoch_is_a_permutation(batches, key, stream, total):
    shown = sum((jpeg_records.shades(b[key], SPEC) for b in batches), [])
    epochs = np.reshape(shown[: len(shown) // total * total], [-1, total])
    assert len(epochs) > 12
    for epoch in epochs:
        assert sorted(epoch) == list(range(total))
    assert len({tuple(epoch) for epoch in epochs}) > 10
    # It is the order that arrays in memory have.
    want = keyed.examples(
        tf.constant(0, tf.int64),
        batch_size=len(shown),
        total=total,
        seed=7,
        stream=stream,
    )
    assert shown == want.numpy().tolist()


# The epochs of 5 and 11 images end within steps 1, 3, 5, 6, 8, ...
@pytest.mark.fast("5")
@pytest.mark.parametrize("start", [1, 2, 5, 17])
def test_stream_from_a_step_is_the_tail(folder, batches, start):
    tail = data.training_dataset(problem(folder), **SETTINGS, start_step=start)
    assert_equal(take(tail, 5), batches[start : start + 5])


@pytest.mark.long
def test_stream_is_independent_of_parallelism(training, batches):
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    assert_equal(take(training.with_options(options), 24), batches)


@pytest.mark.long
def test_late_steps_cost_nothing(folder):
    dataset = data.training_dataset(
        problem(folder), **SETTINGS, start_step=2**40
    )
    (batch,) = take(dataset, 1)
    shown = jpeg_records.shades(batch["labeled"], SPEC)
    assert shown == batch["labels"].tolist()


@pytest.mark.long
def test_ratio_zero_leaves_the_labeled_part_as_it_is(folder, batches):
    lonely = dataclasses.replace(
        problem(folder), unlabeled_images=records.no_records()
    )
    settings = SETTINGS | dict(unlabeled_ratio=0)
    want = [{k: b[k] for k in ("labeled", "labels")} for b in batches[:3]]
    assert_equal(take(data.training_dataset(lonely, **settings), 3), want)
    with pytest.raises(ValueError, match="has no unlabeled images left"):
        data.training_dataset(lonely, **SETTINGS)


@pytest.mark.long
def test_augmented_labeled_images(folder, batches):
    """The other parts of the stream stay as they are, bit for bit."""
    dataset = data.training_dataset(
        problem(folder), **SETTINGS, augment_labeled=True
    )
    got = take(dataset, 8)
    for one, other in zip(got, batches[:8], strict=True):
        for key in ("labels", "weak", "strong"):
            np.testing.assert_array_equal(one[key], other[key])
    labeled = np.concatenate([batch["labeled"] for batch in got])
    plain = np.concatenate([batch["labeled"] for batch in batches[:8]])
    changed = np.any(labeled != plain, axis=(1, 2, 3))
    assert 0.2 < changed.mean() < 1


def test_weak_and_strong_show_the_same_crop(data_dir):
    """At magnitude 0 the strong view often is the crop, flipped or not."""
    folder = data_dir / "imagenet_mini"
    spec = dataclasses.replace(data.DATASETS["imagenet2012"], image_size=16)
    mini = sharded_data.ShardedData(
        spec=spec,
        labeled_images=jpeg_records.index(folder, "ten_percent"),
        unlabeled_images=jpeg_records.index(folder, "train"),
        test_images=jpeg_records.index(folder, "validation"),
    )
    settings = dict(batch_size=1, unlabeled_ratio=80, magnitude=0, seed=0)
    (batch,) = take(data.training_dataset(mini, **settings), 1)
    same = [
        (np.array_equal(weak, strong), np.array_equal(weak[:, ::-1], strong))
        for weak, strong in zip(batch["weak"], batch["strong"], strict=True)
    ]
    equal, mirrored = np.mean(same, axis=0)
    # Flips of their own: as many are mirrored as are not.
    assert 0.1 < equal < 0.6 and 0.1 < mirrored < 0.6
    assert equal + mirrored < 0.9


@pytest.mark.long
def test_crops_of_one_image_differ(data_dir):
    """Epochs of one record: a crop is keyed by its position."""
    found = jpeg_records.index(data_dir / "imagenet_mini", "train")
    spec = dataclasses.replace(data.DATASETS["imagenet2012"], image_size=16)
    single = sharded_data.ShardedData(
        spec=spec,
        labeled_images=found.first(1),
        unlabeled_images=records.no_records(),
        test_images=records.no_records(),
    )
    images, _ = zip(
        *take(data.finetuning_dataset(single, 6, 0), 2), strict=True
    )
    crops = {image.tobytes() for image in np.concatenate(images)}
    assert len(crops) == 12


@pytest.mark.long
def test_finetuning_shows_weak_views_in_pairs(folder):
    mine = problem(folder)
    got = take(data.finetuning_dataset(mine, 5, 0), 4)
    for images, labels in got:
        assert (images.shape, labels.dtype) == ((5, 8, 8, 3), np.int32)
        assert jpeg_records.shades(images, SPEC) == labels.tolist()
        assert sorted(labels) == [0, 1, 2, 3, 4]
    tail = data.finetuning_dataset(mine, 5, 0, start_step=2)
    assert_equal(take(tail, 2), got[2:])


def test_evaluation_shows_all_once_in_order(folder):
    mine = problem(folder)
    got = take(
        data.evaluation_dataset(mine.test_images, mine.test_labels, SPEC, 3), 9
    )
    (first, first_labels), (second, second_labels) = got
    assert [*first_labels, *second_labels] == [5, 6, 7, 8]
    images = np.concatenate([first, second])
    assert jpeg_records.shades(images, SPEC) == [5, 6, 7, 8]
    np.testing.assert_allclose(
        first[0, 0, 0], (50 / 255 - np.array(SPEC.mean)) / SPEC.std, rtol=1e-5
    )


def test_no_labeled_records(folder):
    with pytest.raises(ValueError, match="labeled_images is empty"):
        dataclasses.replace(
            problem(folder), labeled_images=records.no_records()
        )


@pytest.mark.long
def test_the_graph_can_be_sent_to_the_data_service(folder, batches):
    """One dispatcher and one worker of it, in this process."""
    dispatcher = tf.data.experimental.service.DispatchServer()
    address = dispatcher.target.split("://")[1]
    worker = tf.data.experimental.service.WorkerServer(
        tf.data.experimental.service.WorkerConfig(
            dispatcher_address=address, heartbeat_interval_ms=100
        )
    )
    dataset = data.training_dataset(problem(folder), **SETTINGS)
    got = take(
        dataset.apply(
            tf.data.experimental.service.distribute(
                processing_mode="parallel_epochs", service=dispatcher.target
            )
        ),
        6,
    )
    assert_equal(got, batches[:6])
    del worker


@pytest.mark.long
def test_pictures_with_exif_data_are_turned_and_all_others_are_as_they_were(
    tmp_path,
):
    """Those without take a shorter way, which must lead to the same."""
    levels = np.random.default_rng(0).integers(0, 256, [9, 12, 3], np.uint8)
    files = []
    for orientation in (1, 6):
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        file = io.BytesIO()
        PIL.Image.fromarray(levels).save(file, "JPEG", exif=exif)
        files.append(file.getvalue())
    file = io.BytesIO()
    PIL.Image.fromarray(levels).save(file, "JPEG")
    files.append(file.getvalue())
    for split in ("ten_percent", "train", "validation"):
        jpeg_records.write(
            tmp_path / f"{split}-00000-of-00001",
            [jpeg_records.example(f, i + 1) for i, f in enumerate(files)],
        )
    images = problem(tmp_path)
    plain = dataclasses.replace(SPEC, flip=False)
    images = dataclasses.replace(images, spec=plain)
    (batch,) = take(data.training_dataset(images, **SETTINGS), 1)
    for position, label in enumerate(batch["labels"]):
        crop = photo_views.decode_random_crop(
            files[label],
            image_size=SPEC.image_size,
            seed=keyed.key(7, keyed.LABELED, keyed.CROP, position),
        )
        want = data.normalize(crop, mean=SPEC.mean, std=SPEC.std)
        np.testing.assert_allclose(batch["labeled"][position], want, atol=1e-6)
    tested = data.evaluation_dataset(images.test_images, None, plain, 3)
    ((centers, labels),) = tested.as_numpy_iterator()
    assert labels.tolist() == [0, 1, 2]
    for center, file in zip(centers, files, strict=True):
        crop = photo_views.decode_center_crop(file, image_size=SPEC.image_size)
        want = data.normalize(crop, mean=SPEC.mean, std=SPEC.std)
        np.testing.assert_allclose(center, want, atol=1e-6)
    assert np.any(np.abs(centers[1] - centers[0]) > 0.1)
    np.testing.assert_array_equal(centers[2], centers[0])
