"""FixMatch in numbers worked by hand, whole runs, and as a user's module."""

import dataclasses
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import LEARNERS, fixmatch
from meta_pseudo_labels.learners.fixmatch import FixMatch, pseudo_label_loss
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.config.unread import unread_settings
from meta_pseudo_labels.run.experiment import Experiment
from tests.command_line import parse, refusal
from tests.learners.helpers import batch, compiled, conv_net, dataset, make
from tests.tiny_run import rows, tiny


def test_a_number_beside_a_term_is_refused():
    """It would have no effect: the term has its own."""
    term = fixmatch.FixMatchTerm(threshold=0.5)
    assert FixMatch(conv_net("student"), term=term).term.threshold == 0.5
    with pytest.raises(ValueError, match="FixMatch got a term and threshold"):
        FixMatch(conv_net("student"), term=term, threshold=0.9)


def test_a_confident_weak_view_labels_its_strong_one():
    """Of three images the second is unsure; the third is sure of class 1."""
    weak = tf.math.log([[0.95, 0.05], [0.9, 0.1], [0.01, 0.99]])
    strong = tf.math.log([[0.25, 0.75], [0.5, 0.5], [0.2, 0.8]])
    losses, mask = pseudo_label_loss(
        weak_logits=weak, strong_logits=strong, threshold=0.94
    )
    np.testing.assert_allclose(
        losses, [np.log(4), 0, np.log(1.25)], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(mask, [1, 0, 1])


def test_the_gradient_is_that_of_the_strong_views_alone():
    weak = tf.Variable([[4.0, 0.0, 0.0]])
    strong = tf.Variable([[0.5, 1.0, -1.0]])
    with tf.GradientTape() as tape:
        losses, _ = pseudo_label_loss(
            weak_logits=weak * 1.0, strong_logits=strong * 1.0, threshold=0.9
        )
    on_weak, on_strong = tape.gradient(losses, [weak, strong])
    assert on_weak is None
    want = tf.nn.softmax(strong) - [[1.0, 0.0, 0.0]]
    np.testing.assert_allclose(on_strong, want, rtol=1e-6)


def test_a_step_is_one_of_gradient_descent_on_both_losses():
    """By hand, in float64."""
    learner = compiled(FixMatch, threshold=0.3, weight=2.0, label_smoothing=0.1)
    student = keras.models.clone_model(learner.student)
    student.set_weights(learner.student.get_weights())
    part = batch()
    with tf.GradientTape() as tape:
        together = [part[key] for key in ("labeled", "weak", "strong")]
        logits = student(np.concatenate(together), training=True)
        labeled, weak, strong = tf.split(logits, [4, 6, 6])
        targets = tf.one_hot(part["labels"], 3, dtype="float64") * 0.9 + 0.1 / 3
        loss = tf.reduce_mean(
            tf.nn.softmax_cross_entropy_with_logits(targets, labeled)
        )
        probabilities = tf.stop_gradient(tf.nn.softmax(weak))
        sure = tf.reduce_max(probabilities, axis=-1) >= 0.3
        on_strong = tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.argmax(probabilities, axis=-1), strong
        )
        loss += 2.0 * tf.reduce_mean(tf.where(sure, on_strong, 0.0))
    optimizer = learner.optimizer.from_config(learner.optimizer.get_config())
    optimizer.apply(
        tape.gradient(loss, student.trainable_variables),
        student.trainable_variables,
    )
    logs = learner.train_step(part)
    np.testing.assert_allclose(logs["loss/total"], loss, rtol=1e-10)
    assert 0 < float(logs["fixmatch/u_ratio"]) <= 1
    for mine, theirs in zip(
        learner.student.get_weights(), student.get_weights(), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


def test_numbers_out_of_range_are_refused():
    for settings in (dict(weight=-1), dict(threshold=1.5)):
        with pytest.raises(ValueError, match=next(iter(settings))):
            FixMatch(conv_net("student"), **settings)


def test_it_is_saved_and_loaded(tmp_path):
    learner = make(FixMatch, threshold=0.5, weight=3.0)
    learner.compile("sgd")
    learner.fit(dataset(), steps_per_epoch=2, verbose=0)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert isinstance(loaded, FixMatch)
    assert (loaded.threshold, loaded.weight) == (0.5, 3.0)
    images = batch(dtype="float32")["labeled"]
    np.testing.assert_array_equal(loaded(images), learner(images))


def test_its_settings_are_flags():
    config = parse("--method=fixmatch", "--fixmatch_threshold=0.8")
    assert (config.fixmatch_threshold, config.fixmatch_weight) == (0.8, 1.0)
    text = refusal("--method=fixmatch", "--fixmatch_threshold=1.5")
    assert text == "--fixmatch_threshold=1.5 is too large; at most 1."
    for other in ("supervised", "uda", "mpl"):
        unread = unread_settings(dataclasses.asdict(Config(method=other)))
        want = f"--method={other} is not FixMatch."
        assert unread["fixmatch_weight"] == want


def run(folder, **settings):
    """The logged rows of a run, from its settings."""
    # In single precision and with such batches replicas round otherwise.
    config = tiny(folder, lr=1.0, train_batch_size=8, **settings)
    assert Experiment(config).train()
    return [row for row in rows(config) if "loss/total" in row]


@pytest.mark.long
def test_a_run_is_the_same_under_two_replicas(tmp_path):
    common = dict(method="fixmatch", fixmatch_threshold=0.1)
    one = run(tmp_path / "one", **common)
    two = run(tmp_path / "two", **common, replicas_per_worker=2)
    assert len(one) == len(two) == 4
    for alone, split in zip(one, two, strict=True):
        assert alone["fixmatch/u_ratio"] > 0
        assert alone.keys() == split.keys()
        for name, value in alone.items():
            np.testing.assert_allclose(
                split[name], value, rtol=2e-4, err_msg=name
            )


@pytest.mark.long
def test_as_a_user_s_module_it_is_the_same(tmp_path, monkeypatch):
    """Its own text under other names, through --plugin."""
    text = inspect.getsource(fixmatch)
    for old, new in (("fixmatch", "ownmatch"), ("FixMatch", "OwnMatch")):
        text = text.replace(old, new)
    (tmp_path / "my_methods.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(LEARNERS, "_found", LEARNERS.registered)
    ours = run(tmp_path / "ours", method="fixmatch", fixmatch_threshold=0.2)
    theirs = run(
        tmp_path / "theirs",
        plugins="my_methods",
        method="ownmatch",
        ownmatch_threshold=0.2,
    )
    for mine, other in zip(ours, theirs, strict=True):
        renamed = {k.replace("own", "fix"): v for k, v in other.items()}
        assert renamed == mine
