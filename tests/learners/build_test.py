"""Learners from settings."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.data import DATASETS
from meta_pseudo_labels.learners import UDA, MetaPseudoLabels, Supervised
from meta_pseudo_labels.learners.build import (
    build_learner,
    build_model,
    build_schedules,
)
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.utils.settings import ConfigError
from tests.tiny_run import tiny


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (dict(method="supervised"), Supervised),
        (dict(method="uda"), UDA),
        (dict(method="mpl", teacher_model_type="wrn-10-1"), MetaPseudoLabels),
    ],
)
def test_settings_reach_the_learner(tmp_path, settings, kind):
    config = tiny(
        tmp_path,
        **settings,
        label_smoothing=0.15,
        ema_start=3,
        weight_decay=0.25,
        grad_bound=5.0,
        seed=3,
        uda_weight=8.0,
        uda_temp=0.5,
    )
    learner = Experiment(config).learner
    assert type(learner) is kind
    assert learner.label_smoothing == 0.15
    assert learner.weight_decay == 0.25
    assert learner.grad_bound == 5.0
    assert learner.log_every == 1
    assert learner.seed == 3
    assert (learner.student_ema.decay, learner.student_ema.start) == (0.9, 3)
    if kind is not Supervised:
        assert learner.uda.weight == 8.0
        assert learner.uda.ramp_steps == 2
        assert learner.uda.temperature == 0.5
        assert learner.uda.threshold == 0.0
        assert learner.uda.num_train_steps == 4
    if kind is MetaPseudoLabels:
        assert len(learner.teacher.variables) > len(learner.student.variables)


def test_the_seed_decides_the_initial_weights(tmp_path):
    first, again, other = (
        Experiment(tiny(tmp_path, seed=seed)).learner.student.get_weights()
        for seed in (1, 1, 2)
    )
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


def test_mpl_has_rates_of_its_own(tmp_path):
    """Quirk 21: it ignores lr and num_warmup_steps, which the others take."""

    def peaks(method, **settings):
        config = tiny(tmp_path, method=method, train_batch_size=64, **settings)
        schedules = build_schedules(config)
        return [(s.peak, s.warmup_steps, s.wait_steps) for s in schedules]

    rates = dict(mpl_student_lr=0.4, mpl_teacher_lr=0.8)
    common = dict(lr=1.6, num_warmup_steps=3)
    for method in ("supervised", "uda"):
        assert peaks(method, **common, **rates) == [(0.4, 3, 0)]
    # The run's own settings are one step of warm-up, and one of waiting.
    assert peaks("mpl", **common, **rates) == [(0.1, 1, 1), (0.2, 1, 0)]


def test_memory_is_traded_where_the_settings_say_so(tmp_path):
    spec = DATASETS["digits"]
    settings = dict(model_type="wrn-10-1", remat=True, batch_slices=2)
    learner = build_learner(tiny(tmp_path, **settings), spec)
    assert learner.batch_slices == 2
    for network in (learner.student, learner.teacher):
        assert isinstance(network, models.Rematerialized)
    plain = build_learner(tiny(tmp_path), spec)
    assert plain.batch_slices == 1
    assert not isinstance(plain.student, models.Rematerialized)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (keras.layers.Dense(10, "softmax"), "student .* probabilities"),
        (keras.layers.Dense(7), "returns 7 logits; the data set has 10"),
    ],
)
def test_networks_of_plugins_are_looked_at(tmp_path, monkeypatch, last, words):
    def build(model_type, *, input_shape, name, **settings):
        flat = keras.layers.Flatten()
        return keras.Sequential(
            [keras.Input(input_shape), flat, last], name=name
        )

    monkeypatch.setattr(models, "build", build)
    with pytest.raises(ConfigError, match=words):
        build_model(tiny(tmp_path), DATASETS["digits"], role="student")


@pytest.mark.fast("supervised", "uda", "mpl")
@pytest.mark.parametrize("method", LEARNERS)
def test_what_curves_compare_means_the_same_in_every_method(method, tmp_path):
    """The loss of an evaluation is the plain cross-entropy, in nats.

    Whatever the loss of training is: smoothed, masked by a threshold or by
    training signal annealing, beside weight decay.
    """
    needed = {"pseudo_labels": dict(teacher_labels="teacher")}
    config = tiny(
        tmp_path,
        method=method,
        label_smoothing=0.5,
        weight_decay=1.0,
        ema_decay=0.0,
        **needed.get(method, {}),
    )
    spec = DATASETS["digits"]
    learner = build_learner(config, spec, unlabeled=8)
    random = np.random.default_rng(0)
    images = random.normal(size=[6, 8, 8, 3]).astype("float32")
    labels = random.integers(0, 10, 6)
    logits = learner.student.predict(images, verbose=0).astype("float64")
    shifted = logits - logits.max(-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    found = learner.evaluate(images, labels, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(-logs[range(6), labels].mean(), 1e-5)


@pytest.mark.fast("adamw")
@pytest.mark.parametrize("name", ["momentum", "adam", "adamw"])
def test_weight_decay_comes_once_and_not_in_batch_norm(name, tmp_path):
    """Of adamw it is in the optimizer, of all networks; else the learner's."""
    config = tiny(
        tmp_path,
        optim_type=name,
        weight_decay=0.25,
        model_type="wrn-10-1",
        teacher_model_type="wrn-10-1",
    )
    learner = build_learner(config, DATASETS["digits"])
    inside = name == "adamw"
    assert learner.weight_decay == (0.0 if inside else 0.25)
    networks = learner.student, learner.teacher
    optimizers = learner.optimizer, learner.teacher_optimizer
    for network, optimizer in zip(networks, optimizers, strict=True):
        assert optimizer.get_config()["weight_decay"] == (
            0.25 if inside else None
        )
        weights = network.trainable_variables
        spared = [v.name in ("gamma", "beta") for v in weights]
        assert 0 < sum(spared) < len(spared)
        before = [v.numpy() for v in weights]
        optimizer.learning_rate = lambda: 0.5
        optimizer.apply([tf.zeros(v.shape) for v in weights], weights)
        for v, value, spare in zip(weights, before, spared, strict=True):
            want = value * (0.875 if inside and not spare else 1.0)
            np.testing.assert_allclose(v, want, rtol=1e-6)


def test_the_backbone_is_frozen_as_the_settings_say(tmp_path):
    config = tiny(
        tmp_path,
        model_type="wrn-10-1",
        teacher_model_type="wrn-10-1",
        freeze_backbone_steps=3,
        backbone_lr_factor=0.5,
        freeze_batch_norm=True,
    )
    learner = build_learner(config, DATASETS["digits"])
    assert learner.freeze_backbone_steps == 3
    assert learner.backbone_lr_factor == 0.5
    for network in (learner.student, learner.teacher):
        names = {w.name for w in network.trainable_variables}
        assert names == {"kernel", "bias"}


def test_a_network_that_is_all_head_has_no_backbone_to_freeze(
    tmp_path, monkeypatch
):
    def build(model_type, *, input_shape, name, **settings):
        layers = [keras.layers.Flatten(), keras.layers.Dense(10)]
        return keras.Sequential([keras.Input(input_shape), *layers], name=name)

    monkeypatch.setattr(models, "build", build)
    config = tiny(tmp_path, freeze_backbone_steps=1)
    with pytest.raises(ConfigError, match="'student' has no backbone apart"):
        build_learner(config, DATASETS["digits"])
