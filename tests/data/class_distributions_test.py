"""Class distributions of all images: their file, and their way to a batch."""

import dataclasses
import pickle

import numpy as np
import pytest

from meta_pseudo_labels import data
from meta_pseudo_labels.data import class_distributions
from meta_pseudo_labels.data.streams import records
from tests import jpeg_records
from tests.batch_parts import take

SPEC = data.DatasetSpec(
    name="mine",
    num_classes=3,
    image_size=8,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.3, 0.4),
    flip=False,
)
SETTINGS = dict(batch_size=3, unlabeled_ratio=2, magnitude=0, seed=7)


def problem(labeled=5, unlabeled=11, **changes):
    """Images told apart by their one color, the count of the image."""

    def images(count):
        color = np.arange(count, dtype=np.uint8)[:, None, None, None]
        return np.tile(color, [1, 8, 8, 3])

    arrays = dict(
        labeled_images=images(labeled),
        labeled_labels=np.arange(labeled, dtype=np.int32) % 3,
        unlabeled_images=images(unlabeled),
        test_images=images(2),
        test_labels=np.int32([1, 0]),
        labeled_indices=np.arange(labeled),
    )
    return data.ImageData(spec=SPEC, **arrays | changes)


def numbered(count):
    """A distribution for each image that tells its number."""
    first = (np.arange(count) + 1) / 100
    return np.stack([first, 2 * first, 1 - 3 * first], -1).astype(np.float32)


def distributions(labeled=5, unlabeled=11):
    return data.ClassDistributions(
        labeled=numbered(labeled),
        unlabeled=numbered(unlabeled)[::-1],
        source={"model_type": "mlp"},
    )


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "class_distributions.npz"
    data.save_class_distributions(distributions(), path, data=problem())
    return path


def test_what_was_saved_is_loaded(path):
    """By the path of the file, or of its folder; nothing else lies there."""
    for name in (path, str(path), path.parent):
        got = data.load_class_distributions(name, data=problem())
        want = distributions()
        np.testing.assert_array_equal(got.labeled, want.labeled)
        np.testing.assert_array_equal(got.unlabeled, want.unlabeled)
        assert got.source == {"model_type": "mlp"}
        assert got.digest == want.digest
    assert list(path.parent.iterdir()) == [path]


def changed(field, change):
    """`problem` with a copy of one array changed."""
    array = getattr(problem(), field).copy()
    change(array)
    return problem(**{field: array})


def swap(array):
    array[[0, 1]] = array[[1, 0]]


