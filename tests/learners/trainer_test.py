"""What `fit` takes, counts and logs."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import MetaPseudoLabels, Supervised
from meta_pseudo_labels.run.stopping import StopAfterBadSteps
from tests.learners.helpers import CLASSES

pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")


def net():
    layers = [keras.layers.Dropout(0.5, seed=3), keras.layers.Dense(CLASSES)]
    return keras.Sequential([keras.Input((4,)), *layers])


def batches(steps):
    """Batches of which nobody knows beforehand how many there are."""
    images = np.random.default_rng(0).normal(size=(steps, 4, 4))
    part = dict(labeled=images.astype("float32"), labels=np.zeros((steps, 4)))
    part["labels"] = part["labels"].astype("int32")
    part["strong"] = part["labeled"]
    return tf.data.Dataset.from_tensor_slices(part).filter(lambda part: True)


def seeds(learner):
    return [v.numpy()[1] for v in learner.variables if "seed" in v.path]


@pytest.mark.fast("1-3-4")
@pytest.mark.parametrize(
    ("replicas", "at_once", "steps"), [(1, 1, 4), (1, 3, 4), (2, 1, 4)]
)
def test_nothing_moves_where_the_data_end(replicas, at_once, steps, mirrored):
    """Neither counters nor the states of random layers, at each of two ends."""
    strategy = mirrored(2) if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        learner = Supervised(net())
        learner.compile(steps_per_execution=at_once)
    learner.fit(batches(steps), epochs=2, verbose=0)
    assert int(learner.position.numpy()) == int(learner.step.numpy())
    assert int(learner.position.numpy()) == 2 * steps
    assert seeds(learner) == [2 * steps]


@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize(
    ("count", "at_once", "calls"), [(3, 4, 1), (10, 4, 3), (8, 4, 2)]
)
def test_what_is_left_of_the_data_is_logged(count, at_once, calls, eagerly):
    def made(at_once):
        keras.utils.set_random_seed(0)
        learner = Supervised(net())
        learner.compile(steps_per_execution=at_once, run_eagerly=eagerly)
        return learner

    learner, ends = made(at_once), []
    see = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(int(learner.step))
    )
    fitted = learner.fit(batches(count), callbacks=[see], verbose=0)
    assert ends == [*range(at_once, count, at_once), count]
    assert len(ends) == calls
    by_one = made(1).fit(batches(count), verbose=0)
    assert fitted.history == by_one.history


def test_what_is_left_is_logged_on_several_replicas(mirrored):
    """Also after endless data, of which no end is asked for."""
    with mirrored(2).scope():
        learner = Supervised(net())
        learner.compile(steps_per_execution=2)
    seen = []
    see = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(
            (int(learner.step.numpy()), logs["loss/total"])
        )
    )
    fit = functools.partial(learner.fit, callbacks=[see], verbose=0)
    fit(batches(3).repeat(), steps_per_epoch=2)
    history = fit(batches(3)).history
    assert [step for step, _ in seen] == [2, 4, 5]
    assert history["loss/total"] == [seen[-1][1]]
    assert len({loss for _, loss in seen}) == 3


def test_nor_does_a_teacher():
    learner = MetaPseudoLabels(net(), net(), feedback="off", uda=None)
    learner.compile()
    learner.fit(batches(3), epochs=2, verbose=0)
    assert int(learner.position.numpy()) == 6
    assert seeds(learner) == [12, 6]  # The student looks twice.


def rows(steps):
    """The same batches, one by one, as dicts of arrays."""
    return list(batches(steps).as_numpy_iterator())


def plain(**settings):
    keras.utils.set_random_seed(0)
    dense = [keras.Input((4,)), keras.layers.Dense(CLASSES)]
    learner = Supervised(keras.Sequential(dense))
    learner.compile("sgd", metrics=["accuracy"], **settings)
    return learner


@pytest.mark.parametrize("eagerly", [False, True])
def test_a_batch_or_a_generator_trains_as_a_data_set_does(eagerly):
    by_data, by_batch, by_dicts, by_tuples = (
        plain(run_eagerly=eagerly) for _ in range(4)
    )
    history = by_data.fit(batches(3), verbose=0).history
    for batch in rows(3):
        logs = by_batch.train_on_batch(batch, return_dict=True)
    by_dicts.fit((batch for batch in rows(3)), verbose=0)
    by_tuples.fit(((batch, None, None) for batch in rows(3)), verbose=0)
    assert logs["loss/total"] == history["loss/total"][0]
    want = by_data.student.get_weights()
    for learner in (by_batch, by_dicts, by_tuples):
        assert int(learner.step) == 3
        np.testing.assert_array_equal(learner.student.get_weights()[0], want[0])


def test_a_teacher_is_trained_on_a_batch_on_every_replica(mirrored):
    got = []
    for strategy in (tf.distribute.get_strategy(), mirrored(2)):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            student, teacher = (plain().student for _ in range(2))
            learner = MetaPseudoLabels(
                student, teacher, uda=None, feedback="off"
            )
            learner.compile("sgd")
        learner.train_on_batch(rows(1)[0])
        got.append(teacher.get_weights()[0])
    np.testing.assert_allclose(got[0], got[1], rtol=1e-5)


@pytest.mark.parametrize("name", ["y", "sample_weight", "class_weight"])
def test_what_belongs_into_a_batch_is_refused_beside_it(name):
    given = {0: 2.0} if name == "class_weight" else np.zeros(4)
    with pytest.raises(ValueError, match=f"without {name} .*under the key"):
        plain().train_on_batch(rows(1)[0], **{name: given})


@pytest.mark.parametrize("eagerly", [False, True])
def test_labels_beside_the_batches_of_fit_are_refused(eagerly):
    learner = plain(run_eagerly=eagerly)
    pairs = ((batch, batch["labels"]) for batch in rows(1))
    with pytest.raises(ValueError, match="without y beside"):
        learner.fit(pairs, verbose=0)


def spoiled(bad, steps=4):
    """Batches of which the first ones are NaN."""
    images = np.ones((steps, 4, 4), "float32")
    images[:bad] = np.nan
    part = {"labeled": images, "labels": np.zeros((steps, 4), "int32")}
    return tf.data.Dataset.from_tensor_slices(part)


@pytest.mark.parametrize("bad", [4, 3, 2, 0])
def test_steps_that_were_skipped_are_told_of(bad, logged):
    plain().fit(spoiled(bad), verbose=0)
    lines = [line for line in logged if "skipped" in line]
    assert len(lines) == (bad > 2)
    assert not lines or f"{bad} of 4 steps were skipped" in lines[0]


@pytest.mark.parametrize(
    "given",
    [
        lambda counts, learner: [counts],
        lambda counts, learner: counts,
        lambda counts, learner: keras.callbacks.CallbackList(
            [counts], add_history=True, model=learner
        ),
    ],
)
def test_they_are_told_of_once_where_a_run_counts_them_too(given, logged):
    learner = plain()
    callbacks = given(StopAfterBadSteps(9), learner)
    learner.fit(spoiled(4), verbose=0, callbacks=callbacks)
    assert logged == []


def test_no_step_before_compile():
    learner = Supervised(net())
    with pytest.raises(ValueError, match=r"call compile\(\)"):
        learner.train_step(rows(1)[0])
    learner = MetaPseudoLabels(net(), net(), uda=None)
    with pytest.raises(ValueError, match=r"call compile\(\)"):
        learner.train_step(rows(1)[0])
