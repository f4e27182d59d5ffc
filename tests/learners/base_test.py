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
from meta_pseudo_labels.learners.passes import forward
from meta_pseudo_labels.optimizers import Momentum
from tests.learners.helpers import CLASSES, batch, conv_net, values


def make(method, *, dtype="float32", **settings):
    student = conv_net("student", dtype=dtype, dropout_rate=0.2)
    if method is MetaPseudoLabels:
        teacher = conv_net("teacher", dtype=dtype, dropout_rate=0.2)
        return MetaPseudoLabels(student, teacher, **settings)
    return method(student, **settings)


def dataset(steps=None, dtype="float32"):
    """Batches by step, endless unless `steps` is given."""
    batches = [batch(seed=seed, dtype=dtype) for seed in range(4)]
    stacked = {k: np.stack([b[k] for b in batches]) for k in batches[0]}
    endless = tf.data.Dataset.from_tensor_slices(stacked).repeat()
    return endless if steps is None else endless.take(steps)


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


def test_a_forward_pass_without_moments_leaves_them_alone():
    model = conv_net("model", dropout_rate=0.5)
    images = batch()["labeled"]
    before = values(model.variables)
    first = forward(model, images, update_moments=False).numpy()
    moved = [
        v.path
        for v, old in zip(model.variables, before, strict=True)
        if (v.numpy() != old).any()
    ]
    assert len(moved) == 1 and "seed" in moved[0]
    assert (forward(model, images, update_moments=False).numpy() != first).any()


@pytest.mark.parametrize(
    "encode",
    [
        lambda labels: labels[:, np.newaxis],  # As keras.datasets.cifar10 has.
        lambda labels: labels.astype("int64"),
        lambda labels: np.eye(CLASSES, dtype="float32")[labels],
    ],
)
def test_labels_in_any_form_give_the_same_loss(encode):
    losses = []
    for change in (lambda labels: labels, encode):
        keras.utils.set_random_seed(0)
        learner = make(Supervised, dtype="float64")
        learner.compile(Momentum(0.1))
        data = batch()
        data["labels"] = change(data["labels"])
        losses.append(float(learner.train_step(data)["loss/total"]))
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros([4, 2], "float32"), ValueError, "got float32 of shape"),
        (np.zeros([4, CLASSES], "int32"), ValueError, "got int32 of shape"),
        (np.zeros([4], "float32"), ValueError, "got float32 of shape"),
        (
            np.full([4], CLASSES),
            tf.errors.InvalidArgumentError,
            "not among the 3 classes",
        ),
    ],
)
def test_labels_that_make_no_sense_are_refused(labels, error, message):
    learner = make(Supervised)
    learner.compile(Momentum(0.1))
    step = tf.function(learner.train_step)
    with pytest.raises(error, match=message):
        step({**batch(dtype="float32"), "labels": tf.constant(labels)})


@pytest.mark.parametrize(
    ("method", "data", "message"),
    [
        (UDA, {"labeled": 0, "labels": 0}, "weak, strong; got"),
        (Supervised, (0, 0), "got tuple"),
    ],
)
def test_batches_without_their_parts_are_refused(method, data, message):
    learner = make(method)
    learner.compile("sgd")
    with pytest.raises(ValueError, match=message):
        learner.train_step(data)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_models_train_in_float32_logits(policy):
    learner = make(MetaPseudoLabels, dtype=policy, ema_decay=0.9)
    learner.compile("sgd")
    logs = learner.fit(dataset(2, dtype="float32"), verbose=0).history
    assert all(np.isfinite(values).all() for values in logs.values())
    assert learner(batch(dtype="float32")["labeled"]).dtype == "float32"


def test_models_of_text_train_too():
    """Integer inputs, and gradients that are sparse."""

    def model():
        return keras.Sequential(
            [
                keras.Input((5,), dtype="int32"),
                keras.layers.Embedding(20, 4),
                keras.layers.GlobalAveragePooling1D(),
                keras.layers.Dense(CLASSES),
            ]
        )

    tokens = tf.random.stateless_uniform([6, 5], [0, 0], 0, 20, tf.int32)
    learner = MetaPseudoLabels(model(), model())
    learner.compile("sgd")
    logs = learner.train_step(
        {
            "labeled": tokens[:2],
            "labels": tf.constant([0, 1]),
            "weak": tokens[2:],
            "strong": tokens[2:],
        }
    )
    assert all(np.isfinite(value) for value in logs.values())


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


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: keras.Sequential([keras.layers.Dense(3)]), "no weights"),
        (lambda: lambda images: images, "must be a keras.Model"),
        (
            lambda: keras.Sequential(
                [keras.Input((4,)), keras.layers.Dense(3, "softmax")]
            ),
            "must return logits",
        ),
        (
            lambda: keras.Sequential(
                [
                    keras.Input((4,)),
                    keras.layers.Dense(3),
                    keras.layers.Softmax(),
                ]
            ),
            "must return logits",
        ),
        (
            lambda: keras.Sequential(
                [
                    keras.Input((4,)),
                    keras.layers.Dense(3, kernel_regularizer="l2"),
                ]
            ),
            "regularizers",
        ),
    ],
)
def test_models_that_cannot_be_trained_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        Supervised(model())


@pytest.mark.parametrize(
    "settings",
    [
        {"label_smoothing": 1.5},
        {"label_smoothing": -0.1},
        {"ema_decay": 1.0},
        {"log_every": 0},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        make(Supervised, **settings)


@pytest.mark.parametrize(
    "settings", [{"weight_decay": -1.0}, {"grad_bound": 0.0}]
)
def test_compile_refuses_what_cannot_be_meant(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        make(Supervised).compile(**settings)


def test_several_replicas_are_refused(monkeypatch):
    class Strategy:
        num_replicas_in_sync = 4

    monkeypatch.setattr(tf.distribute, "get_strategy", Strategy)
    with pytest.raises(ValueError, match="4 replicas"):
        make(Supervised)
