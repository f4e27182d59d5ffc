"""What main.py tells of data that is damaged, changed or not there."""

import json

import pytest

from tests import jpeg_records
from tests.command_line import refusal_of
from tests.integration.sources_test import TINY
from tests.tiny_folders import write, write_folders


@pytest.fixture
def folders(tmp_path):
    """Tiny folders, and the flags that train on them."""
    write_folders(tmp_path)
    return tmp_path, (
        "--dataset=folders",
        "--num_labeled=0",
        f"--labeled_dir={tmp_path}/labeled",
        f"--unlabeled_dir={tmp_path}/unlabeled",
        "--image_size=8",
        f"--output_dir={tmp_path}/run",
    )


@pytest.mark.long
def test_a_run_without_test_images(main, folders, capfd):
    """Warnings are errors here, Keras's of data that ran out among them."""
    root, arguments = folders
    main(*TINY, *arguments)
    rows = (root / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2]
    assert "eval/" not in "".join(rows)
    assert "ran out of data" not in capfd.readouterr().err
    message = refusal_of(main, "--task_mode=eval", f"--output_dir={root}/run")
    assert "'folders' has no test images; give some" in message
    assert "--eval_dir" in message


@pytest.mark.long
def test_stages_know_the_data_again(main, folders, capsys):
    """Other unlabeled images change what images are normalized by."""
    root, arguments = folders
    main(*TINY, *arguments, f"--eval_dir={root}/eval")
    image = root / "unlabeled" / "b.png"
    content = image.read_bytes()
    write(image, 100)  # It was 200.
    for stage in ("train", "finetune", "eval", "export"):
        message = refusal_of(
            main,
            *TINY,
            *arguments,
            f"--eval_dir={root}/eval",
            f"--task_mode={stage}",
        )
        assert "The mean by which the run in" in message
    assert not (root / "run" / "saved_model").exists()
    image.write_bytes(content)
    main("--task_mode=eval", f"--output_dir={root}/run")
    assert "student" in capsys.readouterr().out


@pytest.fixture
def records(tmp_path):
    """A small set in the release's layout, and the flags that train on it."""
    jpeg_records.write_split(tmp_path, "ten_percent", [5])
    jpeg_records.write_split(tmp_path, "validation", [3])
    jpeg_records.write_split(tmp_path, "train", [40])
    return tmp_path, (
        "--dataset_name=imagenet_10_percent_mpl",
        f"--data_dir={tmp_path}",
        "--image_size=16",
        f"--output_dir={tmp_path}/run",
    )


def with_bad(path, good, bad):
    """A file of good records, then bad ones."""
    records = [jpeg_records.example(jpeg_records.jpeg(1), 2)] * good
    records += [jpeg_records.example(b"bad", 3)] * bad
    jpeg_records.write(path, records)


@pytest.mark.long
def test_too_many_damaged_records_are_one_line(main, records):
    root, arguments = records
    path = root / "train-00000-of-00001"
    with_bad(path, good=1, bad=39)
    message = refusal_of(main, *TINY, *arguments)
    assert "16 records in a row cannot be used. The first is record" in message
    assert f"of {path}: " in message


@pytest.mark.long
def test_strict_runs_name_the_record(main, records):
    root, arguments = records
    path = root / "train-00000-of-00001"
    with_bad(path, good=1, bad=1)
    message = refusal_of(main, *TINY, *arguments, "--strict_data")
    assert f"record 1 of {path}: " in message


@pytest.mark.long
def test_damaged_test_records_are_told_of(main, records, capfd):
    root, arguments = records
    with_bad(root / "validation-00000-of-00001", good=2, bad=1)
    main(*TINY, *arguments)
    # Keras evaluates once, after the two steps.
    assert "In the data 1 read met a damaged record." in (
        capfd.readouterr().out
    )
    main("--task_mode=eval", f"--output_dir={root}/run")
    printed = capfd.readouterr()
    # One reading for all three networks.
    assert "In the data 1 read met a damaged record." in printed.out
    assert "number 2 of its split" in printed.err


def test_programming_errors_are_not_taken_for_bad_data(
    main, folders, monkeypatch
):
    import tensorflow as tf

    from meta_pseudo_labels.run.experiment import Experiment

    monkeypatch.setattr(
        Experiment,
        "train",
        lambda self: tf.linalg.matmul(tf.ones([2, 3]), tf.ones([2, 3])),
    )
    with pytest.raises(tf.errors.InvalidArgumentError):
        main(*TINY, *folders[1])
