"""A run on data, and with callbacks, that were made in Python."""

import dataclasses

import keras
import numpy as np
import pytest

from meta_pseudo_labels import data
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.utils.settings import ConfigError
from tests.tiny_run import rows, tiny

LOSS = "cross_entropy/teacher_on_l"


class Record(keras.callbacks.Callback):
    """Notes what is logged, and that it was closed."""

    def __init__(self, name=LOSS, stop_at=None):
        super().__init__()
        self.logged, self.epochs, self.closed = [], [], 0
        self.name, self.stop_at = name, stop_at

    def on_train_batch_end(self, batch, logs=None):
        self.logged.append(logs[self.name])
        if len(self.logged) == self.stop_at:
            raise KeyError("stop")

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(logs.get("val_accuracy"))

    def close(self):
        self.closed += 1


@pytest.fixture(scope="module")
def images():
    """Digits with other pixels than any data set that has a name."""
    digits = data.load("digits", num_labeled=40, seed=3)
    return dataclasses.replace(
        digits,
        spec=dataclasses.replace(digits.spec, name="dark digits"),
        labeled_images=digits.labeled_images // 2,
        unlabeled_images=digits.unlabeled_images // 2,
        test_images=digits.test_images // 2,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory, images):
    config = tiny(tmp_path_factory.mktemp("python") / "run", num_validation=10)
    record = Record()
    Experiment(config, data=images, callbacks=record).train()
    return config, record


@pytest.mark.long
def test_training_learns_from_the_data_that_is_given(trained, images):
    config, _ = trained
    run = Experiment(config, data=images)
    assert run.data.spec == images.spec
    np.testing.assert_array_equal(run.data.test_images, images.test_images)
    # What the settings do to data is done to these.
    assert len(run.data.validation_images) == 10
    assert len(run.data.labeled_images) == 30
    assert run.evaluate().keys() >= {"student", "teacher", "validation"}


def test_the_callback_sees_what_is_logged_and_is_closed(trained):
    config, record = trained
    logged = [row for row in rows(config) if LOSS in row]
    np.testing.assert_allclose(
        record.logged, [row[LOSS] for row in logged], rtol=1e-6
    )
    assert len(record.logged) == 4 and record.closed == 1
    evaluated = [row for row in rows(config) if "eval/accuracy" in row]
    assert record.epochs == [row["eval/accuracy"] for row in evaluated]


@pytest.mark.long
def test_it_is_closed_where_training_fails(tmp_path, images):
    record = Record(stop_at=3)
    run = Experiment(tiny(tmp_path), data=images, callbacks=[record])
    with pytest.raises(KeyError, match="stop"):
        run.train()
    assert record.closed == 1 and len(record.logged) == 3


def test_finetuning_has_the_callbacks_too(trained, images):
    config, _ = trained
    record = Record("loss")
    run = Experiment(config, data=images, callbacks=[record])
    assert run.finetune()
    assert len(record.logged) == config.finetune_steps
    assert record.closed == 1


@pytest.mark.parametrize("stage", ["finetune", "evaluate", "export"])
def test_later_stages_refuse_other_data(trained, stage):
    """Those that config.dataset names, for one: nobody gave them again."""
    config, _ = trained
    with pytest.raises(ConfigError, match="the data has changed"):
        getattr(Experiment(config), stage)()
