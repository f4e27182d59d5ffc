"""`fit` on several replicas: what it is given, refuses, skips and counts."""

import contextlib
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.distribute.splitting import split_batches
from meta_pseudo_labels.learners import (
    MetaPseudoLabels,
    Supervised,
)
from meta_pseudo_labels.optimizers import Momentum
from tests.learners.helpers import CLASSES, Sequence, batch, values
from tests.learners.replicas_test import (
    LEARNERS,
    UDA_SETTINGS,
    Logs,
    assert_same,
    conv_net,
    dataset,
    train,
)


def test_xla_is_refused_before_it_hangs(mirrored):
    with mirrored(2).scope():
        learner = Supervised(conv_net("student"))
        with pytest.raises(ValueError, match="there are 2 replicas"):
            learner.compile(Momentum(0.1), jit_compile=True)


@pytest.mark.long
def test_every_epoch_has_all_batches(mirrored):
    with mirrored(2).scope():
        learner = Supervised(conv_net("student"))
        learner.compile(Momentum(0.1))
    data = tf.data.Dataset.from_tensors(batch(labeled=4)).repeat(2)
    learner.fit(data, epochs=3, verbose=0)
    assert learner.step.numpy() == 6


def labels_alone(strategy=None):
    with strategy.scope() if strategy else contextlib.nullcontext():
        keras.utils.set_random_seed(0)
        dense = [keras.Input((4,)), keras.layers.Dense(CLASSES)]
        learner = Supervised(keras.Sequential(dense))
        learner.compile("sgd")
    return learner


def rows_of(count):
    images = np.random.default_rng(0).normal(size=(count, 4)).astype("float32")
    return {"labeled": images, "labels": np.arange(count, dtype="int32") % 3}


@pytest.mark.parametrize(
    ("batches", "steps", "epochs", "taken"),
    [(4, 4, 3, 12), (4, 2, 4, 8), (4, None, 2, 8), (2, 3, 2, 6)],
)
def test_all_steps_are_taken_of_data_that_end(
    batches, steps, epochs, taken, mirrored
):
    """With three steps of two batches, too, which Keras would cut short."""
    learner = labels_alone(mirrored(2))
    data = tf.data.Dataset.from_tensors(rows_of(4)).repeat(batches)
    learner.fit(data, steps_per_epoch=steps, epochs=epochs, verbose=0)
    assert learner.step.numpy() == taken


@pytest.mark.parametrize("settings", [{"batch_size": 4}, {}])
def test_arrays_train_two_replicas_as_they_do_one(settings, mirrored):
    weights = []
    for strategy in (tf.distribute.get_strategy(), mirrored(2)):
        learner = labels_alone(strategy)
        learner.fit(rows_of(8), epochs=2, verbose=0, **settings)
        assert learner.step.numpy() == (4 if settings else 2)
        weights.append(learner.student.get_weights()[0])
    np.testing.assert_allclose(*weights, rtol=1e-5)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (rows_of(9), "9 rows do not make whole batches of 4.*drop_remainder"),
        (rows_of(3), "2 replicas can share; got 3"),
        ((x for x in [rows_of(4)]), "got a generator.*from_generator"),
        (Sequence(rows_of(4)), "got a Sequence.*from_generator"),
    ],
)
def test_batches_of_uneven_sizes_are_refused(x, words, mirrored):
    learner = labels_alone(mirrored(2))
    size = {"batch_size": 4} if isinstance(x, dict) else {}
    with pytest.raises(ValueError, match=words):
        learner.fit(x, verbose=0, **size)
    assert learner.position.numpy() == 0


def test_replicas_of_a_tpu_need_not_meet_outside(monkeypatch):
    """All of them are one program, though TensorFlow says otherwise."""
    tpu = object.__new__(tf.distribute.TPUStrategy)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: tpu)
    assert not replicas.merges()


@pytest.mark.long
def test_an_update_that_is_not_finite_is_skipped_on_all_replicas(mirrored):
    with mirrored(2).scope():
        learner = Supervised(conv_net("student"))
        learner.compile(Momentum(0.1))
    data = batch(labeled=4)
    data["labeled"][3] = np.inf  # Seen by the second replica alone.
    dataset = tf.data.Dataset.from_tensors(data)
    before = values(learner.student.trainable_variables)
    learner.fit(dataset, verbose=0)
    assert learner.step.numpy() == 0
    for a, b in zip(before, learner.student.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())