OTHERS = {
    "a pixel": changed("unlabeled_images", lambda x: x[3, 2, 1].fill(9)),
    "the order": changed("unlabeled_images", swap),
    "labeled images": changed("labeled_images", swap),
    "a label": changed("labeled_labels", lambda x: x[:1].fill(2)),
    "more images": problem(unlabeled=12),
    "fewer labels": problem(labeled=4),
    "another set": dataclasses.replace(
        problem(), spec=dataclasses.replace(SPEC, name="yours")
    ),
    "more classes": dataclasses.replace(
        problem(), spec=dataclasses.replace(SPEC, num_classes=4)
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_data_is_refused(path, other):
    with pytest.raises(ValueError, match="was made for other data") as caught:
        data.load_class_distributions(path, data=OTHERS[other])
    message = str(caught.value)
    assert "5 labeled and 11 unlabeled images of mine, 3 classes" in message
    assert "use its --seed, with which --label_noise" in message
    assert "`mpl cache_labels`" in message


def test_test_images_do_not_count(path):
    """A student may be tested on other images than its teacher."""
    other = problem(
        test_images=np.zeros([0, 8, 8, 3], np.uint8), test_labels=np.int32([])
    )
    data.load_class_distributions(path, data=other)


def test_a_missing_file_names_the_command(tmp_path):
    for name in (tmp_path, tmp_path / "class_distributions.npz"):
        with pytest.raises(ValueError, match="There is no .*cache_labels"):
            data.load_class_distributions(name, data=problem())


@pytest.mark.parametrize("what", ["empty", "text", "array", "pickle", "short"])
def test_a_damaged_file_is_named(path, what):
    content = path.read_bytes()
    if what == "array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    elif what == "pickle":
        with open(path, "wb") as file:
            np.savez(file, facts=np.array([{}], object), labeled=0, unlabeled=0)
    else:
        path.write_bytes(
            {
                "empty": b"",
                "text": b"not an archive",
                "short": content[: len(content) // 2],
            }[what]
        )
    with pytest.raises(ValueError, match="cannot be read as class dist"):
        data.load_class_distributions(path, data=problem())


def test_a_pickle_is_not_executed(path):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="cannot be read"):
        data.load_class_distributions(path, data=problem())


@pytest.mark.parametrize(
    "rows",
    [
        np.float32([[0.5, 0.4, 0.0]]),
        np.float32([[1.5, -0.5, 0.0]]),
        np.float32([[np.nan, 0.5, 0.5]]),
        np.float64([[1, 0, 0]]),
        np.float32([1, 0, 0]),
    ],
)
def test_what_is_no_distribution_is_refused(rows):
    with pytest.raises(ValueError, match="unlabeled"):
        data.ClassDistributions(labeled=numbered(2), unlabeled=rows)


def test_every_image_needs_its_own(tmp_path):
    short = distributions(unlabeled=10)
    message = r"unlabeled distributions have the shape \[10, 3\] for 11 images"
    with pytest.raises(ValueError, match=message):
        data.save_class_distributions(short, tmp_path / "x", data=problem())
    with pytest.raises(ValueError, match=message):
        data.training_dataset(problem(), **SETTINGS, distributions=short)
    assert list(tmp_path.iterdir()) == []


def test_a_batch_holds_those_of_its_own_images():
    """The rest of the stream stays as it is, bit for bit, from any step on."""
    plain = take(data.training_dataset(problem(), **SETTINGS), 6)
    settings = SETTINGS | dict(distributions=distributions())
    got = take(data.training_dataset(problem(), **settings), 6)
    for one, other in zip(got, plain, strict=True):
        assert set(one) - set(other) == {
            "labeled_distributions",
            "unlabeled_distributions",
        }
        for key, value in other.items():
            np.testing.assert_array_equal(one[key], value)
        for key, part in (("labeled", "labeled"), ("weak", "unlabeled")):
            red = (one[key][:, 4, 4, 0] * 0.2 + 0.5) * 255
            shown = np.round(red).astype(int)
            want = getattr(distributions(), part)[shown]
            np.testing.assert_array_equal(one[f"{part}_distributions"], want)
    late = take(data.training_dataset(problem(), **settings, start_step=4), 2)
    for one, other in zip(late, got[4:], strict=True):
        for key, value in other.items():
            np.testing.assert_array_equal(one[key], value)


@pytest.fixture
def sharded(tmp_path):
    """8 labeled and 11 unlabeled images; the unlabeled number 2 is damaged."""
    jpeg_records.write_split(tmp_path, "some", [3, 5])
    jpeg_records.write_split(tmp_path, "train", [4, 7])
    jpeg_records.damage(tmp_path / "train-00000-of-00002", 2)

    return data.ShardedData(
        spec=dataclasses.replace(SPEC, num_classes=25),
        labeled_images=jpeg_records.index(tmp_path, "some"),
        unlabeled_images=jpeg_records.index(tmp_path, "train"),
        test_images=records.no_records(),
    )


@pytest.mark.long
def test_a_batch_from_files_holds_those_of_the_images_shown(sharded):
    """Also where a damaged record was replaced by the next one."""
    rows = np.eye(25, dtype=np.float32)
    dataset = data.training_dataset(
        sharded,
        **SETTINGS,
        distributions=data.ClassDistributions(
            labeled=rows[:8], unlabeled=rows[:11]
        ),
    )
    seen = []
    for batch in take(dataset, 4):
        for key, part in (("labeled", "labeled"), ("weak", "unlabeled")):
            shown = jpeg_records.shades(batch[key], sharded.spec)
            told = batch[f"{part}_distributions"].argmax(-1).tolist()
            assert shown == told
        seen += told
    # Two epochs and two images: number 3 stands in for number 2.
    assert seen.count(2) == 0
    assert seen.count(3) >= 4


@pytest.mark.long
def test_images_in_order_mark_the_damaged_one(sharded):
    dataset = class_distributions.ordered_images(
        sharded.unlabeled_images, sharded.spec, batch_size=4
    )
    images, found = zip(*dataset.as_numpy_iterator(), strict=True)
    assert [len(part) for part in found] == [4, 4, 3]
    found = np.concatenate(found)
    np.testing.assert_array_equal(np.flatnonzero(~found), [2])
    shades = jpeg_records.shades(np.concatenate(images)[found], sharded.spec)
    assert shades == [0, 1, *range(3, 11)]


def test_a_fingerprint_of_files_knows_each_record(sharded):
    original = class_distributions.fingerprint(sharded)
    assert class_distributions.fingerprint(sharded) == original
    shards = sharded.unlabeled_images
    for change in (
        dict(paths=tuple(reversed(shards.paths))),
        dict(offsets=shards.offsets + np.eye(11, dtype=int)[5]),
        dict(shards=1 - shards.shards),
    ):
        other = dataclasses.replace(
            sharded, unlabeled_images=dataclasses.replace(shards, **change)
        )
        assert class_distributions.fingerprint(other) != original
    moved = dataclasses.replace(
        shards, paths=tuple(f"/elsewhere{path}" for path in shards.paths)
    )
    other = dataclasses.replace(sharded, unlabeled_images=moved)
    assert class_distributions.fingerprint(other) == original
