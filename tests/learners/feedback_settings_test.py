"""The choices beside the estimator: weight, temperature, split, losses."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import MetaPseudoLabels, UDASettings
from meta_pseudo_labels.learners.feedback import ESTIMATORS, exact
from meta_pseudo_labels.optimizers import Momentum
from tests.learners.helpers import batch, conv_net, values


def make(**settings):
    keras.utils.set_random_seed(2)
    settings = {"uda": None, "log_every": 1, **settings}
    learner = MetaPseudoLabels(
        conv_net("student"), conv_net("teacher"), **settings
    )
    learner.compile(Momentum(0.3), Momentum(0.1, momentum=0.0))
    return learner


def moves(data=None, **settings):
    """How one step changes the weights of student and of teacher."""
    learner = make(**settings)
    models = (learner.student, learner.teacher)
    before = [values(model.trainable_variables) for model in models]
    learner.train_step(data or batch())
    return [
        np.concatenate([v.ravel() for v in values(model.trainable_variables)])
        - np.concatenate([v.ravel() for v in old])
        for model, old in zip(models, before, strict=True)
    ]


def with_held_out(data=None, *, shift=0):
    """A batch that has a held-out split too."""
    held_out = batch(labeled=5, seed=9)
    return {
        **(data or batch()),
        "feedback": held_out["labeled"],
        "feedback_labels": (held_out["labels"] + shift) % 3,
    }


@pytest.mark.long
def test_weight_multiplies_the_feedback_and_nothing_else():
    _, alone = moves(feedback="off")
    _, once = moves(feedback="exact")
    _, five_times = moves(feedback="exact", feedback_weight=5.0)
    assert np.linalg.norm(once - alone) > 1e-6
    np.testing.assert_allclose(
        five_times - alone, 5 * (once - alone), rtol=1e-6, atol=1e-15
    )


def test_temperature_sharpens_what_the_student_learns():
    learner = make(label_temperature=0.5)
    logits = learner.teacher_logits(batch()).strong
    labels = []
    make_labels = learner.draw_pseudo_labels

    def draw_pseudo_labels(logits):
        labels.append(make_labels(logits))
        return labels[-1]

    learner.draw_pseudo_labels = draw_pseudo_labels
    learner.train_step(batch())
    np.testing.assert_allclose(labels[0], tf.nn.softmax(2 * logits), rtol=1e-9)


@pytest.mark.fast("exact")
@pytest.mark.parametrize("feedback", ["exact", "reinforce_per_example"])
def test_held_out_labels_steer_the_teacher_only(feedback):
    student, teacher = moves(with_held_out(), feedback=feedback)
    other_student, other_teacher = moves(
        with_held_out(shift=1), feedback=feedback
    )
    np.testing.assert_array_equal(student, other_student)
    assert np.linalg.norm(teacher - other_teacher) > 1e-6


def test_student_is_judged_on_the_held_out_split_alone():
    """With it, the feedback does not depend on the labeled images' labels."""
    feedbacks = []
    for shift in (0, 1):
        data = batch()
        data["labels"] = (data["labels"] + shift) % 3
        data = with_held_out(data)
        _, alone = moves(data, feedback="off")
        _, steered = moves(data, feedback="exact")
        feedbacks.append(steered - alone)
    assert np.linalg.norm(feedbacks[0]) > 1e-6
    np.testing.assert_allclose(*feedbacks, rtol=1e-6, atol=1e-12)


def test_a_held_out_split_without_labels_is_named():
    data = with_held_out()
    del data["feedback_labels"]
    with pytest.raises(ValueError, match="add feedback_labels"):
        make().train_step(data)


def test_an_estimator_may_be_any_function(tmp_path):
    """Weights can be saved, whatever it is called."""

    def scaled(student_step, teacher_logits, *, factor):
        return factor * exact(student_step, teacher_logits)

    learner = make(feedback=functools.partial(scaled, factor=2.0))
    learner.save(tmp_path / "learner.keras")
    assert "scaled" in learner.get_config()["feedback"]


@pytest.mark.fast("off", "reinforce_per_example")
@pytest.mark.parametrize("feedback", ESTIMATORS)
def test_without_consistency_the_weak_views_are_not_looked_at(feedback):
    data = batch()
    del data["weak"]
    logs = make(feedback=feedback).train_step(data)
    assert "cross_entropy/teacher_on_u" not in logs
    assert "uda/weight" not in logs


