"""Records that are damaged, or whose file goes, in the middle of a run."""

import dataclasses
import itertools
import re
import threading

import pytest
import tensorflow as tf

from meta_pseudo_labels import data
from tests import jpeg_records
from tests.batch_parts import assert_equal, take
from tests.data.streams.record_rows_test import (
    SETTINGS,
    SPEC,
    folder,
    problem,
)

__all__ = ["folder"]


@pytest.fixture
def damaged(tmp_path):
    """Eleven training images; of the second shard three are bad."""
    jpeg_records.write_split(tmp_path, "ten_percent", [5])
    jpeg_records.write_split(tmp_path, "validation", [4])
    jpeg_records.write_split(tmp_path, "train", [5, 6])
    path = tmp_path / "train-00001-of-00002"
    whole = jpeg_records.jpeg(6)
    jpeg_records.write(
        path,
        [
            jpeg_records.example(jpeg_records.jpeg(5), 6),
            jpeg_records.example(whole[: len(whole) // 2], 7),
            jpeg_records.example(None, 8),
            jpeg_records.example(jpeg_records.jpeg(8), 9),
            jpeg_records.example(jpeg_records.jpeg(9), 10),
            jpeg_records.example(jpeg_records.jpeg(10), 26),
        ],
    )
    jpeg_records.damage(path, 4)
    return tmp_path


@pytest.fixture
def counter():
    with tf.device("CPU:0"):
        return tf.Variable(0, dtype=tf.int64, trainable=False)


@pytest.mark.long
def test_damaged_records_are_replaced_counted_and_named(
    damaged, counter, capfd
):
    """The next good one takes their place, in every epoch."""
    mine = problem(damaged)
    mine = dataclasses.replace(
        mine, labeled_images=mine.unlabeled_images, skip_counter=counter
    )
    settings = SETTINGS | dict(batch_size=11, unlabeled_ratio=0)
    dataset = data.training_dataset(mine, **settings)
    got = take(dataset, 2)
    # 6 and 7 become 8; 9 and 10 (labeled 25, out of range) become 0.
    want = sorted([0, 1, 2, 3, 4, 5, 8, 8, 8, 0, 0])
    for batch in got:
        assert sorted(batch["labels"].tolist()) == want
        shown = jpeg_records.shades(batch["labeled"], SPEC)
        assert sorted(shown) == want
    # Per epoch: 2 + 1 for 6 and 7, 2 + 1 for 9 and 10.
    assert counter.numpy() >= 12 and counter.numpy() % 6 == 0
    log = capfd.readouterr().err
    assert "Skipped 6 damaged record(s)" in log
    assert str(damaged / "train-00001-of-00002") in log
    again = data.training_dataset(mine, **settings, start_step=1)
    assert_equal(take(again, 1), got[1:])


@pytest.mark.long
def test_strict_stops_at_a_damaged_record(damaged):
    mine = problem(damaged)
    strict = dataclasses.replace(mine.unlabeled_images, strict=True)
    strict = dataclasses.replace(mine, unlabeled_images=strict)
    for read in (
        lambda: take(data.training_dataset(strict, **SETTINGS), 2),
        lambda: take(
            data.evaluation_dataset(strict.unlabeled_images, None, SPEC, 4), 9
        ),
    ):
        with pytest.raises(tf.errors.OpError) as caught:
            read()
        said = data.explain_input_error(caught.value, strict)
        assert re.match(rf"record [1245] of {damaged}/train-00001-of-", said)
        assert "\n" not in said and "go on without strict reading" in said
    assert len(take(data.training_dataset(mine, **SETTINGS), 2)) == 2


def test_evaluation_leaves_damaged_records_out(damaged, counter, capfd):
    """Named and counted whenever they are met."""
    records = problem(damaged).unlabeled_images
    dataset = data.evaluation_dataset(
        records, None, SPEC, 4, skip_counter=counter
    )
    labels = [label for _, part in take(dataset, 9) for label in part]
    assert labels == [0, 1, 2, 3, 4, 5, 8]
    assert counter.numpy() == 4  # 6, 7, 9 and 10.
    log = capfd.readouterr().err
    # Batches of 4: 6 and 7, then 9 and 10.
    assert log.count("Skipped 2 damaged record(s)") == 2
    assert f'number 6 of its split, in "{damaged}/train-00001-of' in log
    assert "number 9 of its split" in log
    take(dataset, 9)
    assert counter.numpy() == 8


@pytest.fixture
def broken(tmp_path):
    """Twenty bad records in a row, the others good."""
    jpeg_records.write_split(tmp_path, "ten_percent", [5])
    jpeg_records.write_split(tmp_path, "validation", [4])
    jpeg_records.write_split(tmp_path, "train", [1, 20, 10])
    path = tmp_path / "train-00001-of-00003"
    jpeg_records.write(path, [jpeg_records.example(b"bad", 3)] * 20)
    return tmp_path


@pytest.mark.long
def test_too_many_in_a_row_are_an_error_that_names_them(broken):
    mine = problem(broken)
    with pytest.raises(tf.errors.OpError) as caught:
        take(data.training_dataset(mine, **SETTINGS), 40)
    said = data.explain_input_error(caught.value, mine)
    match = re.fullmatch(
        r"16 records in a row cannot be used\. The first is record (\d+) of "
        rf"{broken}/train-00001-of-00003: (.*)\. Copy the files again\.",
        said,
    )
    # Those after the fourth have a good one among the 16 that are tried.
    assert 0 <= int(match[1]) <= 4
    assert match[2]


def test_other_errors_are_not_explained(folder):
    with pytest.raises(tf.errors.OpError) as caught:
        tf.linalg.matmul(tf.ones([2, 3]), tf.ones([2, 3]))
    assert data.explain_input_error(caught.value, problem(folder)) is None


def within(seconds, function):
    """What a function returns or raises; a failure where it hangs."""
    outcome = []

    def call():
        try:
            outcome.append((function(), None))
        except tf.errors.OpError as error:
            outcome.append((None, error))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    assert outcome, f"nothing came within {seconds} s"
    return outcome[0]


@pytest.fixture
def vanishing(tmp_path):
    """A run's stream, of which a shard goes after the first step."""

    def start(**settings):
        jpeg_records.write_split(tmp_path, "ten_percent", [5])
        jpeg_records.write_split(tmp_path, "validation", [2, 2], first=5)
        jpeg_records.write_split(tmp_path, "train", [5, 6])
        mine = problem(tmp_path)
        mine = dataclasses.replace(
            mine,
            unlabeled_images=dataclasses.replace(
                mine.unlabeled_images, **settings
            ),
        )
        batches = data.training_dataset(mine, **SETTINGS).as_numpy_iterator()
        next(batches)
        (tmp_path / "train-00001-of-00002").unlink()
        return mine, batches

    return start


@pytest.mark.long
def test_a_file_that_goes_does_not_stop_the_run(vanishing, capfd):
    _, batches = vanishing()
    got, error = within(60, lambda: list(itertools.islice(batches, 12)))
    assert error is None and len(got) == 12
    # Those that were read ahead may have been of the file that is gone.
    for batch in got[8:]:
        assert max(jpeg_records.shades(batch["weak"], SPEC)) <= 4
    assert "train-00001-of-00002" in capfd.readouterr().err


@pytest.mark.long
def test_a_file_that_goes_stops_a_strict_run(vanishing):
    mine, batches = vanishing(strict=True)
    _, error = within(60, lambda: list(itertools.islice(batches, 40)))
    said = data.explain_input_error(error, mine)
    assert "train-00001-of-00002: " in said and "No such file" in said


@pytest.mark.fast("True")
@pytest.mark.parametrize("strict", [False, True])
def test_a_test_file_that_goes_does_not_hang(tmp_path, strict, counter):
    jpeg_records.write_split(tmp_path, "validation", [2, 2], first=5)
    records = dataclasses.replace(
        jpeg_records.index(tmp_path, "validation"), strict=strict
    )
    dataset = data.evaluation_dataset(
        records, None, SPEC, 2, skip_counter=counter
    )
    (tmp_path / "validation-00000-of-00002").unlink()
    got, error = within(60, lambda: take(dataset, 9))
    if strict:
        assert "validation-00000-of-00002" in error.message
        return
    assert [label for _, part in got for label in part] == [7, 8]
    assert counter.numpy() == 2
