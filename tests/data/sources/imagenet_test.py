import io
import json
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from meta_pseudo_labels.data import sharded_data
from meta_pseudo_labels.data.sources import imagenet
from tests import jpeg_records


def load(folder, name="imagenet2012_subset", **settings):
    return imagenet.load(
        name, data_dir=str(folder), **dict(image_size=16) | settings
    )


def labels(records):
    """The labels of all records, in order."""
    spec = data.DatasetSpec(
        name="any",
        num_classes=1_000,
        image_size=8,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        flip=True,
    )
    dataset = data.evaluation_dataset(records, None, spec, 10)
    return [int(y) for _, part in dataset for y in part]


@pytest.fixture(scope="module")
def mini(data_dir):
    return data_dir / "imagenet_mini"


@pytest.fixture
def copy(mini, tmp_path):
    for path in mini.glob("*-of-*"):
        shutil.copy(path, tmp_path)
    return tmp_path


def test_its_crops_are_not_padded(mini):
    with pytest.raises(ValueError, match="image_fit is 'pad'; images of im"):
        data.load(
            "imagenet2012_subset",
            num_labeled=None,
            seed=0,
            data_dir=str(mini),
            image_size=16,
            image_fit="pad",
        )


def test_the_release_s_layout(mini):
    got = load(mini)
    assert isinstance(got, sharded_data.ShardedData)
    assert (got.spec.num_classes, got.spec.image_size) == (1_000, 16)
    assert labels(got.test_images) == list(range(20, 1_000, 50))
    labeled, unlabeled = (
        labels(got.labeled_images),
        labels(got.unlabeled_images),
    )
    assert len(labeled) == 8 and len(unlabeled) == 80
    assert set(labeled) < set(unlabeled)
    assert not set(unlabeled) & set(labels(got.test_images))
    assert got.labeled_indices.tolist() == list(range(8))


@pytest.mark.long
def test_an_address_that_tensorflow_reads(mini):
    """As gs:// is, of which there is none here."""
    for path in mini.glob("*-of-*"):
        tf.io.gfile.copy(str(path), f"ram://mini/{path.name}", overwrite=True)
    got = load("ram://mini")  # Which reads the first record of each file.
    assert (len(got.labeled_images), len(got.unlabeled_images)) == (8, 80)


@pytest.mark.long
def test_all_of_imagenet(mini):
    got = load(mini, "imagenet2012", image_size=None)
    assert got.spec.image_size == 224
    assert len(got.labeled_images) == len(got.unlabeled_images) == 80
    assert len(load(mini, "imagenet2012", num_labeled=25).labeled_images) == 25


@pytest.mark.long
@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(num_labeled=9), "num_labeled is 9; give a number from 1 to 8"),
        (dict(num_labeled=0), "num_labeled is 0"),
        (dict(num_labeled=4, label_subset="balanced"), "num_labeled=0.*first"),
        (dict(image_size=0), "image_size is 0"),
    ],
)
def test_wrong_settings_are_refused(mini, wrong, message):
    with pytest.raises(ValueError, match=message):
        load(mini, **wrong)


@pytest.mark.parametrize("lost", [2, 0])
def test_missing_shard_is_named(copy, lost):
    (copy / f"train-0000{lost}-of-00004").unlink()
    with pytest.raises(ValueError, match=f"1 of 4 files: train-0000{lost}-of"):
        load(copy)


@pytest.mark.long
def test_missing_splits(copy):
    for path in copy.glob("train-*"):
        path.unlink()
    assert len(load(copy).unlabeled_images) == 0
    with pytest.raises(ValueError, match=r"no files train-\*-of-\*, which ima"):
        load(copy, "imagenet2012")
    (copy / "validation-00000-of-00001").unlink()
    with pytest.raises(ValueError, match=r"no files validation-\*-of-\*"):
        load(copy)


def test_cut_off_shard_is_refused(copy):
    path = copy / "train-00001-of-00004"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="train-00001-of-00004 ends within"):
        load(copy)


@pytest.mark.long
def test_records_without_images_are_refused(copy, data_dir):
    with tarfile.open(data_dir / "bad_inputs.tar") as tar:
        name = "bad_inputs/no_image_encoded.tfrecord"
        tar.extract(name, copy, filter="data")
    target = copy / "validation-00000-of-00001"
    shutil.move(copy / name, target)
    with pytest.raises(ValueError) as caught:
        load(copy)
    message = str(caught.value)
    assert "1 of 1 files begin with a record that cannot be used" in message
    assert f"record 0 of {target}: " in message
    assert "image/encoded" in message and "\n" not in message
    assert "Iterator::" not in message


@pytest.mark.fast("1001")
@pytest.mark.parametrize("label", [0, 1_001, None])
def test_labels_out_of_range_are_refused(copy, label):
    record = jpeg_records.example(jpeg_records.jpeg(1), label)
    jpeg_records.write(copy / "ten_percent-00000-of-00001", [record])
    with pytest.raises(ValueError, match="ten_percent-.*label out of range"):
        load(copy)