def test_without_consistency_the_teacher_learns_the_labels():
    """One step of its own on the joint batch, by hand."""
    learner, data = make(feedback="off", label_smoothing=0.1), batch()
    teacher = keras.models.clone_model(learner.teacher)
    teacher.set_weights(learner.teacher.get_weights())
    with tf.GradientTape() as tape:
        logits = teacher(
            np.concatenate([data["labeled"], data["strong"]]), training=True
        )
        targets = 0.9 * tf.one_hot(data["labels"], 3, dtype="float64") + 0.1 / 3
        loss = keras.losses.categorical_crossentropy(
            targets, logits[: len(data["labels"])], from_logits=True
        )
        loss = tf.reduce_mean(loss)
    weights = teacher.trainable_weights
    gradients = tape.gradient(loss, [w.value for w in weights])
    want = [w - 0.1 * g for w, g in zip(weights, gradients, strict=True)]
    learner.train_step(data)
    for weight, value in zip(
        learner.teacher.trainable_weights, want, strict=True
    ):
        np.testing.assert_allclose(weight, value, rtol=1e-7, atol=1e-12)


def test_settings_survive_saving(tmp_path):
    settings = dict(
        feedback="reinforce_cosine",
        feedback_weight=3.0,
        label_temperature=0.7,
        uda=None,
        baseline_decay=0.5,
        baseline_start=-0.25,
    )
    learner = make(**settings)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert loaded.feedback is learner.feedback
    assert loaded.feedback_weight == 3.0
    assert loaded.label_temperature == 0.7
    assert loaded.uda is None
    assert loaded.baseline.decay == 0.5
    assert float(loaded.estimator_baseline.average) == -0.25


def _own(student_step, teacher_logits):
    return 0.0 * tf.reduce_sum(teacher_logits)


_own.__name__ = "exact"  # As a user may call it.


@pytest.mark.parametrize("own", [_own, functools.partial(exact)])
def test_an_estimator_that_is_not_registered_is_not_mistaken(tmp_path, own):
    make(feedback=own).save(tmp_path / "learner.keras")
    with pytest.raises(ValueError, match="exact.*not registered"):
        keras.models.load_model(tmp_path / "learner.keras")


def test_a_definition_that_was_repeated_is_the_same(tmp_path, monkeypatch):
    """As when a notebook's cell is run again."""

    def define():
        def again(student_step, teacher_logits):
            return 0.0 * tf.reduce_sum(teacher_logits)

        again.labels = ("soft",)
        monkeypatch.setitem(ESTIMATORS._found, "again", again)
        return again

    learner = make(feedback=define())
    newest = define()
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert loaded.feedback is newest


def test_consistency_is_the_releases_unless_told():
    assert make(uda=UDASettings()).uda == UDASettings()
    models = conv_net("student"), conv_net("teacher")
    assert MetaPseudoLabels(*models).uda == UDASettings()


@pytest.mark.parametrize(
    "setting",
    [{"feedback_weight": -1.0}, {"label_temperature": 0.0}],
    ids=lambda setting: next(iter(setting)),
)
def test_settings_out_of_range_are_refused(setting):
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        make(**setting)


@pytest.mark.parametrize(
    "feedback", ["reinforce_dot_product", "reinforce_per_example"]
)
def test_estimators_refuse_an_update_they_cannot_differentiate(feedback):
    learner = make(feedback=feedback)
    with pytest.raises(ValueError, match=f"{feedback}.*got Adamax"):
        learner.compile("adamax")


def test_a_learner_whose_compile_was_refused_is_not_compiled():
    learner = make(feedback="exact")
    learner.compile("sgd")
    with pytest.raises(ValueError, match="Adamax"):
        learner.compile("adamax")
    with pytest.raises(ValueError, match="[Cc]ompile"):
        learner.fit(tf.data.Dataset.range(1))
    assert learner.get_compile_config() is None
    learner.compile("sgd")
    assert learner.compiled


def test_cosine_takes_any_optimizer():
    learner = make(feedback="reinforce_cosine")
    learner.compile("adam")
    logs = learner.train_step(batch())
    assert float(logs["mpl/feedback_grad_ratio"]) > 0
