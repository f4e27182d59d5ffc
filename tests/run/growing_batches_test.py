"""The unlabeled batch that grows: when, by how much, and after a kill."""

import dataclasses
import types

import numpy as np
import pytest

from meta_pseudo_labels.distribute.shares import Share
from meta_pseudo_labels.run import data, devices
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.devices import check_replicas
from meta_pseudo_labels.run.epochs import fit_epochs
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.metrics_log import MetricsLogger
from meta_pseudo_labels.utils.settings import ConfigError
from tests.run.resume_test import train_and_kill
from tests.tiny_run import assert_same_weights, rows, tiny, weights


@pytest.mark.parametrize(
    "ratio, sizes",
    [(1, [1] * 5), (2, [1, 2, 2, 2, 2]), (3, [1, 2, 3, 3, 3])]
    + [(7, [1, 2, 4, 7, 7]), (8, [1, 2, 4, 8, 8])],
)
def test_it_doubles_after_every_so_many_steps_up_to_the_whole(ratio, sizes):
    config = Config(method="uda", uda_data=ratio, uda_data_growth_steps=1000)
    for phase, size in enumerate(sizes):
        for step in (1000 * phase, 1000 * phase + 999):
            assert data.unlabeled_ratio(config, step) == size
            assert data.images_per_batch(config, step) == 128 * (1 + size)
    assert data.unlabeled_ratio(config, 10**9) == ratio
    config = Config(method="uda", uda_data=ratio)
    assert data.unlabeled_ratio(config, 0) == ratio
    assert data.unlabeled_ratio(Config(method="supervised"), 5000) == 0


def test_batches_change_where_checkpoints_are_and_nowhere_else():
    with pytest.raises(ConfigError, match="not a multiple of --save_every=1"):
        Config(method="uda", uda_data_growth_steps=1500)
    Config(method="supervised", uda_data_growth_steps=1500)  # Reads it not.


@pytest.mark.parametrize("start", [0, 3, 5, 11])
def test_every_epoch_of_fit_has_the_batches_of_its_phase(start):
    """Epochs of 2 batches; the phases end after epochs 1 and 4."""
    asked, fitted = [], []
    model = types.SimpleNamespace(batch_position=start, stop_training=False)

    def fit(batches, *, initial_epoch, epochs, steps_per_epoch, **kwargs):
        last = min(epochs, 7)
        fitted.append((batches, initial_epoch, last))
        model.batch_position = 2 * last
        model.stop_training = last == 7

    def batches(position):
        asked.append(position)
        return position

    model.fit = fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "meta_pseudo_labels.run.epochs.position",
            lambda model: model.batch_position,
        )
        fit_epochs(model, batches, every=2, callbacks=[], ends=[1, 4])
    assert (
        asked
        == {
            0: [0, 2, 8],
            3: [3, 4, 8],
            5: [5, 6, 8],
            11: [11, 12],
        }[start]
    )
    assert fitted[-1][2] == 7


def test_batches_are_those_of_the_step_that_they_begin_at(monkeypatch):
    asked = []
    monkeypatch.setattr(
        data.data,
        "training_dataset",
        lambda _, **kw: asked.append((kw["start_step"], kw["unlabeled_ratio"])),
    )
    config = tiny("", method="uda", uda_data=2, uda_data_growth_steps=2)
    for start in (0, 1, 2, 3):
        data.training_batches(config, None, start_step=start)
    assert asked == [(0, 1), (1, 1), (2, 2), (3, 2)]


@pytest.mark.long
@pytest.mark.parametrize("start, unlabeled", [(1, 4), (2, 8)])
def test_replicas_see_together_what_one_device_does(start, unlabeled):
    config = tiny("", method="uda", uda_data=2, uda_data_growth_steps=2)
    images = data.load_data(config)

    def batches(count, **kwargs):
        found = data.training_batches(
            config, images, start_step=start, **kwargs
        )
        return list(found.take(count).as_numpy_iterator())

    (whole,) = batches(1)
    parts = batches(2, share=Share(replicas=2, first=0, count=2))
    assert len(whole["weak"]) == len(whole["strong"]) == unlabeled
    for key, value in whole.items():
        np.testing.assert_array_equal(
            value, np.concatenate([part[key] for part in parts])
        )


def test_batch_norm_groups_must_fit_the_small_batches_too():
    """12 replicas in groups of 64 images: 4 of 10 each, but 8 of 6."""
    config = Config(
        method="uda",
        model_type="wrn-10-1",
        train_batch_size=24,
        uda_data=2,
        batch_norm_batch_size=64,
    )
    strategy = types.SimpleNamespace(num_replicas_in_sync=12)
    check_replicas(config, strategy)
    grows = dataclasses.replace(config, uda_data_growth_steps=1000)
    with pytest.raises(ConfigError, match="12 replicas do not divide"):
        check_replicas(grows, strategy)


@pytest.mark.parametrize("ratio", [1, 2, 3, 4, 7])
def test_the_passes_of_the_last_batches_are_known_before_the_first(ratio):
    config = Config(method="uda", uda_data=ratio, train_batch_size=8)
    grows = dataclasses.replace(config, uda_data_growth_steps=1000)
    assert devices._all_passes(config) <= devices._all_passes(grows)
    assert list(data.unlabeled_ratios(config)) == [0]


def test_methods_without_unlabeled_images_never_grow():
    config = Config(method="supervised", uda_data_growth_steps=1000)
    assert data.unlabeled_ratios(config) == {0: 0}


def test_images_a_second_are_those_of_the_batch(tmp_path, monkeypatch):
    clock = types.SimpleNamespace(monotonic=lambda: 4.0)
    monkeypatch.setattr("meta_pseudo_labels.run.metrics_log.time", clock)
    logger = MetricsLogger(tmp_path, every=1, batch_images=lambda at: at + 1)
    logger.timed_from = 5, 2.0
    monkeypatch.setattr(type(logger), "position", 7)
    assert logger._rate() == {"images_per_second": 6.0}


@pytest.mark.long
def test_a_killed_run_grows_on_bit_for_bit(tmp_path, monkeypatch):
    """Killed in step 3, right after the batch grew."""
    settings = dict(uda_data=3, uda_data_growth_steps=2, num_train_steps=6)
    undisturbed = tiny(tmp_path / "undisturbed", **settings)
    Experiment(undisturbed).train()
    config = tiny(tmp_path / "killed", **settings)
    train_and_kill(config, monkeypatch)
    Experiment(config).train()
    assert rows(config) == rows(undisturbed)
    assert_same_weights(config, undisturbed)
    plain = tiny(tmp_path / "plain", **settings | {"uda_data_growth_steps": 0})
    Experiment(plain).train()
    got = weights(config)
    assert any((got[name] != x).any() for name, x in weights(plain).items())
