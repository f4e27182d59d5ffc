import hashlib
import importlib.util
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data.sources import cifar_binary, tfds


@pytest.fixture(scope="module")
def script(data_dir):
    """The script that writes the release's files out of TFDS's."""
    path = data_dir / "make_cifar10_bin.py"
    spec = importlib.util.spec_from_file_location("make_cifar10_bin", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def records(count, first=0):
    """[count, 3073] uint8: labels in turn; a plane has one level."""
    rows = np.empty([count, 3_073], np.uint8)
    numbers = first + np.arange(count)
    rows[:, 0] = numbers % 10
    for plane in range(3):
        rows[:, 1 + 1024 * plane :] = (numbers + 50 * plane)[:, np.newaxis]
    return rows


@pytest.fixture
def folder(tmp_path):
    records(40).tofile(tmp_path / "train.bin")
    records(20, first=100).tofile(tmp_path / "test_batch.bin")
    return tmp_path


def load(folder, num_labeled=10, **settings):
    settings = dict(seed=0, label_subset="first") | settings
    return data.load(
        "cifar10", num_labeled=num_labeled, data_dir=folder, **settings
    )


def levels(images):
    """The red, green and blue level of each image."""
    return images[:, 5, 7].tolist()


def test_records(folder):
    got = load(folder)
    assert got.spec == data.DATASETS["cifar10"]
    assert levels(got.unlabeled_images) == [
        [i, i + 50, i + 100] for i in range(40)
    ]
    assert levels(got.labeled_images) == levels(got.unlabeled_images)[:10]
    assert got.labeled_labels.tolist() == [*range(10)]
    assert got.labeled_indices.tolist() == [*range(10)]
    assert levels(got.test_images)[0] == [100, 150, 200]
    assert got.test_labels.tolist() == [*range(10)] * 2
    for images in (got.labeled_images, got.test_images):
        assert images.shape[1:] == (32, 32, 3)


def test_an_address_that_tensorflow_reads(folder):
    """As gs:// is, of which there is none here."""
    for path in folder.iterdir():
        tf.io.gfile.copy(str(path), f"ram://cifar/{path.name}", overwrite=True)
    got, want = load("ram://cifar"), load(folder)
    np.testing.assert_array_equal(got.unlabeled_images, want.unlabeled_images)


def test_planes_are_written_row_by_row(folder):
    rows = records(10)
    rows[3, 1:] = np.random.RandomState(0).randint(0, 256, [3_072])
    rows.tofile(folder / "train.bin")
    got = load(folder).unlabeled_images[3]
    for channel in range(3):
        for row, column in ((0, 0), (0, 31), (1, 0), (17, 5)):
            place = 1 + 1_024 * channel + 32 * row + column
            assert got[row, column, channel] == rows[3, place]


def test_many_records_are_read_in_parts(folder, monkeypatch):
    want = load(folder)
    monkeypatch.setattr(cifar_binary, "_CHUNK", 7)
    got = load(folder)
    np.testing.assert_array_equal(got.unlabeled_images, want.unlabeled_images)
    assert got.test_labels.tolist() == want.test_labels.tolist()


def test_five_batches_are_one(folder):
    (folder / "train.bin").unlink()
    for batch in range(5):
        rows = records(8, first=8 * batch)
        rows.tofile(folder / f"data_batch_{batch + 1}.bin")
    got = load(folder, num_labeled=None)
    assert levels(got.labeled_images) == [
        [i, i + 50, i + 100] for i in range(40)
    ]
    # The release's file goes first.
    records(30, first=60).tofile(folder / "train.bin")
    assert len(load(folder).unlabeled_images) == 30


def test_other_settings_hold_too(folder):
    got = load(folder, num_labeled=20, label_subset="balanced", image_size=16)
    assert np.bincount(got.labeled_labels).tolist() == [2] * 10
    assert got.unlabeled_images.shape == (40, 16, 16, 3)
    assert got.test_images.shape == (20, 16, 16, 3)
    assert got.spec.image_size == 16 and got.spec.small_images


@pytest.mark.long
def test_same_pixels_as_tfds(script, data_dir, tmp_path):
    """The whole test split, as the release's file and through TFDS."""
    version = script.find_version_dir(str(data_dir / "tfds"))
    path = tmp_path / "test_batch.bin"
    script.convert(version, "test", str(path))
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    assert md5 == "8697a84373fcb4308fe7b670ff8c1f97"
    with open(tmp_path / "train.bin", "wb") as file:
        file.write(path.read_bytes()[: 3_000 * 3_073])
    got = load(tmp_path, num_labeled=2_000)
    builder = tfds.prepared_builder("cifar10", data_dir / "tfds")
    images, labels = tfds._read(builder, ["test"])
    np.testing.assert_array_equal(got.test_images, images)
    np.testing.assert_array_equal(got.test_labels, labels)
    np.testing.assert_array_equal(got.unlabeled_images, images[:3_000])
    np.testing.assert_array_equal(got.labeled_labels, labels[:2_000])


def test_binary_files_go_before_a_prepared_set(folder, data_dir):
    (folder / "cifar10").symlink_to(data_dir / "tfds" / "cifar10")
    assert len(load(folder).test_images) == 20


def test_home_is_found(folder, monkeypatch):
    """A shell leaves ~ as it is after an =."""
    monkeypatch.setenv("HOME", str(folder.parent))
    got = data.load(
        "cifar10", data_dir=f"~/{folder.name}", num_labeled=10, seed=0
    )
    np.testing.assert_array_equal(
        got.unlabeled_images, load(folder).unlabeled_images
    )


def spoil(name, *, cut=0, label=None):
    def change(folder):
        rows = records(40)
        if label is not None:
            rows[17:19, 0] = label
        (folder / name).write_bytes(rows.tobytes()[: rows.size - cut])

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (spoil("train.bin", cut=3), "train.bin has 122917 bytes, .* 39 rec"),
        (spoil("test_batch.bin", cut=3_072), "and 1 bytes more; a record is"),
        (spoil("train.bin", cut=40 * 3_073), "has 0 bytes, which is 0 rec"),
        (spoil("train.bin", label=10), "the label 10 in record 17 .of 2 such"),
        (spoil("test_batch.bin", label=255), "test_batch.bin has the label 2"),
        (lambda f: (f / "train.bin").unlink(), "no train.bin; put it there"),
        (lambda f: (f / "test_batch.bin").unlink(), "but no test_batch.bin"),
        (
            lambda f: (f / "train.bin").rename(f / "data_batch_2.bin"),
            "but no data_batch_1.bin",
        ),
    ],
)
def test_files_that_are_not_whole(folder, change, message):
    change(folder)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_the_bad_input(folder, data_dir):
    with tarfile.open(data_dir / "bad_inputs.tar") as archive:
        archive.extractall(folder, filter="data")
    bad = folder / "bad_inputs" / "not_a_multiple_of_3073.bin"
    bad.rename(folder / "train.bin")
    message = "15465 bytes, which is 5 records of 3073 bytes and 100 bytes more"
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_elsewhere_the_prepared_set_is_looked_for(tmp_path):
    with pytest.raises(ValueError, match="cifar10 is not prepared"):
        load(tmp_path)
