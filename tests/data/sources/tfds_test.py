import importlib.util
import json
import shlex

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data.sources import tfds as tfds_source

COUNTS = {"train": 12, "test": 6, "extra": 5}


@pytest.fixture(scope="module")
def tfds_dir(data_dir):
    return data_dir / "tfds"


@pytest.fixture(scope="module")
def cifar(tfds_dir):
    return load(tfds_dir)


@pytest.fixture(scope="module")
def records(data_dir, tfds_dir):
    """The first train and test records as make_cifar10_bin.py numbers them.

    Returns:
      By split: {number: (label, [32, 32, 3] uint8)}.
    """
    path = data_dir / "make_cifar10_bin.py"
    spec = importlib.util.spec_from_file_location("make_cifar10_bin", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    version = script.find_version_dir(str(tfds_dir))
    found = {}
    for split in ("train", "test"):
        files, _ = script.shard_files(version, split)
        found[split] = {}
        for name, label, planes in map(
            script.parse, tf.data.TFRecordDataset(files[:1]).take(40)
        ):
            number = int(name.numpy().rsplit(b"_", 1)[1])
            pixels = planes.numpy().reshape(3, 32, 32).transpose(1, 2, 0)
            found[split][number] = (label.numpy(), pixels)
    return found


def load(folder, name="cifar10", num_labeled=4_000, **settings):
    settings = dict(seed=0, label_subset="first") | settings
    return data.load(name, num_labeled=num_labeled, data_dir=folder, **settings)


@pytest.mark.long
def test_images_stand_in_the_order_of_train_bin(cifar, records):
    assert min(map(len, records.values())) == 40
    for number, (label, pixels) in records["train"].items():
        np.testing.assert_array_equal(cifar.unlabeled_images[number], pixels)
        if number < 4_000:
            assert cifar.labeled_labels[number] == label
    for number, (label, pixels) in records["test"].items():
        np.testing.assert_array_equal(cifar.test_images[number], pixels)
        assert cifar.test_labels[number] == label
    assert any(number < 4_000 for number in records["train"])


@pytest.mark.long
def test_the_release_s_labeled_images(cifar):
    assert cifar.labeled_indices.tolist() == list(range(4_000))
    np.testing.assert_array_equal(
        cifar.labeled_images, cifar.unlabeled_images[:4_000]
    )
    # As they come: not the same number of each class.
    assert len(set(np.bincount(cifar.labeled_labels))) > 1


@pytest.mark.long
def test_facts_of_the_arrays(cifar):
    assert cifar.spec == data.DATASETS["cifar10"]
    assert cifar.unlabeled_images.shape == (50_000, 32, 32, 3)
    assert np.bincount(cifar.test_labels).tolist() == [1_000] * 10
    # The figures of the folder's README.
    means = cifar.unlabeled_images.mean((0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.4868, 0.4822, 0.4414], atol=5e-5)


def test_classes_have_the_names_of_the_prepared_set(tfds_dir):
    (path,) = tfds_dir.glob("cifar10/*/label.labels.txt")
    names = path.read_text().split()
    assert data.DATASETS["cifar10"].class_names == tuple(names)


@pytest.mark.long
def test_batches_of_the_release_s_run(cifar):
    dataset = data.training_dataset(
        cifar, batch_size=4, unlabeled_ratio=7, magnitude=16, seed=0
    )
    batch = next(iter(dataset))
    assert batch["labeled"].shape == (4, 32, 32, 3)
    assert batch["strong"].shape == (28, 32, 32, 3)


# Small sets made here, in the format of the real ones.


def write_set(folder, name, *, splits, version="3.1.0", number=None):
    """Writes a prepared TFDS set; pixel values count the images.

    Args:
      number: that of every id; None numbers them, False leaves ids out.
    """
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=(32, 32, 3)),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    if number is not False:
        features["id"] = tfds.features.Text()
    folder = folder / name / version
    folder.mkdir(parents=True)
    tfds.features.FeaturesDict(features).save_config(str(folder))
    first = 0
    for split in splits:
        path = folder / f"{name}-{split}.tfrecord-00000-of-00001"
        with tf.io.TFRecordWriter(str(path)) as writer:
            # The last image comes first, as if shuffled.
            for i in reversed(range(COUNTS[split])):
                writer.write(
                    _example(first + i, split, i if number is None else number)
                )
        first += COUNTS[split]
    info = {
        "name": name,
        "version": version,
        "fileFormat": "tfrecord",
        "splits": [
            {
                "name": split,
                "shardLengths": [str(COUNTS[split])],
                "numBytes": "1",
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-"
                "{SHARD_X_OF_Y}",
            }
            for split in splits
        ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))


def _example(shade, split, number):
    image = tf.io.encode_png(tf.fill([32, 32, 3], tf.cast(shade, tf.uint8)))
    id_ = f"{split}_{number:05d}".encode()
    features = {
        "image": tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[image.numpy()])
        ),
        "label": tf.train.Feature(
            int64_list=tf.train.Int64List(value=[shade % 10])
        ),
        "id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[id_])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString()


def shades(images):
    return images[:, 0, 0, 0].tolist()


@pytest.fixture(scope="module")
def svhn_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    write_set(folder, "svhn_cropped", splits=["train", "test", "extra"])
    return folder


