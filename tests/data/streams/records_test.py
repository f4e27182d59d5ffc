import tarfile

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.data.streams import records
from tests import jpeg_records


def index(paths, **settings):
    return records.index_records(
        [str(path) for path in paths], lambda record: record, **settings
    )


def read_all(found, numbers):
    read = found.reader()
    dataset = tf.data.Dataset.from_tensor_slices(list(numbers))
    dataset = dataset.flat_map(lambda number: read(number, lambda x: x))
    return list(dataset.as_numpy_iterator())


@pytest.fixture(scope="module")
def mini(data_dir):
    return sorted((data_dir / "imagenet_mini").glob("train-*"))


def test_every_record_is_found_and_can_be_read_alone(mini):
    found = index(mini)
    want = list(tf.data.TFRecordDataset(mini).as_numpy_iterator())
    assert len(found) == len(want) == 80
    assert np.bincount(found.shards).tolist() == [20] * 4
    order = np.random.default_rng(0).permutation(80)
    got = read_all(found, order)
    assert got == [want[number] for number in order]


def test_records_have_names(mini):
    found = index(mini)
    assert found.name(0) == f"record 0 of {mini[0]}"
    assert found.name(47) == f"record 7 of {mini[2]}"
    assert found.first(30).name(29) == f"record 9 of {mini[1]}"


def test_first_keeps_the_beginning(mini):
    found = index(mini)
    first = found.first(21)
    assert len(first) == 21
    assert read_all(first, [20]) == read_all(found, [20])


def test_payloads_are_not_read_by_the_scan(tmp_path):
    """A damaged one does not disturb it; its reader notices."""
    path = tmp_path / "train-00000-of-00001"
    jpeg_records.write(path, [b"a" * 100, b"b" * 100, b"c" * 100])
    jpeg_records.damage(path, 1)
    found = index([path])
    assert found.offsets.tolist() == [0, 116, 232]
    assert read_all(found, [0, 2]) == [b"a" * 100, b"c" * 100]
    with pytest.raises(tf.errors.DataLossError):
        read_all(found, [1])


@pytest.mark.parametrize(
    "kept, record, byte", [(200, 1, 116), (120, 1, 116), (115, 0, 0), (3, 0, 0)]
)
def test_cut_off_files_are_refused(tmp_path, kept, record, byte):
    path = tmp_path / "train-00000-of-00001"
    jpeg_records.write(path, [b"a" * 100, b"b" * 100])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError) as caught:
        index([path])
    want = f"{path} ends within record {record}, at byte {byte} of {kept};"
    assert str(caught.value).startswith(want)


def test_other_files_are_refused(tmp_path):
    text, empty = tmp_path / "text", tmp_path / "empty"
    text.write_text("Not a record, but long enough to hold a head.")
    empty.write_bytes(b"")
    with pytest.raises(ValueError, match="text ends within record 0"):
        index([text])
    with pytest.raises(ValueError, match="empty is empty"):
        index([empty])


def test_other_counts_are_refused(mini):
    assert len(index(mini, lengths=[20] * 4)) == 80
    with pytest.raises(ValueError) as caught:
        index(mini, lengths=[20, 20, 21, 20])
    assert f"{mini[2]} holds 20 records, but its data set says 21" in str(
        caught.value
    )


def test_damaged_file_of_the_collection(data_dir, tmp_path):
    with tarfile.open(data_dir / "bad_inputs.tar") as tar:
        tar.extract("bad_inputs/corrupt_crc.tfrecord", tmp_path, filter="data")
    found = index([tmp_path / "bad_inputs" / "corrupt_crc.tfrecord"])
    assert len(found) == 4
    assert len(read_all(found, [0, 1, 3])) == 3
    with pytest.raises(tf.errors.DataLossError):
        read_all(found, [2])


def touch(folder, *names):
    for name in names:
        (folder / name).touch()


def test_shards_are_found_in_order(tmp_path):
    names = [f"train-{i:05d}-of-00012" for i in range(12)]
    touch(tmp_path, *reversed(names), "validation-00000-of-00001", "train.txt")
    touch(tmp_path, "train-00000-of-00003.crc", "mytrain-00000-of-00003")
    found = records.find_shards(str(tmp_path), "train")
    assert found == [str(tmp_path / name) for name in names]


def test_no_shards(tmp_path):
    touch(tmp_path, "validation-00000-of-00001")
    assert records.find_shards(str(tmp_path), "train") == []
    assert records.find_shards(str(tmp_path / "nowhere"), "train") == []


def test_missing_shards_are_named(tmp_path):
    touch(tmp_path, "train-00000-of-00003")
    with pytest.raises(ValueError) as caught:
        records.find_shards(str(tmp_path), "train")
    assert (
        "lacks 2 of 3 files: train-00001-of-00003, train-00002-of-00003;"
        in str(caught.value)
    )
    touch(tmp_path, "validation-00007-of-01024")
    with pytest.raises(ValueError, match="1023 of 1024 .* and 1018 more;"):
        records.find_shards(str(tmp_path), "validation")


def test_two_sets_of_shards_are_refused(tmp_path):
    touch(tmp_path, "train-00000-of-00001", "train-00000-of-00002")
    with pytest.raises(ValueError, match="of-00001 and train-.*-of-00002; kee"):
        records.find_shards(str(tmp_path), "train")
