"""What could not be in memory is refused before anything is built."""

import keras
import pytest

from meta_pseudo_labels import models
from meta_pseudo_labels.run import memory
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.utils.settings import ConfigError


@pytest.mark.fast("mlp-3-64-0.99", "wrn-10-1-0.9")
@pytest.mark.parametrize(
    ("model_type", "share"),
    [
        ("wrn-10-1", 0.9),
        ("wrn-16-2", 0.9),
        ("speednet-32", 0.99),
        ("mlp-3-64", 0.99),
        ("mlp", 0.99),
    ],
)
def test_the_fewest_weights_are_fewer_than_those_built(model_type, share):
    sizes = dict(input_shape=(16, 16, 3), num_classes=7)
    estimate = models.fewest_weights(model_type, **sizes)
    built = models.build(model_type, **sizes).count_params()
    assert share * built < estimate <= built
    keras.backend.clear_session()


def test_networks_without_an_estimate_are_let_pass():
    sizes = dict(input_shape=(16, 16, 3), num_classes=7)
    assert models.fewest_weights("resnet-50", **sizes) == 0


@pytest.mark.parametrize(
    "settings",
    [
        dict(model_type="wrn-28-900"),
        dict(model_type="mlp", teacher_model_type="wrn-28-900"),
        dict(model_type="mlp-99-99999"),
        dict(train_batch_size=1_000_000),
        dict(uda_data=1_000, train_batch_size=10_000),
        dict(image_size=8_192, train_batch_size=512),
    ],
    ids=str,
)
def test_what_no_memory_is_enough_for_is_refused(
    monkeypatch, tmp_path, settings
):
    monkeypatch.setattr(memory, "memory_bytes", lambda: 2**33)
    settings = dict(dataset="cifar10", model_type="wrn-10-1") | settings
    config = Config(output_dir=str(tmp_path / "run"), **settings)
    with pytest.raises(ConfigError, match="at least .* this machine has 8.0"):
        Experiment(config)
    assert not (tmp_path / "run").exists()


def test_a_batch_of_evaluation_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "memory_bytes", lambda: 2**33)
    settings = dict(model_type="wrn-10-1", eval_batch_size=900_000)
    config = Config(dataset="cifar10", task_mode="eval", **settings)
    with pytest.raises(ConfigError, match="at least .* this machine has 8.0"):
        memory.check_memory(config, trains=False)


def test_a_share_of_the_batch_is_each_workers(monkeypatch):
    monkeypatch.setattr(memory, "memory_bytes", lambda: 2**30)
    settings = dict(dataset="cifar10", train_batch_size=20_000, uda_data=4)
    with pytest.raises(ConfigError):
        memory.check_memory(Config(**settings))
    workers = ",".join(f"10.0.0.{n}:1" for n in range(20))
    shared = dict(worker_addresses=workers, worker_index=0)
    memory.check_memory(Config(**settings, **shared))


def test_the_papers_runs_are_let_pass(monkeypatch):
    monkeypatch.setattr(memory, "memory_bytes", lambda: 2**33)
    memory.check_memory(Config())
    memory.check_memory(Config(dataset="cifar10", model_type="wrn-28-2"))


@pytest.mark.parametrize(
    ("limits", "want"), [(["5000"], 5_000), (["max"], None), ([], None)]
)
def test_a_container_may_have_less_than_its_machine(
    monkeypatch, tmp_path, limits, want
):
    paths = [tmp_path / str(place) for place, _ in enumerate(limits)]
    for path, text in zip(paths, limits, strict=True):
        path.write_text(f"{text}\n")
    machine = memory.memory_bytes()
    monkeypatch.setattr(memory, "_LIMITS", (*paths, tmp_path / "absent"))
    found = memory.memory_bytes()
    assert found == want if want else found >= machine