@pytest.mark.long
def test_unlabeled_images_need_no_label(copy):
    record = jpeg_records.example(jpeg_records.jpeg(1))
    jpeg_records.write(copy / "train-00000-of-00004", [record])
    assert len(load(copy).unlabeled_images) == 61


@pytest.mark.long
def test_damaged_first_record_is_refused(copy):
    jpeg_records.damage(copy / "train-00003-of-00004", 0)
    with pytest.raises(ValueError, match="record 0 of .*train-00003-of-00004"):
        load(copy)


# TensorFlow Datasets: small sets with the features of the real builders.


def write_prepared(folder, name, splits):
    """Writes a prepared set; images are those of jpeg_records.

    Args:
      splits: {split: image counts of its shards}.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=str(folder), try_gcs=False)
    features, place = builder.info.features, folder / builder.info.full_name
    place.mkdir(parents=True)
    features.save_config(str(place))
    infos = []
    for split, counts in splits.items():
        numbers = iter(range(sum(counts)))
        for shard, count in enumerate(counts):
            path = (
                f"{builder.name}-{split}.tfrecord-{shard:05d}"
                f"-of-{len(counts):05d}"
            )
            examples = [
                {
                    # A file, as for the real builders, is kept as it is.
                    "image": io.BytesIO(jpeg_records.jpeg(i)),
                    "label": i,
                    "file_name": f"{i}.JPEG",
                }
                for i in (next(numbers) for _ in range(count))
            ]
            jpeg_records.write(
                place / path,
                [
                    features.serialize_example(features.encode_example(e))
                    for e in examples
                ],
            )
        infos.append(
            {
                "name": split,
                "shardLengths": [str(count) for count in counts],
                "numBytes": "1",
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-"
                "{SHARD_X_OF_Y}",
            }
        )
    info = {
        "name": builder.name,
        "version": str(builder.version),
        "fileFormat": "tfrecord",
        "splits": infos,
    }
    if builder.builder_config:
        info["configName"] = builder.builder_config.name
    (place / "dataset_info.json").write_text(json.dumps(info))
    return place


@pytest.fixture
def prepared(tmp_path):
    write_prepared(
        tmp_path, "imagenet2012", {"train": [5, 7], "validation": [3]}
    )
    write_prepared(
        tmp_path,
        "imagenet2012_subset/10pct",
        {"train": [2, 2], "validation": [3]},
    )
    return tmp_path


@pytest.mark.long
def test_prepared_sets_of_tfds(prepared):
    got = load(prepared)
    assert labels(got.labeled_images) == [0, 1, 2, 3]
    assert labels(got.unlabeled_images) == list(range(12))
    assert labels(got.test_images) == [0, 1, 2]
    everything = load(prepared, "imagenet2012", image_size=8)
    assert labels(everything.labeled_images) == list(range(12))
    batch = next(
        iter(
            data.training_dataset(
                everything,
                batch_size=12,
                unlabeled_ratio=1,
                magnitude=5,
                seed=0,
            )
        )
    )
    shown = jpeg_records.shades(batch["labeled"].numpy(), everything.spec)
    assert shown == batch["labels"].numpy().tolist()
    shown = jpeg_records.shades(batch["weak"].numpy(), everything.spec)
    assert sorted(shown) == list(range(12))


@pytest.mark.long
def test_the_real_builder_reads_the_same(prepared):
    import tensorflow_datasets as tfds

    builder = tfds.builder(
        "imagenet2012", data_dir=str(prepared), try_gcs=False
    )
    want = [int(e["label"]) for e in builder.as_dataset(split="train")]
    got = load(prepared, "imagenet2012")
    assert sorted(labels(got.labeled_images)) == sorted(want)
    assert np.unique(want).size == 12


@pytest.mark.long
def test_subset_alone_has_no_unlabeled_images(prepared):
    shutil.rmtree(prepared / "imagenet2012")
    assert len(load(prepared).unlabeled_images) == 0
    with pytest.raises(ValueError, match="tfds build imagenet2012 --data_dir"):
        load(prepared, "imagenet2012")


def test_incomplete_prepared_sets_are_refused(prepared):
    (lost,) = prepared.glob("imagenet2012/*/*train*-00001-of-00002")
    content = lost.read_bytes()
    lost.unlink()
    with pytest.raises(ValueError, match=f"1 of 2 files: {lost.name}"):
        load(prepared)
    first = 16 + int.from_bytes(content[:8], "little")
    lost.write_bytes(content[:first])
    with pytest.raises(ValueError, match="holds 1 records, but .* says 7"):
        load(prepared)


def test_prepared_sets_without_a_test_are_refused(tmp_path):
    write_prepared(tmp_path, "imagenet2012", {"train": [5, 7]})
    with pytest.raises(ValueError, match="no split 'validation' but train;"):
        load(tmp_path, "imagenet2012")
