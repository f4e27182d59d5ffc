"""From settings to a strategy, and what is refused on the way."""

import json
import types

import pytest
import tensorflow as tf

from meta_pseudo_labels import distribution
from meta_pseudo_labels.config import Config, ConfigError
from meta_pseudo_labels.learners import Supervised
from meta_pseudo_labels.optimizers import Momentum
from tests.learners.helpers import batch, conv_net


def refusal(**settings):
    with pytest.raises(ConfigError) as caught:
        distribution.build_strategy(Config(**settings))
    return str(caught.value)


def test_a_machine_without_gpus_trains_on_one_device():
    for kind in ("auto", "one_device"):
        strategy = distribution.build_strategy(Config(distribution=kind))
        assert strategy is tf.distribute.get_strategy()
        assert distribution.worker_of(strategy) == 0


@pytest.mark.parametrize("kind", ["auto", "mirrored"])
def test_replicas_are_parts_of_the_processor(kind):
    strategy = distribution.build_strategy(
        Config(distribution=kind, replicas_per_worker=4, train_batch_size=8)
    )
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert strategy.num_replicas_in_sync == 4


def test_a_batch_that_replicas_cannot_share_is_refused_before_any_work():
    text = refusal(replicas_per_worker=3, train_batch_size=8)
    assert "--train_batch_size=8" in text and "a multiple of 3" in text


def test_slices_divide_the_share_of_every_replica():
    text = refusal(replicas_per_worker=2, train_batch_size=8, batch_slices=8)
    assert "--batch_slices=8" in text and "4 labeled images" in text


def test_a_tpu_that_is_not_there_is_refused(monkeypatch):
    text = refusal(distribution="tpu")
    assert text.startswith("No TPU can be reached as --master=local: ")
    assert "tpu/README.md" in text


def test_use_tpu_alone_goes_on_without_one():
    """As its help says; main.py warns."""
    strategy = distribution.build_strategy(Config(use_tpu=True))
    assert strategy.num_replicas_in_sync == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(worker_addresses="a:1,b:2"), "go together"),
        (dict(worker_addresses="a,b:2", worker_index=0), "'a' is no host:port"),
        (dict(worker_addresses="a:1,b:2", worker_index=2), "has 2 workers"),
        (
            dict(
                worker_addresses="a:1", worker_index=0, distribution="mirrored"
            ),
            "needs --distribution=multi_worker",
        ),
        (dict(use_xla_sharding=True), "--num_cores_per_replica of 2"),
        (dict(jit_compile=True, distribution="mirrored"), "on one device"),
        (dict(steps_per_execution=3), "does not divide --log_every=10"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_at_once(settings, words):
    with pytest.raises(ConfigError, match=words):
        Config(**settings)


@pytest.mark.parametrize("text", ["{", "[]", '{"task": {}}'])
def test_a_tf_config_that_cannot_be_read_is_named(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    assert refusal().startswith(f"TF_CONFIG={text!r} cannot be read")


def test_several_workers_are_found_in_tf_config(monkeypatch):
    cluster = {"worker": ["a:1", "b:2"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster}))
    made = []
    monkeypatch.setattr(
        tf.distribute,
        "MultiWorkerMirroredStrategy",
        lambda: made.append(1) or tf.distribute.get_strategy(),
    )
    distribution.build_strategy(Config())
    assert made


def test_workers_of_the_flags_become_tf_config(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "")
    monkeypatch.setattr(
        tf.distribute, "MultiWorkerMirroredStrategy", tf.distribute.get_strategy
    )
    distribution.build_strategy(
        Config(worker_addresses="a:1, b:2", worker_index=1)
    )
    assert json.loads(distribution.os.environ["TF_CONFIG"]) == {
        "cluster": {"worker": ["a:1", "b:2"]},
        "task": {"type": "worker", "index": 1},
    }


def test_no_workers_at_all_are_refused(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert "--worker_addresses" in refusal(distribution="multi_worker")


def test_the_first_worker_is_the_chief_if_there_is_one(monkeypatch):
    class Workers:
        def __init__(self, jobs, task_type, task_id):
            spec = types.SimpleNamespace(jobs=jobs)
            self.cluster_resolver = types.SimpleNamespace(
                task_type=task_type,
                task_id=task_id,
                cluster_spec=lambda: spec,
            )

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", Workers)
    assert distribution.worker_of(Workers(["worker"], "worker", 0)) == 0
    assert distribution.worker_of(Workers(["worker"], "worker", 1)) == 1
    both = ["chief", "worker"]
    assert distribution.worker_of(Workers(both, "chief", 0)) == 0
    assert distribution.worker_of(Workers(both, "worker", 0)) == 1


def test_images_are_split_by_width_and_nothing_else(monkeypatch):
    """No processor has replicas of several cores: a TPU's call is recorded."""
    calls = []
    strategy = tf.distribute.get_strategy()
    monkeypatch.setattr(
        type(strategy),
        "experimental_split_to_logical_devices",
        lambda self, x, splits: calls.append((x.shape, splits)) or x,
        raising=False,
    )
    learner = Supervised(conv_net("student"))
    learner.compile(Momentum(0.1), width_splits=2)
    data = {k: v for k, v in batch().items() if k in ("labeled", "labels")}
    learner.fit(tf.data.Dataset.from_tensors(data), verbose=0)
    assert calls == [((4, 6, 6, 2), [1, 1, 2, 1])]


def test_cores_of_a_replica_multiply_to_their_number():
    for cores, shape in distribution._REPLICA_SHAPES.items():
        product = 1
        for side in shape:
            product *= side
        assert product == cores
