"""The teacher's learning rate follows the student's, across files too."""

import io
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import MetaPseudoLabels
from meta_pseudo_labels.optimizers import Momentum
from tests.learners.helpers import CLASSES

O = keras.optimizers  # noqa: E741


def network(name):
    layers = [keras.Input((4,)), keras.layers.Dense(CLASSES)]
    return keras.Sequential(layers, name=name)


def made(rate=0.1, teacher_rate=None, **settings):
    learner = MetaPseudoLabels(
        network("student"), network("teacher"), feedback="off", uda=None
    )
    optimizers = [
        Momentum(one) if isinstance(one, float) else one
        for one in (rate, teacher_rate)
    ]
    learner.compile(*optimizers, **settings)
    return learner


def batches(steps=1):
    images = np.random.default_rng(0).normal(size=(steps, 4, 4))
    part = dict(labeled=images.astype("float32"))
    part["labels"] = np.zeros((steps, 4), "int32")
    part["strong"] = part["labeled"]
    return tf.data.Dataset.from_tensor_slices(part)


def rates(learner):
    optimizers = learner.optimizer, learner.teacher_optimizer
    return [float(tf.convert_to_tensor(o.learning_rate)) for o in optimizers]


def after_a_step(learner):
    learner.fit(batches(), verbose=0)
    return rates(learner)


class Halve(keras.callbacks.Callback):
    """Of a user's own: halves the student's rate after each batch."""

    def on_train_batch_end(self, batch, logs=None):
        optimizer = self.model.optimizer
        optimizer.learning_rate = float(optimizer.learning_rate) / 2


SETS_RATES = {
    "scheduler": lambda: keras.callbacks.LearningRateScheduler(
        lambda epoch, rate: rate / 2
    ),
    "plateau": lambda: keras.callbacks.ReduceLROnPlateau(
        "mpl/dot_product", factor=0.5, patience=0, min_delta=1e9, mode="min"
    ),
    "own": Halve,
}


@pytest.mark.fast("own-LossScaleOptimizer", "scheduler-<lambda>")
@pytest.mark.parametrize("wrap", [lambda x: x, O.LossScaleOptimizer])
@pytest.mark.parametrize("name", SETS_RATES)
def test_a_rate_that_a_callback_sets_moves_both_networks(name, wrap):
    learner = made(wrap(O.SGD(0.4)), wrap(O.SGD(0.1)), run_eagerly=True)
    history = learner.fit(
        batches(3),
        epochs=3,
        verbose=0,
        callbacks=[SETS_RATES[name]()],
    ).history
    logged = np.array([history["lr/student"], history["lr/teacher"]])
    assert logged[0, -1] < 0.4
    np.testing.assert_allclose(logged[0], 4 * logged[1], rtol=1e-6)


@pytest.mark.fast("1")
@pytest.mark.parametrize("replicas", [1, 2])
def test_rates_keep_their_proportion_until_both_are_set(replicas, mirrored):
    strategy = mirrored(2) if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        learner = made(0.4, 0.1)
    seen = []
    for student, teacher in ((0.2, None), (None, 0.1), (0.4, None)):
        if student:
            learner.optimizer.learning_rate = student
        if teacher:
            learner.teacher_optimizer.learning_rate = teacher
        seen.append(after_a_step(learner))
    np.testing.assert_allclose(seen, [(0.2, 0.05), (0.2, 0.1), (0.4, 0.2)])


def test_a_teacher_that_cannot_follow_is_told():
    schedule = O.schedules.ExponentialDecay(0.1, 10, 0.5)
    learner = made(O.SGD(0.4), O.SGD(schedule), run_eagerly=True)
    with pytest.warns(UserWarning, match="the teacher's is a schedule"):
        learner.fit(batches(), verbose=0, callbacks=[Halve()])


def by_file(learner, folder):
    learner.save(folder / "all.keras")
    return keras.models.load_model(folder / "all.keras")


def by_weights(learner, folder):
    learner.save_weights(folder / "some.weights.h5")
    other = made()
    other.load_weights(folder / "some.weights.h5")
    return other


WAYS = [by_file, by_weights]


