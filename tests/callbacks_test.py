"""What happens beside the steps of a run."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.compat.proto import event_pb2

from meta_pseudo_labels import callbacks
from meta_pseudo_labels.callbacks import (
    MetricsLogger,
    Progress,
    SaveCheckpoint,
    StopAtStep,
    on_terminal,
    progress_bar,
)


class Counter(keras.Model):
    """A model whose step s (from 1) logs 10 s, and does nothing else."""

    def __init__(self, start=0):
        super().__init__()
        self.built = True
        self.compile(optimizer="sgd", loss=None)
        self.step = self.optimizer.iterations
        self.step.assign(start)

    def train_step(self, batch):
        self.step.assign_add(1)
        return {"loss/ten": 10.0 * tf.cast(self.step.value, tf.float32)}

    def test_step(self, batch):
        return {"accuracy": 0.1 * tf.cast(self.step.value, tf.float32)}

    def get_metrics_result(self):
        return {}

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        pass


def fit(model, *used, steps, epochs=1, validate=False):
    data = tf.data.Dataset.from_tensors(tf.zeros([1])).repeat()
    model.fit(
        data,
        steps_per_epoch=steps,
        epochs=epochs,
        validation_data=data.take(1) if validate else None,
        callbacks=list(used),
        shuffle=False,
        verbose=0,
    )
    return model


def rows(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def logged_steps(folder):
    return [row["step"] for row in rows(folder)]


def test_logs_every_nth_step_across_epochs(tmp_path):
    fit(Counter(), MetricsLogger(tmp_path, every=3), steps=4, epochs=2)
    assert rows(tmp_path) == [
        {"step": 3, "loss/ten": 30.0},
        {"step": 6, "loss/ten": 60.0},
    ]


def test_logs_evaluations_at_the_step_they_were_made(tmp_path):
    logger = MetricsLogger(tmp_path, every=2)
    fit(Counter(), logger, steps=3, epochs=2, validate=True)
    assert [list(row) for row in rows(tmp_path)] == [
        ["step", "loss/ten"],
        ["step", "eval/accuracy"],
        ["step", "loss/ten"],
        ["step", "loss/ten"],
        ["step", "eval/accuracy"],
    ]
    assert logged_steps(tmp_path) == [2, 3, 4, 6, 6]
    assert rows(tmp_path)[1]["eval/accuracy"] == pytest.approx(0.3)


def test_a_run_that_goes_on_appends(tmp_path):
    fit(Counter(), MetricsLogger(tmp_path, every=2), steps=4)
    fit(Counter(start=4), MetricsLogger(tmp_path, every=2), steps=4)
    assert logged_steps(tmp_path) == [2, 4, 6, 8]


def test_rows_after_the_last_checkpoint_do_not_come_twice(tmp_path):
    """Killed at 5 while writing a row, with a checkpoint of step 2."""
    fit(Counter(), MetricsLogger(tmp_path, every=1), steps=5)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "loss')
    fit(Counter(start=2), MetricsLogger(tmp_path, every=1), steps=5)
    assert logged_steps(tmp_path) == [1, 2, 3, 4, 5, 6, 7]


def test_rows_can_be_read_while_the_run_goes_on(tmp_path):
    seen = []

    class Reader(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(logged_steps(tmp_path))

    fit(Counter(), MetricsLogger(tmp_path, every=1), Reader(), steps=2)
    assert seen == [[1], [1, 2]]


def test_tensorboard_shows_the_same_numbers(tmp_path):
    logger = MetricsLogger(tmp_path, every=2)
    fit(Counter(), logger, steps=4, validate=True)
    (path,) = (tmp_path / "events").iterdir()
    events = [
        event_pb2.Event.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(path))
    ]
    shown = [
        (event.step, value.tag, float(tf.make_ndarray(value.tensor)))
        for event in events
        for value in event.summary.value
    ]
    assert shown == [
        (row["step"], name, pytest.approx(number))
        for row in rows(tmp_path)
        for name, number in row.items()
        if name != "step"
    ]
    assert len(shown) == 3


def test_stops_in_mid_epoch_and_still_evaluates_and_saves(tmp_path):
    model = Counter()
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=model), tmp_path, max_to_keep=3
    )
    fit(
        model,
        StopAtStep(7),
        SaveCheckpoint(manager),
        MetricsLogger(tmp_path, every=100),
        steps=5,
        epochs=9,
        validate=True,
    )
    assert model.step == 7
    assert logged_steps(tmp_path) == [5, 7]
    assert manager.checkpoints == [f"{tmp_path}/ckpt-5", f"{tmp_path}/ckpt-7"]


def test_stop_counts_from_the_step_where_the_model_is():
    assert fit(Counter(start=5), StopAtStep(7), steps=9, epochs=9).step == 7


def test_progress_bar_shows_the_whole_run(capsys):
    names = {"loss/ten": "ten", "loss/absent": "absent"}
    progress = Progress(6, names=names)
    fit(Counter(), progress, steps=3, epochs=2, validate=True)
    shown = capsys.readouterr().out
    last = shown.replace("\b", "").replace("\r", "\n").strip().split("\n")[-1]
    assert "6/6" in shown and "3/3" not in shown
    assert "ten: 60" in last and "accuracy: 0.6" in last
    assert "absent" not in shown


def test_progress_bar_goes_on_where_the_run_was(capsys):
    fit(Counter(start=4), Progress(6, names={}), steps=2)
    shown = capsys.readouterr().out
    assert "5/6" in shown and "6/6" in shown
    assert "1/6" not in shown


@pytest.mark.parametrize("answer", [True, False])
def test_a_terminal_is_where_a_person_watches(monkeypatch, answer):
    monkeypatch.setattr(callbacks.sys.stdout, "isatty", lambda: answer)
    assert on_terminal() is answer


def test_a_checkpoint_is_named_by_its_step(tmp_path):
    model = Counter(start=40)
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=model), tmp_path, max_to_keep=1
    )
    fit(model, SaveCheckpoint(manager), steps=2, epochs=2)
    saved = tf.train.load_checkpoint(f"{tmp_path}/ckpt-44")
    (name,) = [
        n
        for n in saved.get_variable_to_shape_map()
        if n.startswith("model/step")
    ]
    np.testing.assert_array_equal(saved.get_tensor(name), 44)


def test_a_bar_is_shown_on_a_terminal_only(monkeypatch):
    for terminal in (True, False):
        monkeypatch.setattr(
            callbacks, "on_terminal", lambda answer=terminal: answer
        )
        assert len(progress_bar(10, show=True)) == terminal
        assert progress_bar(10, show=False) == []