def test_extra_images_are_unlabeled_ones(svhn_dir):
    got = load(svhn_dir, "svhn_cropped", num_labeled=3)
    assert shades(got.unlabeled_images) == [*range(12), *range(18, 23)]
    assert shades(got.labeled_images) == [0, 1, 2]
    assert got.labeled_labels.tolist() == [0, 1, 2]
    assert shades(got.test_images) == [*range(12, 18)]
    assert got.test_labels.tolist() == [2, 3, 4, 5, 6, 7]


def test_a_set_is_found_at_an_address(monkeypatch):
    """As at gs://, of which there is none here; TFDS itself reads no ram://."""
    import tensorflow_datasets as tfds

    for version in ("3.0.2", "3.10.0"):
        info = f"ram://sets/mnist/{version}/dataset_info.json"
        tf.io.gfile.makedirs(info.rpartition("/")[0])
        with tf.io.gfile.GFile(info, "w") as file:
            file.write("{}")
    monkeypatch.setattr(tfds, "builder_from_directory", str)
    newest = "ram://sets/mnist/3.10.0"
    assert tfds_source.prepared_builder("mnist", "ram://sets") == newest
    with pytest.raises(ValueError, match="deep: mnist is prepared in ram://s"):
        tfds_source.prepared_builder("mnist", "ram://sets/mnist")


def test_all_labels_leave_the_extra_ones_out(svhn_dir):
    for subset in ("first", "balanced"):
        got = load(
            svhn_dir, "svhn_cropped", num_labeled=None, label_subset=subset
        )
        assert got.labeled_indices.tolist() == [*range(12)]
        assert shades(got.labeled_images) == [*range(12)]
        assert len(got.unlabeled_images) == 17


def test_balanced_labels_are_drawn_from_train(svhn_dir):
    one, other = (
        load(
            svhn_dir,
            "svhn_cropped",
            num_labeled=10,
            label_subset="balanced",
            seed=seed,
        )
        for seed in (0, 3)
    )
    for got in (one, other):
        assert sorted(got.labeled_labels.tolist()) == [*range(10)]
        assert shades(got.labeled_images) == got.labeled_indices.tolist()
        assert got.labeled_indices.max() < 12
    assert one.labeled_indices.tolist() != other.labeled_indices.tolist()


def test_every_part_is_resized(svhn_dir):
    got = load(svhn_dir, "svhn_cropped", num_labeled=3, image_size=16)
    assert got.spec.image_size == 16 and got.spec.small_images
    for part in (got.labeled_images, got.unlabeled_images, got.test_images):
        assert part.shape[1:] == (16, 16, 3)
    assert shades(got.unlabeled_images) == [*range(12), *range(18, 23)]


def test_the_newest_version_without_extra_is_read(tmp_path):
    write_set(tmp_path, "svhn_cropped", splits=["train", "test"])
    write_set(
        tmp_path, "svhn_cropped", splits=["test", "train"], version="3.10.0"
    )
    got = load(str(tmp_path), "svhn_cropped", num_labeled=3)
    assert shades(got.unlabeled_images) == [*range(6, 18)]


@pytest.mark.parametrize(
    "number, message",
    [
        (False, "has no feature `id`"),
        (0, "ids of split 'train' in .* are not numbered 0 to 11"),
        (12, "are not numbered 0 to 11"),
    ],
)
def test_sets_without_an_order_are_refused(tmp_path, number, message):
    write_set(tmp_path, "svhn_cropped", splits=["train", "test"], number=number)
    with pytest.raises(ValueError, match=message):
        load(tmp_path, "svhn_cropped")


@pytest.mark.parametrize("make", ["nothing", "other", "unfinished"])
def test_absent_set_names_the_place_and_the_command(tmp_path, make):
    if make == "other":
        (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    if make == "unfinished":
        folder = tmp_path / "cifar100" / "3.0.2.incompleteABC"
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")
    with pytest.raises(ValueError) as caught:
        load(tmp_path, "cifar100")
    message = str(caught.value)
    assert f"in {tmp_path}. " in message
    assert f"`tfds build cifar100 --data_dir={tmp_path}`" in message


def test_a_folder_is_quoted_in_the_command(tmp_path):
    folder = tmp_path / "$(id) it's"
    folder.mkdir()
    with pytest.raises(ValueError) as caught:
        load(folder, "cifar100")
    command = str(caught.value).split("`")[1]
    assert shlex.split(command)[-1] == f"--data_dir={folder}"


@pytest.mark.parametrize(
    "inside", ["svhn_cropped", "svhn_cropped/", "svhn_cropped/3.1.0", "other"]
)
def test_a_folder_that_is_too_deep_is_told_from_the_right_one(
    tmp_path, monkeypatch, inside
):
    write_set(tmp_path, "svhn_cropped", splits=["train", "test"])
    message = f"svhn_cropped is prepared in {tmp_path}; give that folder"
    with pytest.raises(ValueError, match=message):
        load(f"{tmp_path}/{inside}", "svhn_cropped")
    # Also from there.
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / inside)
    with pytest.raises(ValueError, match=f"^. is too deep: {message}"):
        load(".", "svhn_cropped")


def test_a_folder_far_above_is_not_looked_at(tmp_path):
    write_set(tmp_path, "svhn_cropped", splits=["train", "test"])
    with pytest.raises(ValueError, match="is not prepared: found no"):
        load(tmp_path / "a" / "b" / "c" / "d", "svhn_cropped")


def test_default_folder_is_that_of_tfds(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError) as caught:
        load(None)
    assert f"in {tmp_path}, the default of TensorFlow D" in str(caught.value)
