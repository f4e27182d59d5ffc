"""Checkpoints on disks that are full, and files that are damaged."""

import json
import pickle
import resource
import threading

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.run.checkpoints import Checkpoints
from meta_pseudo_labels.utils.checkpoint_files import (
    CheckpointError,
    DamagedCheckpoint,
)


@pytest.fixture
def weight():
    return tf.Variable(np.zeros([1000], np.float32))


@pytest.fixture
def checkpoints(weight, tmp_path):
    return Checkpoints({"weight": weight}, tmp_path)


def save(checkpoints, weight, *steps, accuracies=None):
    """Checkpoints in which the weight is the step."""
    for step in steps:
        weight.assign(tf.fill([1000], float(step)))
        checkpoints.save(step, accuracy=(accuracies or {}).get(step))
    checkpoints.wait()


def restored(weight, tmp_path):
    """The step that another process finds, and what the weight is then."""
    other = tf.Variable(tf.zeros_like(weight))
    step = Checkpoints({"weight": other}, tmp_path).restore_latest()
    return step, float(other.numpy().mean())


def names(folder):
    return sorted(path.name for path in folder.glob("*.index"))


def truncate(path):
    path.write_bytes(path.read_bytes()[:20])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


DAMAGES = {
    "data truncated": ("step-2.data-00000-of-00001", truncate),
    "data flipped": ("step-2.data-00000-of-00001", flip),
    "data missing": ("step-2.data-00000-of-00001", lambda p: p.unlink()),
    "index truncated": ("step-2.index", truncate),
    "index flipped": ("step-2.index", flip),
    "index empty": ("step-2.index", lambda p: p.write_bytes(b"")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_a_damaged_one_is_taken(
    checkpoints, weight, tmp_path, caplog, damage
):
    save(checkpoints, weight, 1, 2)
    name, spoil = DAMAGES[damage]
    spoil(tmp_path / "checkpoints" / name)
    assert restored(weight, tmp_path) == (1, 1.0)
    assert "step-2 cannot be read" in caplog.text
    assert "The one before it is used" in caplog.text


def test_going_on_from_the_one_before_writes_the_damaged_one_anew(
    checkpoints, weight, tmp_path
):
    save(checkpoints, weight, 1, 2)
    truncate(tmp_path / "checkpoints" / "step-2.index")
    again = Checkpoints({"weight": weight}, tmp_path)
    assert again.restore_latest() == 1
    save(again, weight, 2, 3, 4)
    assert restored(weight, tmp_path) == (4, 4.0)
    assert names(tmp_path / "checkpoints") == [
        "step-2.index",
        "step-3.index",
        "step-4.index",
    ]


def test_where_all_are_damaged_it_says_so_and_touches_nothing(
    checkpoints, weight, tmp_path
):
    save(checkpoints, weight, 1, 2)
    for path in (tmp_path / "checkpoints").glob("*.index"):
        truncate(path)
    weight.assign(tf.fill([1000], 7.0))
    with pytest.raises(DamagedCheckpoint, match="None of the checkpoints"):
        checkpoints.restore_latest()
    assert float(weight.numpy().mean()) == 7.0


@pytest.mark.parametrize("content", [b"", b"\xff garbage {", None])
def test_the_files_count_not_tensorflows_list_of_them(
    checkpoints, weight, tmp_path, content
):
    """A crash can leave the list empty, old or missing."""
    save(checkpoints, weight, 1, 2, 3)
    path = tmp_path / "checkpoints" / "checkpoint"
    path.unlink() if content is None else path.write_bytes(content)
    again = Checkpoints({"weight": weight}, tmp_path)
    assert again.restore_latest() == 3
    save(again, weight, 4)
    assert names(tmp_path / "checkpoints") == [
        "step-2.index",
        "step-3.index",
        "step-4.index",
    ]
    assert tf.train.latest_checkpoint(path.parent).endswith("step-4")


def test_a_list_cannot_name_files_outside_to_be_deleted(
    checkpoints, weight, tmp_path
):
    """What TensorFlow's manager keeps in its list it deletes in time."""
    save(checkpoints, weight, 1)
    outside = tmp_path / "precious-1.index"
    outside.write_text("mine")
    (tmp_path / "checkpoints" / "checkpoint").write_text(
        'model_checkpoint_path: "step-1"\n'
        'all_model_checkpoint_paths: "../precious-1"\n'
        'all_model_checkpoint_paths: "step-1"\n'
    )
    again = Checkpoints({"weight": weight}, tmp_path, max_to_keep=1)
    save(again, weight, 2, 3)
    assert outside.read_text() == "mine"
    assert names(tmp_path / "checkpoints") == ["step-3.index"]


def test_training_does_not_wait_and_one_is_in_flight_at_most(
    checkpoints, weight, tmp_path, monkeypatch
):
    go, writing = threading.Event(), []
    write = checkpoints._write

    def slowly(*args):
        writing.append(args)
        assert go.wait(timeout=30)
        write(*args)

    monkeypatch.setattr(checkpoints, "_write", slowly)
    weight.assign(tf.ones_like(weight))
    checkpoints.save(1)
    weight.assign(2 * tf.ones_like(weight))  # Goes on before 1 is written.
    checkpoints.check()
    assert not (tmp_path / "checkpoints").exists()
    second = threading.Thread(target=checkpoints.save, args=[2])
    second.start()
    second.join(timeout=0.2)
    assert second.is_alive() and len(writing) == 1  # It waits for the first.
    go.set()
    second.join()
    checkpoints.wait()
    for step in (1, 2):
        other = tf.Variable(tf.zeros_like(weight))
        path = str(tmp_path / "checkpoints" / f"step-{step}")
        Checkpoints({"weight": other}, tmp_path).restore(path)
        assert float(other.numpy().mean()) == step


def test_the_best_is_kept_apart_and_known_after_a_restart(
    checkpoints, weight, tmp_path
):
    accuracies = {1: 0.5, 2: 0.9, 3: 0.7, 4: 0.9}
    save(checkpoints, weight, 1, 2, 3, 4, accuracies=accuracies)
    assert names(tmp_path / "best") == ["step-2.index"]  # The first of equals.
    other = tf.Variable(tf.zeros_like(weight))
    again = Checkpoints({"weight": other}, tmp_path)
    assert again.restore_latest() == 4 and again.best_accuracy == 0.9
    save(again, other, 5, accuracies={5: 0.8})
    assert again.restore_best() == 2
    assert float(other.numpy().mean()) == 2.0


def test_no_best_is_said(checkpoints, weight):
    save(checkpoints, weight, 1)
    with pytest.raises(CheckpointError, match="num_validation"):
        checkpoints.restore_best()


@pytest.fixture
def little_room():
    """Files may not grow beyond 2 KiB, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size=2048):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_named_and_earlier_checkpoints_stay(
    checkpoints, weight, tmp_path, little_room
):
    save(checkpoints, weight, 1)
    before = sorted((tmp_path / "checkpoints").iterdir())
    little_room()
    checkpoints.save(2)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.wait()
    little_room(2**40)
    message = str(caught.value)
    assert "step 2 could not be written" in message and "no room" in message
    assert "\n" not in message
    assert sorted((tmp_path / "checkpoints").iterdir()) == before
    assert restored(weight, tmp_path) == (1, 1.0)
    save(checkpoints, weight, 2)  # There is room again.
    assert restored(weight, tmp_path) == (2, 2.0)


def test_what_a_kill_left_half_written_goes(checkpoints, weight, tmp_path):
    save(checkpoints, weight, 1)
    scratch = tmp_path / "checkpoints" / "step-2_temp"
    scratch.mkdir()
    (scratch / "part-00000-of-00001.data-00000-of-00001").write_text("half")
    (tmp_path / "checkpoints" / "step-2.data-00000-of-00001").write_text("x")
    (tmp_path / "checkpoints" / f"checkpoint.tmp{'0' * 32}").write_text("x")
    mine = tmp_path / "checkpoints" / "notes_temp"
    mine.mkdir()
    again = Checkpoints({"weight": weight}, tmp_path)
    assert again.restore_latest() == 1
    save(again, weight, 3)
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert left == {"checkpoint", "notes_temp"} | {
        f"step-{step}.{end}"
        for step in (1, 3)
        for end in ("index", "data-00000-of-00001")
    }


def test_a_pickle_is_no_checkpoint(checkpoints, weight, tmp_path):
    """Reading a checkpoint runs nothing."""
    save(checkpoints, weight, 1, 2)

    class Bomb:
        def __reduce__(self):
            return (json.dumps, ("boom",))

    for name in ("step-2.index", "step-2.data-00000-of-00001"):
        path = tmp_path / "checkpoints" / name
        path.write_bytes(pickle.dumps(Bomb()))
    assert restored(weight, tmp_path) == (1, 1.0)