@pytest.mark.parametrize("way", WAYS)
def test_rates_that_a_callback_set_last_outlive_a_file(way, tmp_path):
    learner = made(0.1)
    plateau = keras.callbacks.ReduceLROnPlateau(
        "val_loss", min_delta=9, patience=1, factor=0.1
    )
    learner.fit(
        batches(),
        epochs=4,
        callbacks=[plateau],
        validation_data=(np.zeros((3, 4)), np.zeros(3, int)),
        verbose=0,
    )
    np.testing.assert_allclose(rates(learner), [1e-4, 1e-4], rtol=1e-5)
    other = way(learner, tmp_path)
    np.testing.assert_allclose(rates(other), [1e-4, 1e-4], rtol=1e-5)
    np.testing.assert_allclose(after_a_step(other), [1e-4, 1e-4], rtol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_a_file_written_as_an_epoch_ends_has_what_was_set_before(way, tmp_path):
    learner, others = made(0.1, 0.2), []

    class SetAndSave(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            learner.optimizer.learning_rate = 0.01
            others.append(way(learner, tmp_path))

    learner.fit(batches(), callbacks=[SetAndSave()], verbose=0)
    np.testing.assert_allclose(after_a_step(others[0]), [0.01, 0.02])


@pytest.mark.parametrize("way", WAYS)
def test_a_rate_of_its_own_outlives_a_file(way, tmp_path):
    learner = made(0.1)
    learner.optimizer.learning_rate = 0.02
    learner.teacher_optimizer.learning_rate = 0.3
    after_a_step(learner)
    learner.teacher_optimizer.learning_rate = 0.1  # That of a fresh `made`.
    other = way(learner, tmp_path)
    np.testing.assert_allclose(after_a_step(other), [0.02, 0.1])
    other = way(learner, tmp_path)
    other.optimizer.learning_rate = 0.04
    np.testing.assert_allclose(after_a_step(other), [0.04, 0.2])


def test_a_file_without_what_was_seen_has_rates_of_its_own(tmp_path):
    """As those written before it was saved."""
    learner = made(0.02, 0.1)
    path = tmp_path / "old.weights.h5"
    learner.save_weights(path)
    with h5py.File(path, "a") as file:
        del file["vars/rates"]
    for first in (0.02, 0.04):  # The next step's: also one just set.
        other = made(0.1)
        other.load_weights(path)
        other.optimizer.learning_rate = first
        np.testing.assert_allclose(after_a_step(other), [first, 5 * first])


def test_an_older_model_goes_on_in_proportion(tmp_path):
    learner = made(0.1, 0.2)
    path = tmp_path / "old.keras"
    learner.save(path)
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    weights = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(weights, "a") as file:
        del file["vars/rates"]
    parts["model.weights.h5"] = weights.getvalue()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    other = keras.models.load_model(path)
    other.optimizer.learning_rate = 0.05
    np.testing.assert_allclose(after_a_step(other), [0.05, 0.1])


@pytest.mark.parametrize("way", WAYS)
def test_a_proportion_outlives_a_file_written_at_rate_0(way, tmp_path):
    learner = made(0.1, 0.3)
    learner.optimizer.learning_rate = 0.0
    other = way(learner, tmp_path)
    assert rates(other) == [0.0, 0.0]
    other.optimizer.learning_rate = 0.2
    np.testing.assert_allclose(after_a_step(other), [0.2, 0.6])


def test_a_learner_that_nobody_compiled_can_be_saved(tmp_path):
    def plain():
        return MetaPseudoLabels(network("student"), network("teacher"))

    learner, other = plain(), plain()
    path = tmp_path / "plain.weights.h5"
    learner.save_weights(path)
    other.load_weights(path)
    for read in (other, by_file(learner, tmp_path)):
        np.testing.assert_array_equal(
            read.student.weights[0], learner.student.weights[0]
        )


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_value_that_it_has_already_counts_where_none_follows(
    replicas, mirrored
):
    strategy = mirrored(2) if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        learner = made(0.1, teacher_follows=False)
    learner.optimizer.learning_rate = 0.0
    learner.teacher_optimizer.learning_rate = 0.1
    np.testing.assert_allclose(after_a_step(learner), [0.0, 0.1])


def test_a_file_tells_that_none_follows(tmp_path):
    other = by_file(made(0.1, teacher_follows=False), tmp_path)
    other.optimizer.learning_rate = 0.2
    np.testing.assert_allclose(after_a_step(other), [0.2, 0.1])