def test_batches_that_replicas_cannot_share_are_refused(mirrored):
    with mirrored(2).scope():
        learner = Supervised(conv_net("student"))
        learner.compile(Momentum(0.1))
    dataset = tf.data.Dataset.from_tensors(batch(labeled=3))
    with pytest.raises(ValueError, match="2 replicas can share; got 3"):
        learner.fit(dataset, verbose=0)


def test_what_is_endless_is_so_for_every_replica(mirrored):
    """Else steps on several workers know no number of rows: some may end."""
    data = tf.data.Dataset.from_tensors(batch(labeled=4))
    endless = split_batches(mirrored(2), data.repeat())
    assert endless.cardinality == tf.data.INFINITE_CARDINALITY
    ending = split_batches(mirrored(2), data.repeat(2))
    assert ending.cardinality != tf.data.INFINITE_CARDINALITY


@pytest.mark.long
def test_steps_per_execution_on_two_replicas(mirrored):
    one = train(LEARNERS["uda"], steps=6)
    rows, several = train(
        LEARNERS["uda"], mirrored(2), steps=6, steps_per_execution=3
    )
    assert len(rows) == 2
    assert_same((one[0][2::3], one[1]), (rows, several))


def test_steps_per_execution_changes_nothing():
    one = train(LEARNERS["uda"])
    _, several = train(LEARNERS["uda"], steps_per_execution=5)
    for a, b in zip(one[1], several, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("count", [1, 2])
def test_an_epoch_that_takes_more_steps_than_asked_says_so(
    count, mirrored, caplog
):
    """Executions are whole where data do not end, as on several replicas."""
    learner = labels_alone(mirrored(count) if count > 1 else None)
    learner.compile("sgd", steps_per_execution=2)
    data = tf.data.Dataset.from_tensors(rows_of(4))
    if count == 1:
        learner.fit(data.repeat(3), verbose=0)
        assert learner.step.numpy() == 3
        learner.fit(data.repeat(), steps_per_epoch=4, verbose=0)
        assert learner.step.numpy() == 7 and "takes" not in caplog.text
        learner.fit(data.repeat(), steps_per_epoch=3, verbose=0)
        assert learner.step.numpy() == 11
    else:
        learner.fit(data.repeat(3), verbose=0)
        assert learner.step.numpy() == 4
    assert "epoch takes 4 if there are data" in caplog.text


@pytest.mark.long
def test_costly_logs_come_in_the_middle_of_an_execution():
    """Skipped steps have shifted the multiples away from its end."""
    learner = LEARNERS["reinforce"]()  # Due is every 50th step.
    learner.compile(Momentum(0.2), steps_per_execution=3)
    learner.set_step(30)
    batches = list(dataset(steps=24).as_numpy_iterator())
    for skipped in batches[1:3]:
        skipped["labeled"] = np.full_like(skipped["labeled"], np.inf)
    stacked = {
        key: np.stack([b[key] for b in batches]) for key in learner.batch_keys
    }
    logs = Logs()
    data = tf.data.Dataset.from_tensor_slices(stacked)
    learner.fit(data, verbose=0, callbacks=[logs])
    assert learner.step.numpy() == 30 + 22
    *before, last = (row["mpl/feedback_grad_ratio"] for row in logs.rows)
    assert len(set(before)) == 1 and 0 < before[0] != last > 0


def test_data_of_several_workers_must_not_end():
    workers = mock.Mock(
        spec=tf.distribute.MultiWorkerMirroredStrategy, num_replicas_in_sync=2
    )
    with pytest.raises(ValueError, match=r"must not end: use \.repeat\(\)"):
        split_batches(workers, tf.data.Dataset.from_tensors(tf.zeros([4])))


@pytest.mark.long
def test_blocks_that_are_computed_again_on_two_replicas(mirrored):
    """`exact` differentiates the recomputation, all-reduces and all."""

    def build():
        networks = [
            models.rematerialized(
                models.build(
                    "wrn-10-1",
                    input_shape=(6, 6, 2),
                    num_classes=CLASSES,
                    dropout_rate=0.3,
                    name=name,
                    dtype="float64",
                )
            )
            for name in ("student", "teacher")
        ]
        return MetaPseudoLabels(
            *networks, feedback="exact", feedback_weight=5.0, uda=UDA_SETTINGS
        )

    one = train(build, steps=3)
    assert_same(one, train(build, mirrored(2), steps=3))
