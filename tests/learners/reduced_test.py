"""Meta Pseudo Labels with a small teacher on a large one's distributions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.learners import MetaPseudoLabels, ReducedMPL
from tests.learners import helpers


def make(*, dtype="float64", **settings):
    keras.utils.set_random_seed(3)
    teacher = models.reduced_teacher(
        num_classes=helpers.CLASSES, hidden_sizes=(5,), dtype=dtype
    )
    student = helpers.conv_net("student", dtype=dtype)
    return ReducedMPL(student, teacher, **settings)


def batch(dtype="float64"):
    random = np.random.default_rng(1)
    rows = random.dirichlet(np.ones(helpers.CLASSES), size=10).astype(dtype)
    return helpers.batch(dtype=dtype) | {
        "labeled_distributions": rows[:4],
        "unlabeled_distributions": rows[4:],
    }


def compiled(**settings):
    learner = make(**settings)
    learner.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.5))
    return learner


def test_the_student_first_learns_the_large_teacher_s_labels():
    learner, data = compiled(), batch()
    logits = learner.teacher_logits(data)
    assert logits.weak is None
    for got, part in (
        (logits.labeled, "labeled"),
        (logits.strong, "unlabeled"),
    ):
        np.testing.assert_allclose(
            tf.nn.softmax(got), data[f"{part}_distributions"], atol=1e-7
        )
    np.testing.assert_allclose(
        learner.draw_pseudo_labels(logits.strong),
        data["unlabeled_distributions"],
        atol=1e-7,
    )


def test_the_first_step_moves_the_last_layer_by_hand():
    """Without feedback: bias -= rate * mean(q - y), the labeled part alone."""
    learner, data = compiled(feedback="off"), batch()
    learner.train_step(data)
    head = learner.teacher.get_layer("head.dense")
    labels = np.eye(helpers.CLASSES)[data["labels"]]
    error = (data["labeled_distributions"] - labels).mean(axis=0)
    np.testing.assert_allclose(head.bias.numpy(), -0.5 * error, atol=1e-7)


@pytest.mark.parametrize("feedback", ["exact", "reinforce"])
def test_the_teacher_hears_its_student(feedback):
    """What differs from `off` after a step is the feedback."""
    heads = []
    for estimator in ("off", feedback):
        learner = compiled(feedback=estimator, log_every=1, seed=2)
        logs = learner.train_step(batch())
        heads.append(learner.teacher.get_layer("head.dense").bias.numpy())
    assert np.abs(heads[0] - heads[1]).max() > 1e-6
    assert logs["mpl/feedback_grad_ratio"] > 0


def test_exact_feedback_is_the_gradient_of_the_new_loss():
    """The change of the last bias, against finite differences in float64.

    The labeled loss after the student's step, as a function of the bias that
    the teacher labels with.
    """
    data, rate = batch(), 0.5
    off, exact = (compiled(feedback=name) for name in ("off", "exact"))
    off.train_step(data)
    exact.train_step(data)
    biases = [
        x.teacher.get_layer("head.dense").bias.numpy() for x in (off, exact)
    ]
    got = (biases[0] - biases[1]) / rate

    def new_loss(shift):
        learner = compiled(feedback="off")
        learner.teacher.get_layer("head.dense").bias.assign(shift)
        return float(learner.train_step(data)["cross_entropy/student_on_l"])

    step = 1e-5 * np.eye(helpers.CLASSES)
    want = [(new_loss(e) - new_loss(-e)) / 2e-5 for e in step]
    assert np.abs(want).max() > 1e-5
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-9)


def test_needs_no_weak_views():
    data = batch()
    del data["weak"]
    compiled().train_step(data)
    del data["labeled_distributions"]
    with pytest.raises(ValueError, match="ReducedMPL .*labeled_distributions"):
        compiled().train_step(data)


@pytest.mark.long
def test_trains_and_saves(tmp_path):
    learner = make(dtype="float32", feedback="exact", ema_decay=0.9)
    learner.compile("sgd")
    data = batch("float32")
    learner.fit(tf.data.Dataset.from_tensors(data).repeat(3), verbose=0)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert isinstance(loaded, ReducedMPL)
    assert loaded.uda is None
    for one, other in zip(learner.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    learner.train_step(data)
    loaded.train_step(data)
    np.testing.assert_allclose(
        loaded.predict(data["labeled"], verbose=0),
        learner.predict(data["labeled"], verbose=0),
        atol=1e-6,
    )


def test_a_teacher_of_images_is_refused():
    networks = helpers.conv_net("student"), helpers.conv_net("teacher")
    with pytest.raises(ValueError, match="maps class distributions"):
        ReducedMPL(*networks)
    MetaPseudoLabels(*networks)
    with pytest.raises(TypeError, match="uda"):
        make(uda=None)
