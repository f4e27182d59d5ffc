"""What all learners share, seen as a user of Keras sees it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import (
    UDA,
    MetaPseudoLabels,
    Supervised,
    UDASettings,
)
from meta_pseudo_labels.optimizers import Momentum
from tests.learners.helpers import CLASSES, batch, dataset, make, values


@pytest.mark.fast("MetaPseudoLabels")
@pytest.mark.parametrize("method", [Supervised, UDA, MetaPseudoLabels])
def test_plain_compile_fit_evaluate_predict(method, tmp_path, capsys):
    keras.utils.set_random_seed(0)
    learner = make(method, ema_decay=0.9)
    learner.compile("sgd", metrics=["accuracy"])
    images = batch(dtype="float32", labeled=30)["labeled"]
    labels = np.zeros(30, "int32")
    history = learner.fit(
        dataset(),
        steps_per_epoch=3,
        epochs=2,
        validation_data=(images, labels),
        callbacks=[
            keras.callbacks.EarlyStopping("val_loss", patience=5),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            keras.callbacks.ModelCheckpoint(
                tmp_path / "{epoch}.weights.h5", save_weights_only=True
            ),
            keras.callbacks.TensorBoard(tmp_path / "events"),
            keras.callbacks.TerminateOnNaN(),
        ],
    )
    assert int(learner.step) == 6
    assert "3/3" in capsys.readouterr().out  # Keras's progress bar.
    assert len(history.history["val_accuracy"]) == 2
    assert all(np.isfinite(v).all() for v in history.history.values())
    loss, accuracy = learner.evaluate(images, labels, verbose=0)
    logits = learner.predict(images, verbose=0)
    assert logits.shape == (30, CLASSES)
    assert accuracy == pytest.approx(np.mean(logits.argmax(-1) == labels))
    expected = keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )
    assert loss == pytest.approx(float(np.mean(expected)), rel=1e-5)
    assert (tmp_path / "2.weights.h5").exists()


@pytest.mark.long
@pytest.mark.parametrize("method", [Supervised, UDA, MetaPseudoLabels])
def test_saved_weights_carry_the_whole_learner(method, tmp_path):
    learner = make(method, ema_decay=0.9)
    learner.compile(Momentum(0.1))
    learner.fit(dataset(3), verbose=0)
    learner.save_weights(tmp_path / "w.weights.h5")
    other = make(method, ema_decay=0.9)
    other.compile(Momentum(0.1))
    other.load_weights(tmp_path / "w.weights.h5")
    # All but the states of dropout's seeds, which Keras leaves out of files of
    # weights; the checkpoints of a run have them (checkpointing_test.py).
    for one, two in zip(learner.weights, other.weights, strict=True):
        np.testing.assert_array_equal(one, two, err_msg=one.path)


@pytest.mark.fast("MetaPseudoLabels")
@pytest.mark.parametrize("method", [Supervised, UDA, MetaPseudoLabels])
def test_a_saved_model_is_the_same_and_goes_on(method, tmp_path):
    settings = {} if method is Supervised else {"uda": UDASettings(weight=2.0)}
    learner = make(method, ema_decay=0.9, label_smoothing=0.1, **settings)
    learner.compile(Momentum(0.1), weight_decay=1e-3, metrics=["accuracy"])
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "last.keras")
    learner.fit(dataset(3), callbacks=[checkpoint], verbose=0)
    other = keras.models.load_model(tmp_path / "last.keras")
    settings = learner.get_config()
    assert settings.keys() >= {"label_smoothing", "ema_decay", "seed"}
    for name in settings.keys() - {"student", "teacher"}:
        assert other.get_config()[name] == settings[name]
    assert other.weight_decay == 1e-3
    for name in ("weights", "optimizer", "teacher_optimizer"):
        if hasattr(learner, name):
            ours, theirs = (
                values(getattr(part, "variables", part))
                for part in (getattr(learner, name), getattr(other, name))
            )
            for one, two in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one, two)
    other.fit(dataset(1), verbose=0)
    assert int(other.step) == 4


def test_calls_see_the_average_and_training_does_not():
    learner = make(Supervised, ema_decay=0.9)
    learner.compile(Momentum(0.5))
    learner.fit(dataset(5), verbose=0)
    images = batch(dtype="float32")["labeled"]
    plain = learner.student(images, training=False).numpy()
    averaged = learner(images).numpy()
    assert np.max(np.abs(plain - averaged)) > 1e-3
    np.testing.assert_allclose(
        learner.predict(images, verbose=0), averaged, rtol=1e-5, atol=1e-6
    )
    student = learner.finished_student()
    np.testing.assert_allclose(
        student(images, training=False), averaged, rtol=1e-5, atol=1e-6
    )


def test_without_average_calls_see_the_student():
    learner = make(Supervised)
    images = batch(dtype="float32")["labeled"]
    np.testing.assert_array_equal(
        learner(images), learner.student(images, training=False)
    )


def test_weight_decay_spares_normalization_and_clipping_follows():
    learner = make(Supervised, dtype="float64")
    learner.compile(Momentum(0.1), weight_decay=0.1, grad_bound=1.0)
    model = learner.student
    zeros = [tf.zeros(v.shape, "float64") for v in model.trainable_variables]
    gradients, norm = learner.prepare_gradients(zeros, model)
    decayed = [
        0.1 * v.numpy()
        if not v.path.split("/")[-2].startswith("batch_norm")
        else np.zeros(v.shape)
        for v in model.trainable_variables
    ]
    expected = np.sqrt(sum(np.sum(g**2) for g in decayed))
    assert sum(not g.any() for g in decayed) == 4 + 3  # BN, and zero biases.
    np.testing.assert_allclose(norm, expected, rtol=1e-12)
    for gradient, want in zip(gradients, decayed, strict=True):
        np.testing.assert_allclose(gradient, want / max(1.0, expected))


def test_gradients_are_clipped_by_their_joint_norm():
    learner = make(Supervised, dtype="float64")
    learner.compile(Momentum(0.1), grad_bound=5.0)
    ones = [
        tf.ones(v.shape, "float64") for v in learner.student.trainable_variables
    ]
    count = learner.student.count_params()
    moments = 4 * 4  # Mean and variance of 4 channels, twice: not trained.
    gradients, norm = learner.prepare_gradients(ones, learner.student)
    np.testing.assert_allclose(norm, np.sqrt(count - moments))
    np.testing.assert_allclose(tf.linalg.global_norm(gradients), 5.0)


def test_clipping_has_a_derivative_where_all_gradients_are_zero():
    """Of a student that agrees with its teacher; `exact` asks for it."""
    learner = make(Supervised, dtype="float64")
    learner.compile(Momentum(0.1), grad_bound=5.0)
    zeros = [
        tf.zeros(v.shape, "float64")
        for v in learner.student.trainable_variables
    ]
    with tf.GradientTape() as tape:
        tape.watch(zeros)
        gradients, norm = learner.prepare_gradients(zeros, learner.student)
        total = tf.add_n([tf.reduce_sum(g) for g in gradients])
    assert norm == 0
    for slope in tape.gradient(total, zeros):
        np.testing.assert_array_equal(slope, tf.ones_like(slope))


def test_supervised_skips_an_update_that_is_not_finite():
    learner = make(Supervised, ema_decay=0.9)
    learner.compile(Momentum(0.1))
    learner.train_step(batch(dtype="float32"))
    weights = values(learner.student.trainable_variables)
    slots = values(learner.optimizer.variables)
    bad = batch(dtype="float32", seed=1)
    bad["labeled"][0, 0, 0, 0] = np.inf
    learner.train_step(bad)
    assert int(learner.step) == 1
    for old, new in zip(
        weights + slots,
        learner.student.trainable_variables + learner.optimizer.variables,
        strict=True,
    ):
        np.testing.assert_array_equal(old, new)


class Noisy(keras.layers.Layer):
    """Adds to the loss, and has a metric."""

    def __init__(self):
        super().__init__()
        self.seen = keras.metrics.Mean(name="seen")

    def call(self, inputs):
        self.add_loss(keras.ops.mean(keras.ops.square(inputs)))
        self.seen.update_state(inputs)
        return inputs


def with_own_losses():
    """All that Keras collects from a model: of weights, activities, calls."""
    penalty = keras.regularizers.L2(1.0)
    dense = keras.layers.Dense
    inner = [keras.Input((4,)), dense(5, bias_regularizer=penalty)]
    outer = dense(
        CLASSES, kernel_regularizer=penalty, activity_regularizer=penalty
    )
    return keras.Sequential(
        [keras.Input((4,)), keras.Sequential(inner), outer, Noisy()]
    )


@pytest.mark.fast("student-0.9")
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("role", ["student", "teacher"])
def test_evaluate_is_kerass_of_the_student_alone(role, ema_decay):
    """What a teacher adds to its loss is none of it, nor its metrics."""
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    networks = {
        name: keras.Sequential([keras.Input((4,)), dense(CLASSES)])
        for name in ("student", "teacher")
    }
    networks[role] = with_own_losses()
    student = networks["student"]
    learner = MetaPseudoLabels(**networks, ema_decay=ema_decay)
    learner.compile("sgd", metrics=["accuracy"])
    if ema_decay:  # The average is another student.
        student.set_weights([2 * w for w in student.get_weights()])
    images = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    labels = np.int32([0, 1, 2, 0, 1, 2])
    got = learner.evaluate(images, labels, verbose=0, return_dict=True)
    finished = learner.finished_student()
    finished.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    want = finished.evaluate(images, labels, verbose=0, return_dict=True)
    assert got.keys() == {"loss", "accuracy"} | (
        want.keys() if not ema_decay else set()
    )
    for name, value in got.items():
        assert value == pytest.approx(want[name], rel=1e-5)
    logits = finished(images)
    cross_entropy = keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )
    own = got["loss"] - float(np.mean(cross_entropy))
    assert own == pytest.approx(0, abs=1e-5) if role == "teacher" else own > 0.1


@pytest.mark.long
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_export_writes_the_finished_student_and_training_goes_on(
    ema_decay, tmp_path
):
    learner = make(MetaPseudoLabels, ema_decay=ema_decay)
    learner.compile(Momentum(0.5))
    learner.fit(dataset(3), verbose=0)
    before = values(learner.variables)
    learner.export(tmp_path / "served", verbose=False)
    for one, two in zip(before, learner.variables, strict=True):
        np.testing.assert_array_equal(one, two)
    served = tf.saved_model.load(tmp_path / "served")
    images = batch(dtype="float32")["labeled"]
    np.testing.assert_allclose(
        served.serve(images), learner(images), rtol=1e-5, atol=1e-6
    )
    (spec,) = served.signatures["serving_default"].structured_input_signature[1]
    assert spec
    assert len(served.variables) <= len(learner.student.variables)
    learner.fit(dataset(1), verbose=0)
