"""What `evaluate` reports, and which network answers."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import evaluate, finetune
from meta_pseudo_labels.learners import (
    MetaPseudoLabels,
    Supervised,
    compile_metrics,
)
from meta_pseudo_labels.run.checkpoints import Checkpoints
from meta_pseudo_labels.run.restoring import learner_state, restore_learner
from tests.learners.helpers import CLASSES, Sequence

IMAGES = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
LABELS = np.int32([0, 1, 2, 0, 1, 2])
PAIRS = tf.data.Dataset.from_tensors((IMAGES, LABELS))
BATCH = {"labeled": IMAGES, "labels": LABELS}
BATCHES = tf.data.Dataset.from_tensors(BATCH)


def network(name="student"):
    layers = [keras.Input((4,)), keras.layers.Dense(CLASSES)]
    return keras.Sequential(layers, name=name)


def made(ema_decay=0.0, **settings):
    learner = Supervised(network(), ema_decay=ema_decay)
    learner.compile(keras.optimizers.SGD(0.5), **settings)
    return learner


def cross_entropy(logits):
    """By hand: minus the log of the softmax at each label, the mean."""
    logits = np.asarray(logits, "float64")
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -logs[range(6), LABELS].mean()


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("sparse_categorical_crossentropy", LABELS),
        ("SparseCategoricalCrossentropy", LABELS),
        ("categorical_crossentropy", np.eye(3, dtype="float32")[LABELS]),
    ],
)
def test_cross_entropies_that_are_named_are_those_of_logits(
    name, labels, tmp_path
):
    learner = made(loss=name, metrics=[name, "accuracy"])
    want = cross_entropy(learner(IMAGES))
    learner.save(tmp_path / "model.keras")
    for one in (learner, keras.models.load_model(tmp_path / "model.keras")):
        got = one.evaluate(IMAGES, labels, verbose=0, return_dict=True)
        assert len(got) == 3
        for key in got.keys() - {"accuracy"}:
            assert got[key] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": keras.losses.SparseCategoricalCrossentropy()},
        {"loss": keras.losses.sparse_categorical_crossentropy},
        {"metrics": [keras.metrics.SparseCategoricalCrossentropy()]},
        {"weighted_metrics": ["accuracy", keras.metrics.AUC()]},
        {"loss": functools.partial(keras.losses.categorical_crossentropy)},
        {
            "metrics": [
                keras.metrics.MeanMetricWrapper(
                    functools.partial(
                        keras.losses.categorical_crossentropy, from_logits=False
                    )
                )
            ]
        },
    ],
)
def test_what_expects_probabilities_is_refused(settings):
    with pytest.raises(ValueError, match="probabilities, .* from_logits=True"):
        made(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "kl_divergence"},
        {"loss": keras.losses.Poisson()},
        {"loss": keras.losses.dice},
        {"metrics": [keras.metrics.KLDivergence()]},
        {"weighted_metrics": ["accuracy", "KLD"]},
        {"loss": "msle"},
        {"loss": keras.losses.CategoricalGeneralizedCrossEntropy()},
        {"loss": functools.partial(keras.losses.kl_divergence)},
        {
            "metrics": [
                keras.metrics.MeanMetricWrapper(keras.losses.kl_divergence)
            ]
        },
        {"loss": keras.losses.KLDivergence},
        {"metrics": [keras.metrics.Precision]},
        {"metrics": [keras.metrics.Precision(top_k=1, thresholds=0.5)]},
        {"metrics": ["precision"]},
        {"metrics": [keras.metrics.Recall()]},
        {"metrics": [keras.metrics.F1Score(threshold=0.5)]},
        {"metrics": ["binary_accuracy"]},
        {"metrics": [keras.metrics.binary_accuracy]},
        {"metrics": [keras.metrics.SensitivityAtSpecificity(0.5)]},
    ],
)
def test_what_cannot_take_logits_is_refused(settings):
    with pytest.raises(ValueError, match="compares probabilities.*logits"):
        made(**settings)


def test_files_of_what_expected_probabilities_are_read_for_logits():
    """As they were written before it was refused."""
    loss = keras.losses.SparseCategoricalCrossentropy
    metric = keras.metrics.SparseCategoricalCrossentropy
    learner = made(loss=loss(from_logits=True))
    config = learner.get_compile_config() | {
        "loss": keras.saving.serialize_keras_object(loss()),
        "metrics": [keras.saving.serialize_keras_object(metric()), "accuracy"],
    }
    functions = {
        "loss": keras.losses.sparse_categorical_crossentropy,
        "metrics": [keras.metrics.sparse_categorical_crossentropy, "accuracy"],
    }
    for old in (
        config,
        config | keras.saving.serialize_keras_object(functions),
    ):
        learner.compile_from_config(old)
        want = cross_entropy(learner(IMAGES))
        got = learner.evaluate(IMAGES, LABELS, verbose=0)
        np.testing.assert_allclose(got[:2], [want, want], rtol=1e-5)
        assert len(got) == 3


@keras.saving.register_keras_serializable("evaluating_test")
class OfItsOwn(keras.losses.Loss):
    """It makes probabilities of logits itself, and cannot be serialized."""

    from_logits = False

    def call(self, labels, logits):
        return keras.losses.sparse_categorical_crossentropy(
            labels, tf.nn.softmax(logits)
        )

    def get_config(self):
        raise NotImplementedError


SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PARTIAL = functools.partial(
    keras.losses.sparse_categorical_crossentropy, from_logits=True
)
WRAPPED = keras.metrics.MeanMetricWrapper


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": SPARSE, "metrics": ["accuracy"]},
        {"loss": keras.losses.SparseCategoricalCrossentropy},
        {"loss": SPARSE, "metrics": [["accuracy", "ce"]]},
        {"loss": OfItsOwn(), "weighted_metrics": [WRAPPED(PARTIAL)]},
        {"loss": PARTIAL, "metrics": [lambda y, logits: tf.zeros([])]},
        {"loss": lambda y, logits: PARTIAL(y, logits), "metrics": None},
    ],
)
def test_what_expects_logits_or_anything_is_taken(settings):
    learner = made(**settings)
    want = cross_entropy(learner(IMAGES))
    got = learner.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    assert got["loss"] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    "one",
    [
        keras.metrics.Precision(top_k=1),
        keras.metrics.F1Score(),
        "F1Score",
        "f1_score",
        keras.metrics.MeanMetricWrapper(keras.metrics.F1Score()),
        keras.metrics.MeanMetricWrapper(keras.losses.huber),
        keras.metrics.CategoricalAccuracy,
        functools.wraps(keras.losses.poisson)(lambda y, logits: 0.0),
    ],
    ids=range(8),
)
def test_what_compares_the_largest_or_anything_is_kept(one):
    assert compile_metrics.on_logits(one, keras.metrics) is one


def test_short_names_are_those_of_logits_too():
    learner = made(metrics=["ce"])
    want = cross_entropy(learner(IMAGES))
    got = learner.evaluate(IMAGES, LABELS, verbose=0)
    np.testing.assert_allclose(got, [want, want], rtol=1e-5)
    for name, library in (("bce", keras.losses), ("AUC", keras.metrics)):
        one = compile_metrics.on_logits(name, library)
        assert compile_metrics._expects_logits(one) is True
    assert compile_metrics.on_logits("mse", keras.losses) == "mse"


@pytest.mark.parametrize("data", [BATCHES, Sequence(BATCH), BATCH])
def test_batches_to_train_on_are_not_evaluated(data):
    words = "takes inputs and labels, .*got batches to train on"
    with pytest.raises(ValueError, match=f"evaluate {words}"):
        made().evaluate(data, verbose=0)
    with pytest.raises(ValueError, match=f"validation_data {words}"):
        made().fit(BATCHES, validation_data=data, verbose=0)


@pytest.mark.parametrize(
    "data", [IMAGES, (IMAGES,), PAIRS.map(lambda x, y: x), Sequence((IMAGES,))]
)
def test_images_without_labels_are_not_evaluated(data):
    with pytest.raises(ValueError, match="evaluate takes .*got no labels"):
        made().evaluate(data, verbose=0)
    with pytest.raises(ValueError, match="validation_data .*got no labels"):
        made().fit(BATCHES, validation_data=data, verbose=0)


@pytest.mark.parametrize(
    "data",
    [
        (IMAGES, LABELS),
        [IMAGES, LABELS, np.ones(6)],
        PAIRS,
        PAIRS.map(lambda x, y: (x, y, tf.ones(6))),
        Sequence((IMAGES, LABELS)),
        Sequence([IMAGES, LABELS]),
    ],
)
def test_inputs_with_labels_are(data):
    history = made().fit(BATCHES, validation_data=data, verbose=0).history
    assert np.isfinite(history["val_loss"])


@pytest.mark.parametrize(("ignored", "kind"), [(-1, "int32"), (9, "float32")])
def test_labels_that_the_loss_ignores_are_not_evaluated(ignored, kind):
    learner = made(
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=ignored
        )
    )
    labels = LABELS.astype(kind)
    labels[:2] = ignored
    logs = tf.nn.log_softmax(learner(IMAGES)).numpy()
    want = -logs[range(2, 6), LABELS[2:]].mean()
    assert learner.evaluate(IMAGES, labels, verbose=0) == pytest.approx(want)
    labels[2] = 4
    with pytest.raises(ValueError, match="4"):
        learner.evaluate(IMAGES, labels, verbose=0)


def test_a_validation_split_is_refused_before_any_step():
    learner = made()
    with pytest.raises(ValueError, match="validation_split=0.5 .*Keep some"):
        learner.fit(BATCH, validation_split=0.5, verbose=0)
    assert learner.step.numpy() == 0


def answers(learner):
    logits = [
        learner(IMAGES).numpy(),
        learner.predict(IMAGES, verbose=0),
        learner.predict_on_batch(IMAGES),
    ]
    losses = [
        learner.evaluate(IMAGES, LABELS, verbose=0),
        evaluate(learner, PAIRS).nll,
    ]
    return logits, losses


def check_answers(learner, logits):
    got, losses = answers(learner)
    for one in got:
        np.testing.assert_allclose(one, logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(losses, cross_entropy(logits), rtol=1e-4)


def test_a_finished_learner_answers_with_what_its_student_learns(tmp_path):
    learner = made(0.9)
    learner.fit(BATCHES.repeat(3), verbose=0)
    path = tmp_path / "before.weights.h5"
    learner.save_weights(path)
    average, _ = learner.student_ema.apply(learner.student, IMAGES)
    before = average
    assert not np.allclose(average, learner.student(IMAGES))
    check_answers(learner, average)

    student = learner.finished_student()
    check_answers(learner, average)
    finetune(student, PAIRS, learning_rate=0.5, steps=3)
    finetuned = student(IMAGES)
    assert not np.allclose(finetuned, average)
    check_answers(learner, finetuned)
    with learner.averaged_student() as exported:
        np.testing.assert_array_equal(exported(IMAGES), finetuned)

    learner.save(tmp_path / "finished.keras")
    loaded = keras.models.load_model(tmp_path / "finished.keras")
    check_answers(loaded, finetuned)
    loaded.fit(BATCHES, verbose=0)
    average, _ = loaded.student_ema.apply(loaded.student, IMAGES)
    check_answers(loaded, average)

    average = np.array(before)
    with pytest.warns(UserWarning, match="optimizer"):  # Of the finetuning.
        learner.load_weights(path, skip_mismatch=True)
    check_answers(learner, average)


@pytest.mark.parametrize("way", ["fit", "train_on_batch"])
def test_training_on_answers_with_the_average_again(way):
    learner = made(0.9)
    learner.finished_student()
    if way == "fit":
        learner.fit(BATCHES, verbose=0)
    else:
        learner.train_on_batch(BATCH)
    average, _ = learner.student_ema.apply(learner.student, IMAGES)
    assert not np.allclose(average, learner.student(IMAGES))
    check_answers(learner, average)


def test_a_checkpoint_answers_with_its_average(tmp_path):
    """Of a run, also after another stage finished the student."""
    learner = made(0.9)
    learner.fit(BATCHES.repeat(3), verbose=0)
    average, _ = learner.student_ema.apply(learner.student, IMAGES)
    checkpoints = Checkpoints(learner_state(learner), str(tmp_path))
    checkpoints.save(3)
    checkpoints.wait()
    student = learner.finished_student()
    student.set_weights([0 * weight for weight in student.get_weights()])
    check_answers(learner, np.zeros((6, 3)))
    restore_learner(learner, "latest", str(tmp_path))
    assert not np.allclose(average, learner.student(IMAGES))
    check_answers(learner, average)


def test_metrics_of_a_finished_students_layers_are_shown():
    class Counted(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.mean = keras.metrics.Mean(name="seen")

        def call(self, inputs):
            self.mean.update_state(inputs)
            return inputs

    layers = [keras.Input((4,)), Counted(), keras.layers.Dense(CLASSES)]
    learner = Supervised(keras.Sequential(layers), ema_decay=0.9)
    learner.compile("sgd")
    assert "seen" not in [metric.name for metric in learner.metrics]
    learner.finished_student()
    assert "seen" in [metric.name for metric in learner.metrics]


def test_arrays_of_different_lengths_are_refused():
    learner = MetaPseudoLabels(network("student"), network("teacher"), uda=None)
    learner.compile("sgd")
    arrays = {**BATCH, "strong": np.zeros((20, 4))}
    words = "6 of labels, 20 of strong.*data.from_arrays.*two_view_dataset"
    with pytest.raises(ValueError, match=words):
        learner.fit(arrays, verbose=0)
    made().fit(BATCH, verbose=0)  # These have one length.


def test_class_weights_of_a_sequence_belong_into_its_batches():
    learner = made()
    with pytest.raises(ValueError, match="a Sequence: put sample_weight"):
        learner.fit(Sequence(BATCH), class_weight={0: 2.0}, verbose=0)
    with pytest.raises(ValueError, match="a generator: put sample_weight"):
        learner.fit((x for x in [BATCH]), class_weight={0: 2.0}, verbose=0)
