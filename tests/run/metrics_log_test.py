"""What a run logs, in metrics.jsonl and for TensorBoard."""

import contextlib
import datetime
import errno
import json
import math
import resource

import pytest
import tensorflow as tf
from tensorboard.compat.proto import event_pb2

from meta_pseudo_labels.run import metrics_log
from meta_pseudo_labels.run.metrics_log import (
    MetricsFiles,
    MetricsLogger,
    read_rows,
)
from tests.fit_by_hand import FitByHand, clock_by_hand
from tests.tiny_run import untimed


def fit(folder, *, every=1, start=0):
    logger = MetricsLogger(folder, every=every, batch_images=8)
    return FitByHand(logger, start=start)


def rows(folder):
    """The rows without their times, see `timed_rows`."""
    return untimed(timed_rows(folder))


def timed_rows(folder):
    """The rows, which must be JSON to the letter."""

    def refuse(word):
        raise ValueError(f"{word} is no JSON")

    text = (folder / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    return [json.loads(r, parse_constant=refuse) for r in text.splitlines()]


def logged_steps(folder):
    return [row["step"] for row in rows(folder)]


def shown(folder):
    """What TensorBoard has: (step, name, value), by step."""
    scalars = []
    for path in sorted(folder.glob("events/*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = event_pb2.Event.FromString(record)
            scalars += [
                (event.step, value.tag, float(tf.make_ndarray(value.tensor)))
                for value in event.summary.value
            ]
    return sorted(scalars, key=lambda scalar: scalar[0])


def shown_steps(folder, name="loss/total"):
    return [step for step, tag, _ in shown(folder) if tag == name]


def test_logs_every_nth_step(tmp_path):
    fit(tmp_path, every=3).begin().steps(8).end()
    assert rows(tmp_path) == [
        {"step": 3, "loss/total": 3.0, "loss/lr": 0.1},
        {"step": 6, "loss/total": 6.0, "loss/lr": 0.1},
    ]


def test_logs_evaluations_at_the_step_they_were_made(tmp_path):
    run = fit(tmp_path, every=2).begin().steps(3)
    run.end_epoch(**{"loss/total": 3.0, "val_accuracy": 0.25}).end()
    assert rows(tmp_path)[1:] == [{"step": 3, "eval/accuracy": 0.25}]


def test_an_epoch_without_evaluation_logs_nothing(tmp_path):
    run = fit(tmp_path, every=2).begin().steps(3)
    run.end_epoch(**{"loss/total": 3.0}).end()
    assert logged_steps(tmp_path) == [2]


def test_tensorboard_shows_the_same_numbers(tmp_path):
    run = fit(tmp_path, every=2).begin().steps(4)
    run.end_epoch(val_accuracy=0.25).end()
    assert shown(tmp_path) == [
        (row["step"], name, pytest.approx(number))
        for row in rows(tmp_path)
        for name, number in row.items()
        if name != "step"
    ]
    assert len(shown(tmp_path)) == 5


@pytest.fixture
def clock(monkeypatch):
    return clock_by_hand(monkeypatch, metrics_log, now=100.0)


def test_rows_say_when_how_long_and_how_fast(tmp_path, clock):
    """Two steps a second of 8 images, after a first one that is compiled."""
    run = fit(tmp_path, every=2).begin()
    run.callbacks[0].on_epoch_begin(0)
    for wait in (50, 0.5, 0.5, 0.5):
        clock.now += wait
        run.steps(1)
    clock.now += 9
    run.end_epoch(val_accuracy=0.25)
    run.callbacks[0].on_epoch_begin(1)
    clock.now += 2
    run.steps(2).end()
    times = timed_rows(tmp_path)
    assert [row["seconds"] for row in times] == [50.5, 51.5, 60.5, 62.5]
    # Nobody computes gradients while it evaluates.
    rates = [row.get("images_per_second") for row in times]
    assert rates == [16, 16, None, 8]
    for row in times:
        then = datetime.datetime.fromisoformat(row["time"])
        age = datetime.datetime.now(datetime.timezone.utc) - then
        assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=1)


def test_seconds_go_on_where_the_rows_that_are_kept_end(tmp_path, clock):
    """Killed after step 5; a day later it goes on from step 2."""
    run = fit(tmp_path).begin()
    for _ in range(5):
        clock.now += 3
        run.steps(1)
    clock.now += 86_400
    run = fit(tmp_path, start=2).begin()
    clock.now += 7
    run.steps(1).end()
    times = timed_rows(tmp_path)
    assert [row["seconds"] for row in times] == [3, 6, 13]
    assert ["images_per_second" in row for row in times] == [False, True, False]


def test_rows_of_before_there_were_times_count_from_zero(tmp_path, clock):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    run = fit(tmp_path, start=1).begin()
    clock.now += 2
    run.steps(1).end()
    assert timed_rows(tmp_path)[1]["seconds"] == 2


def test_times_are_not_for_tensorboard(tmp_path):
    fit(tmp_path).begin().steps(3).end()
    assert {name for _, name, _ in shown(tmp_path)} == {"loss/total", "loss/lr"}


def test_rows_can_be_read_while_the_run_goes_on(tmp_path):
    run = fit(tmp_path).begin().steps(1)
    assert logged_steps(tmp_path) == [1] == shown_steps(tmp_path)
    run.steps(1)
    assert logged_steps(tmp_path) == [1, 2] == shown_steps(tmp_path)


def test_a_run_that_goes_on_appends(tmp_path):
    fit(tmp_path, every=2).begin().steps(4).end()
    fit(tmp_path, every=2, start=4).begin().steps(4).end()
    assert logged_steps(tmp_path) == [2, 4, 6, 8] == shown_steps(tmp_path)


def test_what_was_logged_after_the_last_checkpoint_does_not_come_twice(
    tmp_path,
):
    """Killed after step 5, with a checkpoint of step 2; then after step 4."""
    fit(tmp_path).begin().steps(5)
    fit(tmp_path, start=2).begin().steps(2)
    fit(tmp_path, start=3).begin().steps(3).end()
    assert logged_steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert shown_steps(tmp_path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "torn",
    [
        '{"step": 3, "loss',
        '{"step": 2',
        '{"step": 3, "loss{"step": 4, "loss/total": 4.0}\n',
        "\0\0\0\n",
        '{"step": null}\n',
        '"step"\n',
        "[]\n",
        "\n",
    ],
)
def test_rows_that_a_kill_tore_are_dropped(tmp_path, torn):
    fit(tmp_path).begin().steps(2)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    fit(tmp_path, start=2).begin().steps(1).end()
    assert logged_steps(tmp_path) == [1, 2, 3]


def test_bytes_that_are_no_text_are_dropped(tmp_path):
    fit(tmp_path).begin().steps(2)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff\xfe\x00")
    fit(tmp_path, start=2).begin().steps(1).end()
    assert logged_steps(tmp_path) == [1, 2, 3]


def test_a_row_that_lacks_nothing_but_its_end_is_kept(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss/total": 1.0}')
    fit(tmp_path, start=1).begin().steps(1).end()
    assert logged_steps(tmp_path) == [1, 2]


def test_a_log_in_order_is_not_written_anew(tmp_path):
    fit(tmp_path).begin().steps(2).end()
    before = (tmp_path / "metrics.jsonl").stat().st_ino
    fit(tmp_path, start=2).begin()
    assert (tmp_path / "metrics.jsonl").stat().st_ino == before


def test_steps_taken_at_once_are_logged_past_each_multiple(tmp_path):
    """Four at a time; after a skipped one no multiple of 4 comes any more."""
    run = fit(tmp_path, every=4, start=4).begin()
    for by in (4, 3, 4, 4):
        run.step(by, loss=1.0)
    assert logged_steps(tmp_path) == [8, 15, 19]


def test_a_step_that_stands_still_is_logged_once(tmp_path):
    run = fit(tmp_path, every=2).begin()
    for by in (1, 1, 0, 0, 1, 0, 1):
        run.step(by, loss=1.0)
    assert logged_steps(tmp_path) == [2, 4]


@pytest.mark.parametrize(("start", "first"), [(4, 8), (5, 8), (7, 8), (8, 12)])
def test_a_run_that_goes_on_logs_what_an_undisturbed_one_does(
    tmp_path, start, first
):
    run = fit(tmp_path, every=4, start=start).begin()
    run.step(0, loss=1.0)
    run.steps(4)
    assert logged_steps(tmp_path) == [first]


def test_several_fits_lose_no_event_and_close_their_files(tmp_path):
    run = fit(tmp_path, every=2)
    run.begin().steps(3).end()
    run.begin().steps(3).end()
    assert logged_steps(tmp_path) == [2, 4, 6] == shown_steps(tmp_path)
    assert run.callbacks[0].files is None


def test_a_fit_after_one_that_failed(tmp_path):
    run = fit(tmp_path).begin().steps(2)
    left_open = run.callbacks[0].files.events
    run.iterations.assign(1)  # As a checkpoint has it.
    run.begin().steps(2).end()
    assert logged_steps(tmp_path) == [1, 2, 3] == shown_steps(tmp_path)
    with pytest.raises(RuntimeError, match="closed"):
        left_open.as_default()


def test_numbers_without_a_word_in_json_are_for_tensorboard_alone(tmp_path):
    run = fit(tmp_path).begin()
    run.step(a=math.nan, b=1.0, c=math.inf, d=-math.inf)
    run.step(a=math.nan)
    assert rows(tmp_path) == [{"step": 1, "b": 1.0}, {"step": 2}]
    assert [(step, name) for step, name, _ in shown(tmp_path)] == [
        (1, "a"),
        (1, "b"),
        (1, "c"),
        (1, "d"),
        (2, "a"),
    ]
    assert math.isnan(shown(tmp_path)[0][2])


def test_a_full_disk_is_told(tmp_path):
    run = fit(tmp_path).begin()
    run.callbacks[0].files.path = "/dev/full"
    with pytest.raises(OSError) as caught:
        run.steps(1)
    assert caught.value.errno == errno.ENOSPC


@contextlib.contextmanager
def largest_file(size):
    """No file of this process grows beyond a size in bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def size_of_log(folder):
    return (folder / "metrics.jsonl").stat().st_size


def size_of_events(folder):
    return sum(path.stat().st_size for path in folder.glob("events/*"))


def test_half_a_row_is_gone_when_there_is_room_again(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n' * 99)
    run = fit(tmp_path, start=1).begin()
    size = size_of_log(tmp_path)
    with largest_file(size + 20), pytest.raises(OSError) as caught:
        run.steps(1)
    assert caught.value.errno == errno.EFBIG
    assert size_of_log(tmp_path) == size + 20
    run.iterations.assign(1)
    run.begin().steps(2).end()
    assert logged_steps(tmp_path) == [1] * 99 + [2, 3]


def test_half_an_event_is_gone_when_there_is_room_again(tmp_path):
    """Not told by an OutOfRangeError: `fit` takes that for the data's end."""
    run = fit(tmp_path).begin().steps(3)
    # Events are larger than rows.
    with largest_file(size_of_events(tmp_path) + 30):
        with pytest.raises(OSError, match="too large"):
            run.steps(1)
    run.iterations.assign(2)
    run.begin().steps(2).end()
    assert logged_steps(tmp_path) == [1, 2, 3, 4] == shown_steps(tmp_path)


def test_other_errors_of_tensorflow_come_as_they_are(tmp_path, monkeypatch):
    full = tf.errors.ResourceExhaustedError(None, None, "No space left")

    def flush():
        raise full

    run = fit(tmp_path).begin()
    monkeypatch.setattr(run.callbacks[0].files.events, "flush", flush)
    with pytest.raises(tf.errors.ResourceExhaustedError) as caught:
        run.steps(1)
    assert caught.value is full


def test_files_go_on_where_another_process_was_killed(tmp_path):
    with MetricsFiles(tmp_path) as files:
        files.write({"step": 20, "eval/a": 0.5})
        files.write({"step": 30, "eval/a": 0.6})
    with open(files.path, "a") as file:
        file.write('{"step": 4')
    assert [row["step"] for row in read_rows(files.path)] == [20, 30]
    with MetricsFiles(tmp_path) as files:
        files.write({"step": 40, "eval/a": 0.7})
    assert untimed(read_rows(files.path)) == [
        {"step": 20, "eval/a": 0.5},
        {"step": 30, "eval/a": 0.6},
        {"step": 40, "eval/a": 0.7},
    ]
    assert shown_steps(tmp_path, "eval/a") == [20, 30, 40]


def test_there_are_no_rows_without_a_file(tmp_path):
    assert read_rows(tmp_path / "metrics.jsonl") == []
