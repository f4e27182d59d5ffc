"""From settings to a strategy, and what is refused on the way."""

import itertools
import json
import signal
import subprocess
import sys
import types

import pytest
import tensorflow as tf

from meta_pseudo_labels.distribute import strategies
from meta_pseudo_labels.learners import Supervised
from meta_pseudo_labels.optimizers import Momentum
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.devices import training_strategy
from meta_pseudo_labels.utils.settings import ConfigError
from tests.faults import runs
from tests.learners.helpers import batch, conv_net


def refusal(**settings):
    with pytest.raises(ConfigError) as caught:
        training_strategy(Config(**settings))
    return str(caught.value)


def test_a_machine_without_gpus_trains_on_one_device():
    for kind in ("auto", "one_device"):
        strategy = strategies.build_strategy(Config(distribution=kind))
        assert strategy is tf.distribute.get_strategy()
        assert strategies.worker_of(strategy) == 0
        said = "1 CPU replica; TensorFlow sees no GPU"
        assert strategies.describe(strategy) == said


@pytest.mark.parametrize("kind", ["auto", "mirrored"])
def test_replicas_are_parts_of_the_processor(kind):
    strategy = strategies.build_strategy(
        Config(distribution=kind, replicas_per_worker=4, train_batch_size=8)
    )
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert strategy.num_replicas_in_sync == 4
    assert strategies.describe(strategy).startswith("4 CPU replicas;")


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
    strategy = strategies.build_strategy(Config(use_tpu=True))
    assert strategy.num_replicas_in_sync == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(worker_addresses="a:1,b:2"), "go together"),
        (dict(worker_addresses="a,b:2", worker_index=0), "is not host:port"),
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


@pytest.mark.parametrize("use_tpu", [False, True])
def test_images_are_split_on_a_tpu_alone(use_tpu):
    """Also where --use_tpu finds none and goes on."""
    text = refusal(
        use_tpu=use_tpu, use_xla_sharding=True, num_cores_per_replica=8
    )
    assert text.startswith("--use_xla_sharding splits images over the cores")


class TestGroupsOfBatchNorm:
    def test_that_do_not_divide_the_replicas_are_refused(self):
        text = refusal(replicas_per_worker=12, train_batch_size=24)
        assert "12 replicas do not divide into batch-norm groups of 8" in text

    @pytest.mark.parametrize(
        "settings",
        [
            dict(model_type="mlp"),  # It has no batch norm.
            # Supervised passes have 2 images of a replica: groups of 8 / 2.
            dict(method="supervised", batch_norm_batch_size=8),
        ],
    )
    def test_others_are_not(self, settings):
        config = Config(**settings, replicas_per_worker=12, train_batch_size=24)
        strategy = training_strategy(config)
        assert strategy.num_replicas_in_sync == 12

    def test_each_pass_has_groups_of_its_own(self):
        """2 images are 4 replicas a group, but 1 image is 8."""
        settings = dict(method="supervised", batch_norm_batch_size=8)
        text = refusal(**settings, replicas_per_worker=12, train_batch_size=12)
        assert "groups of 8" in text


@pytest.mark.parametrize("text", ["{", "[]", '{"task": {}}'])
def test_a_tf_config_that_cannot_be_read_is_named(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    assert refusal().startswith(f"TF_CONFIG={text!r} cannot be read")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"cluster": {"worker": "a:1"}}',
        '{"cluster": {"worker": [1, 2]}}',
        '{"cluster": {"worker": [["a:1"]]}}',
        '{"cluster": [["worker", 3]]}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"index": "0"}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"index": -1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": ["worker"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": 3}',
    ],
    ids=lambda text: text[:60],
)
def test_a_tf_config_of_other_types_is_told_in_a_line(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    message = refusal()
    assert "cannot be read as JSON with a cluster" in message
    assert "\n" not in message and len(message) < 500


@pytest.mark.parametrize(
    "cluster",
    [{"worker": ["a:1", "b:2"]}, {"chief": ["a:1"], "worker": ["b:2"]}],
)
def test_several_workers_are_found_in_tf_config(cluster, monkeypatch, capsys):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster}))
    made = []
    monkeypatch.setattr(
        tf.distribute,
        "MultiWorkerMirroredStrategy",
        lambda: made.append(1) or tf.distribute.get_strategy(),
    )
    strategies.build_strategy(Config())
    assert made
    assert capsys.readouterr().out == (
        "Waiting for 1 worker: all of a:1, b:2 must be running.\n"
    )


def test_one_worker_is_one_device(monkeypatch):
    for job in ("chief", "worker"):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {job: ["a:1"]}}))
        strategy = strategies.build_strategy(Config())
        assert strategy is tf.distribute.get_strategy()


@pytest.mark.parametrize(
    ("cluster", "task"),
    [
        ({"worker": ["a:1"], "ps": ["b:2"]}, "worker"),
        ({"worker": ["a:1", "b:2"]}, "evaluator"),
    ],
)
def test_other_jobs_are_refused(cluster, task, monkeypatch):
    told = {"cluster": cluster, "task": {"type": task, "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(told))
    assert "only the jobs chief and worker train here" in refusal()


WORKER = """
import sys, time
from meta_pseudo_labels import Config
from meta_pseudo_labels.distribute.strategies import build_strategy

addresses, index = (flag.split("=")[1] for flag in sys.argv[1:])
build_strategy(
    Config(worker_addresses=addresses, worker_index=int(index))
)
print("built", flush=True)
time.sleep(120)
"""


@pytest.mark.long
def test_sigterm_ends_workers_that_have_met():
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *flags],
            stdout=subprocess.PIPE,
            cwd=runs.ROOT,
            text=True,
        )
        for flags in runs.worker_flags(2)
    ]
    try:
        for worker in workers:
            assert "built\n" in list(itertools.islice(worker.stdout, 2))
        for worker in workers:
            worker.terminate()
            assert worker.wait(timeout=20) == -signal.SIGTERM
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def test_sigterm_keeps_its_effect(monkeypatch):
    """What TensorFlow does with it would keep a waiting worker alive."""
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:2"]}}')

    def build():
        signal.signal(signal.SIGTERM, lambda *_: None)
        return tf.distribute.get_strategy()

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", build)
    before = signal.getsignal(signal.SIGTERM)
    strategies.build_strategy(Config())
    assert signal.getsignal(signal.SIGTERM) == before


def test_workers_of_the_flags_become_tf_config(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "")
    monkeypatch.setattr(
        tf.distribute, "MultiWorkerMirroredStrategy", tf.distribute.get_strategy
    )
    strategies.build_strategy(
        Config(worker_addresses="a:1, b:2", worker_index=1)
    )
    assert json.loads(strategies.os.environ["TF_CONFIG"]) == {
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
    assert strategies.worker_of(Workers(["worker"], "worker", 0)) == 0
    assert strategies.worker_of(Workers(["worker"], "worker", 1)) == 1
    both = ["chief", "worker"]
    assert strategies.worker_of(Workers(both, "chief", 0)) == 0
    assert strategies.worker_of(Workers(both, "worker", 0)) == 1


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
