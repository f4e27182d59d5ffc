"""One step of Meta Pseudo Labels: who moves, and by what."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import MetaPseudoLabels, UDASettings
from meta_pseudo_labels.learners.student_step import take_student_step
from meta_pseudo_labels.optimizers import Momentum
from tests.learners.helpers import CLASSES, batch, conv_net, values


def make(*, student_rate=0.1, teacher_rate=0.1, **settings):
    keras.utils.set_random_seed(3)
    learner = MetaPseudoLabels(
        conv_net("student"), conv_net("teacher"), **settings
    )
    learner.compile(Momentum(student_rate), Momentum(teacher_rate))
    return learner


def moved(variables, before):
    return [
        v.path
        for v, old in zip(variables, before, strict=True)
        if (v.numpy() != old).any()
    ]


def weights_with_and_without(role, *, feedback):
    """Weights after a step in which a role's rate is 0, and is not."""
    weights = []
    for rate in (0.0, 0.1):
        learner = make(**{f"{role}_rate": rate}, feedback=feedback)
        own = getattr(learner, role).trainable_variables
        before = values(own)
        learner.train_step(batch())
        assert bool(moved(own, before)) == bool(rate)
        weights.append(
            {
                "student": values(learner.student.variables),
                "teacher": values(learner.teacher.variables),
            }
        )
    return weights


@pytest.mark.fast("exact")
@pytest.mark.parametrize("feedback", ["exact", "reinforce", "release", "off"])
def test_teachers_rate_moves_the_teacher_only(feedback):
    still, moving = weights_with_and_without("teacher", feedback=feedback)
    for one, two in zip(still["student"], moving["student"], strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.fast("off")
@pytest.mark.parametrize("feedback", ["release", "off"])
def test_students_rate_moves_the_student_only(feedback):
    still, moving = weights_with_and_without("student", feedback=feedback)
    for one, two in zip(still["teacher"], moving["teacher"], strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-15)


def test_the_student_never_learns_from_labels():
    """Its weights are the same whatever the labels say."""
    students = []
    for shift in (0, 1):
        learner = make(feedback="off")
        data = batch()
        data["labels"] = (data["labels"] + shift) % CLASSES
        learner.train_step(data)
        students.append(values(learner.student.trainable_variables))
    for one, two in zip(*students, strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_student_never_sees_the_weak_views():
    students = []
    for seed in (0, 1):
        learner = make(feedback="off")
        data = batch()
        pseudo_labels = tf.nn.softmax(
            np.random.default_rng(7).normal(size=(6, CLASSES))
        )
        data["weak"] = batch(seed=seed)["weak"]
        take_student_step(learner, data, pseudo_labels=pseudo_labels)
        students.append(values(learner.student.variables))
    for one, two in zip(*students, strict=True):
        np.testing.assert_array_equal(one, two)


def test_student_moments_come_from_its_first_pass_only():
    learner = make()
    data = batch()
    reference = keras.models.clone_model(learner.student)
    reference.set_weights(learner.student.get_weights())
    reference(np.concatenate([data["strong"], data["labeled"]]), training=True)
    learner.train_step(data)
    for ours, theirs in zip(
        learner.student.non_trainable_variables,
        reference.non_trainable_variables,
        strict=True,
    ):
        if "moving" in ours.path:
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("update", [True, False])
def test_teachers_moments_move_unless_as_the_release(update):
    learner = make(update_teacher_moments=update)
    moments = [
        v for v in learner.teacher.non_trainable_variables if "moving" in v.path
    ]
    before = values(moments)
    learner.train_step(batch())
    assert bool(moved(moments, before)) == update


def test_the_average_uses_the_step_before_its_increment():
    learner = make(ema_decay=0.9)
    before = values(v for v in learner.student.variables if "float" in v.dtype)
    learner.train_step(batch())
    floats = [v for v in learner.student.variables if "float" in v.dtype]
    for variable, average, old in zip(
        floats, learner.student_ema.averages, before, strict=True
    ):
        # Step 0 keeps 1 / 10 of the old.
        np.testing.assert_allclose(
            average, 0.1 * old + 0.9 * variable, rtol=1e-9, atol=1e-15
        )


@pytest.mark.long
def test_uda_weight_ramps_from_zero():
    learner = make(uda=UDASettings(weight=8.0, ramp_steps=4))
    weights = [
        float(learner.train_step(batch(seed=s))["uda/weight"]) for s in range(6)
    ]
    assert weights == [0.0, 2.0, 4.0, 6.0, 8.0, 8.0]


def test_it_logs_what_the_release_logs_and_the_feedbacks_share():
    learner = make(uda=UDASettings(num_train_steps=10))
    assert set(learner.train_step(batch())) == {
        "cross_entropy/student_on_l",
        "cross_entropy/student_on_l_old",
        "cross_entropy/student_on_u",
        "cross_entropy/teacher_on_l",
        "cross_entropy/teacher_on_u",
        "lr/student",
        "lr/teacher",
        "mpl/dot_product",
        "mpl/feedback_grad_ratio",
        "mpl/moving_dot_product",
        "skipped_steps",
        "uda/l_ratio",
        "uda/u_ratio",
        "uda/weight",
    }


def test_architectures_may_differ():
    teacher = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Flatten(),
            keras.layers.Dense(16, "relu"),
            keras.layers.Dense(CLASSES),
        ]
    )
    learner = MetaPseudoLabels(
        conv_net("s", dtype="float32"), teacher, log_every=1
    )
    learner.compile("sgd")
    logs = learner.train_step(batch(dtype="float32"))
    assert float(logs["mpl/feedback_grad_ratio"]) > 0


