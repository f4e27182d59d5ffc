"""Event files are cut where a run goes on, and nowhere else."""

import os

import pytest
import tensorflow as tf
from tensorboard.compat.proto import event_pb2

from meta_pseudo_labels.run.event_files import drop_events_after


def write_events(path, steps):
    """A file as the writer makes it: its version, then a scalar a step."""
    events = [event_pb2.Event(file_version="brain.Event:2")]
    for step in steps:
        event = event_pb2.Event(step=step)
        event.summary.value.add(tag="loss", simple_value=10.0 * step)
        events.append(event)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for event in events:
            writer.write(event.SerializeToString())


def read_steps(path):
    """Steps of the scalars; raises where a file is damaged."""
    events = [
        event_pb2.Event.FromString(record)
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]
    assert events[0].file_version == "brain.Event:2"
    assert all(
        e.summary.value[0].simple_value == 10 * e.step for e in events[1:]
    )
    return [event.step for event in events[1:]]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.out.tfevents.17.host.1.0.v2"


def test_what_a_link_names_is_not_cut(tmp_path):
    """It may be a file of somebody else's, or of another run."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"no event at all")
    folder = tmp_path / "events"
    folder.mkdir()
    (folder / "a.tfevents.b").symlink_to(elsewhere)
    written = tmp_path / "written.tfevents"
    write_events(written, [5, 9])
    (folder / "c.tfevents.d").symlink_to(written)
    before = written.read_bytes()
    drop_events_after(5, str(folder))
    assert written.read_bytes() == before
    drop_events_after(5, str(tmp_path))
    assert len(written.read_bytes()) < len(before)


def test_later_events_go_and_those_of_the_step_stay(path):
    write_events(path, [2, 4, 4, 6, 8])
    drop_events_after(4, path.parent)
    assert read_steps(path) == [2, 4, 4]


def test_a_run_from_the_start_keeps_the_version_alone(path):
    write_events(path, [1, 2])
    drop_events_after(0, path.parent)
    assert read_steps(path) == []


def test_each_file_of_a_run_is_cut(path):
    second = path.with_name(path.name.replace("17", "18"))
    write_events(path, [1, 2, 3])
    write_events(second, [3, 4, 5])
    drop_events_after(2, path.parent)
    assert read_steps(path) == [1, 2]
    assert read_steps(second) == []


@pytest.mark.parametrize("missing", [1, 4, 20])
def test_a_torn_event_goes(path, missing):
    """Killed while it wrote the last event, of more than 20 bytes."""
    write_events(path, [1, 2, 3])
    os.truncate(path, path.stat().st_size - missing)
    drop_events_after(9, path.parent)
    assert read_steps(path) == [1, 2]


def test_what_follows_damage_goes(path):
    write_events(path, [1, 2, 3])
    content = bytearray(path.read_bytes())
    content[-10] ^= 255
    path.write_bytes(content + content)
    drop_events_after(9, path.parent)
    assert read_steps(path) == [1, 2]


def test_a_whole_file_is_not_touched(path):
    write_events(path, [1, 2, 3])
    os.utime(path, ns=(0, 0))
    drop_events_after(3, path.parent)
    assert path.stat().st_mtime_ns == 0
    assert read_steps(path) == [1, 2, 3]


@pytest.mark.parametrize("content", [b"no records", b"\0" * 100])
def test_garbage_is_left_with_a_warning(path, content, caplog):
    path.write_bytes(content)
    drop_events_after(0, path.parent)
    assert path.read_bytes() == content
    assert f"{path} holds no events" in caplog.text


def test_records_that_are_no_events_are_garbage(path, caplog):
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"\xff\xff\xff")
    before = path.read_bytes()
    drop_events_after(0, path.parent)
    assert path.read_bytes() == before
    assert "holds no events" in caplog.text


def test_what_is_no_event_file_is_left(tmp_path, caplog):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "tfevents").mkdir()
    (tmp_path / "empty.tfevents").touch()
    drop_events_after(0, tmp_path)
    drop_events_after(0, tmp_path / "missing")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not caplog.text


def test_a_folder_is_no_pattern(tmp_path):
    folder = tmp_path / "lr=[0.1]"
    folder.mkdir()
    write_events(folder / "a.tfevents", [1, 2])
    drop_events_after(1, folder)
    assert read_steps(folder / "a.tfevents") == [1]
