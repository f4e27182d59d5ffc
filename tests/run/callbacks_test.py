"""What happens beside the steps of a run."""

import json

import keras
import tensorflow as tf

from meta_pseudo_labels.learners.callbacks import StopAtStep
from meta_pseudo_labels.run.callbacks import SaveCheckpoint
from meta_pseudo_labels.run.checkpoints import Checkpoints
from meta_pseudo_labels.run.metrics_log import MetricsLogger
from meta_pseudo_labels.utils.checkpoint_files import step_of


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


def test_stops_in_mid_epoch_and_still_evaluates_and_saves(tmp_path):
    model = Counter()
    checkpoints = Checkpoints({"step": model.step.value}, tmp_path)
    fit(
        model,
        StopAtStep(7),
        SaveCheckpoint(checkpoints),
        MetricsLogger(tmp_path, every=100, batch_images=1),
        steps=5,
        epochs=9,
        validate=True,
    )
    assert model.step == 7
    with open(tmp_path / "metrics.jsonl") as file:
        assert [json.loads(row)["step"] for row in file] == [5, 7]
    checkpoints.wait()
    assert [step_of(path) for path in checkpoints.paths()] == [5, 7]


def test_stop_counts_from_the_step_where_the_model_is():
    assert fit(Counter(start=5), StopAtStep(7), steps=9, epochs=9).step == 7


def test_a_checkpoint_is_named_by_its_step(tmp_path):
    model = Counter(start=40)
    checkpoints = Checkpoints({"step": model.step.value}, tmp_path)
    fit(model, SaveCheckpoint(checkpoints), steps=2, epochs=2)
    checkpoints.wait()
    model.step.assign(0)
    assert checkpoints.restore_latest() == 44
    assert model.step == 44