def test_a_step_compiled_equals_a_step_by_hand():
    learners = [make(), make()]
    compiled = tf.function(learners[0].train_step)
    for seed in range(2):
        compiled(batch(seed=seed))
        learners[1].train_step(batch(seed=seed))
    for one, two in zip(
        learners[0].variables, learners[1].variables, strict=True
    ):
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)


def test_sharing_an_optimizer_is_refused():
    optimizer = Momentum(0.1)
    learner = MetaPseudoLabels(conv_net("student"), conv_net("teacher"))
    with pytest.raises(ValueError, match="share one optimizer"):
        learner.compile(optimizer, optimizer)


@pytest.mark.parametrize("decay", [5, 0])
def test_baseline_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=f"baseline_decay.*{decay}"):
        make(baseline_decay=decay)


def test_sharing_weights_is_refused():
    model = conv_net("both")
    with pytest.raises(ValueError, match="share weights that training"):
        MetaPseudoLabels(model, model)


def test_unequal_classes_are_refused():
    teacher = keras.Sequential(
        [keras.Input((6, 6, 2)), keras.layers.Flatten(), keras.layers.Dense(5)]
    )
    with pytest.raises(ValueError, match="3 and 5"):
        MetaPseudoLabels(conv_net("student"), teacher)


def test_exact_refuses_an_update_it_cannot_differentiate():
    learner = MetaPseudoLabels(conv_net("student"), conv_net("teacher"))
    with pytest.raises(ValueError, match="Adamax"):
        learner.compile("adamax")


def test_reinforce_takes_any_optimizer():
    learner = MetaPseudoLabels(
        conv_net("student"),
        conv_net("teacher"),
        feedback="reinforce",
        log_every=1,
    )
    learner.compile("adam")
    logs = learner.train_step(batch())
    assert float(logs["mpl/feedback_grad_ratio"]) > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"weight": -1.0},
        {"ramp_steps": 0},
        {"temperature": 0.0},
        {"threshold": 1.1},
    ],
)
def test_uda_settings_out_of_range_are_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        UDASettings(**settings)


def test_another_loss_of_the_teacher_is_checked():
    class Pair(MetaPseudoLabels):
        def teacher_loss(self, batch, logits):
            return tuple(super().teacher_loss(batch, logits))[:2]

    learner = Pair(conv_net("student"), conv_net("teacher"))
    learner.compile(Momentum(0.1), Momentum(0.1))
    with pytest.raises(ValueError, match="Pair.teacher_loss must .*got tuple"):
        learner.train_step(batch())
