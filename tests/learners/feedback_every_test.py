"""Feedback in every k-th step only, which then weighs k times as much."""

import keras
import numpy as np
import pytest

from meta_pseudo_labels import data
from meta_pseudo_labels.learners import MetaPseudoLabels
from meta_pseudo_labels.learners.build import build_learner
from meta_pseudo_labels.learners.feedback import exact, reinforce
from meta_pseudo_labels.optimizers import Momentum
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.config.unread import unread_settings
from tests.learners.helpers import (
    all_of,
    assert_equal,
    batch,
    conv_net,
    dataset,
    values,
)
from tests.learners.replicas_test import logs_of_one_and_two

EVERY = 3


def make_learner(*, every=EVERY, feedback="exact", weight=1.0, **settings):
    keras.utils.set_random_seed(5)
    learner = MetaPseudoLabels(
        conv_net("student", dropout_rate=0.2),
        conv_net("teacher", dropout_rate=0.2),
        feedback=feedback,
        feedback_weight=weight,
        feedback_every=every,
        ema_decay=0.9,
        **settings,
    )
    learner.compile(Momentum(0.25), Momentum(0.25))
    return learner


def take(learner, seeds):
    return [learner.train_step(batch(seed=seed)) for seed in seeds]


@pytest.fixture(scope="module")
def before():
    """One after all but the last of its first steps, and the logs of these."""
    learner = make_learner()
    logs = take(learner, range(EVERY - 1))
    return learner, logs, values(all_of(learner))


def test_until_then_the_teacher_hears_nothing(before):
    learner, logs, state = before
    silent = make_learner(every=1, feedback="off")
    want = take(silent, range(EVERY - 1))
    is_ratio = [
        v is learner.feedback_grad_ratio for v in learner.variables
    ].index(True)
    theirs = values(all_of(silent))
    assert np.isnan(state[is_ratio])
    state, theirs = (x[:is_ratio] + x[is_ratio + 1 :] for x in (state, theirs))
    assert_equal(state, theirs, 1e-12)
    for row, wanted in zip(logs, want, strict=True):
        assert set(row) == set(wanted)
        assert np.isnan(row.pop("mpl/feedback_grad_ratio"))
        for name, value in row.items():
            np.testing.assert_allclose(value, wanted[name], rtol=1e-12)


def test_then_it_hears_as_many_times_as_much(before):
    """As one that hears each step, with the weight times `EVERY`."""
    learner, _, state = before
    each = make_learner(every=1, weight=float(EVERY))
    for variable, value in zip(all_of(each), state, strict=True):
        variable.assign(value)
    (logs,), (want,) = (take(one, [9]) for one in (learner, each))
    assert float(logs["mpl/feedback_grad_ratio"]) > 0
    assert float(logs["mpl/feedback_grad_ratio"]) == pytest.approx(
        float(want["mpl/feedback_grad_ratio"]), rel=1e-12
    )
    assert_equal(all_of(learner), all_of(each), 1e-12)
    lighter = make_learner(every=1)
    for variable, value in zip(all_of(lighter), state, strict=True):
        variable.assign(value)
    take(lighter, [9])
    assert not np.allclose(
        lighter.teacher.weights[0], learner.teacher.weights[0], rtol=1e-6
    )


def test_the_estimator_is_asked_in_every_third_step_only():
    asked = []

    def counted(student_step, teacher_logits):
        asked.append(int(learner.step))
        return exact(student_step, teacher_logits)

    learner = make_learner(feedback=counted)
    take(learner, range(2 * EVERY + 1))
    assert asked == [EVERY - 1, 2 * EVERY - 1]


def test_what_an_estimator_uses_may_be_assigned_until_compile():
    """Its kind of labels is then known: with soft ones, no feedback."""

    def late(student_step, teacher_logits):
        return used(student_step, teacher_logits)

    learner = MetaPseudoLabels(
        conv_net("student"), conv_net("teacher"), feedback=late
    )
    assert learner.label_kind == "soft"
    used = reinforce
    with pytest.raises(ValueError, match=r"'sampled'.*got 'soft'"):
        learner.compile(Momentum(0.25))
    used = exact
    learner.compile(Momentum(0.25))


def test_the_subtracted_average_moves_with_feedback_only():
    learner = make_learner(feedback="reinforce_cosine", pseudo_labels="hard")
    average = learner.estimator_baseline.average
    seen = []
    for seed in range(EVERY + 1):
        take(learner, [seed])
        seen.append(float(average))
    assert seen[0] == seen[1] == 0 != seen[2] == seen[3]


def test_what_a_subclass_adds_to_a_step_happens_once(monkeypatch):
    taken = []
    train_step = MetaPseudoLabels.train_step

    def counted(learner, batch, *choices, **more):
        taken.append(int(learner.step))
        return train_step(learner, batch, *choices, **more)

    monkeypatch.setattr(MetaPseudoLabels, "train_step", counted)
    take(make_learner(student_wait_steps=1), range(EVERY))
    assert taken == [*range(EVERY)]


@pytest.mark.long
def test_an_execution_has_steps_of_all_kinds():
    """Those of a waiting student too; in a graph as one by one."""
    steps = EVERY + 1
    settings = dict(student_wait_steps=1)
    whole, single = make_learner(**settings), make_learner(**settings)
    whole.compile(Momentum(0.25), Momentum(0.25), steps_per_execution=steps)
    whole.fit(dataset(steps, dtype="float64"), verbose=0)
    take(single, range(steps))
    assert_equal(whole.variables, single.variables, 1e-10)


@pytest.mark.long
def test_two_replicas_hear_as_one(mirrored):
    logs = logs_of_one_and_two(
        mirrored(2), steps=EVERY + 1, feedback_every=EVERY
    )
    ratios = [row["mpl/feedback_grad_ratio"] for row in logs]
    assert [np.isnan(ratio) for ratio in ratios] == [True, True, False, False]


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "2", 2**70])
def test_what_is_no_count_is_refused(every):
    with pytest.raises(ValueError, match="feedback_every must be an integer"):
        make_learner(every=every)


@pytest.mark.parametrize("name", ["Momentum", "LossScaleOptimizer"])
def test_gradients_that_are_accumulated_are_refused(name):
    """Steps with feedback might be among those that do not move the student."""
    inner = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    optimizer = {
        "Momentum": inner,
        "LossScaleOptimizer": keras.optimizers.LossScaleOptimizer(inner),
    }[name]
    learner = make_learner(feedback="reinforce")
    with pytest.raises(ValueError, match="gradient_accumulation_steps=2"):
        learner.compile(optimizer)
    assert not learner.compiled
    silent = make_learner(feedback="off")
    silent.compile(optimizer)  # It has no such steps.
    assert silent.compiled


@pytest.mark.parametrize(
    ("every", "measured"),
    [(1, [1, 50, 100]), (7, [7, 56, 105]), (60, [60, 120])],
)
def test_the_ratio_is_measured_beside_the_logged_steps(every, measured):
    learner = make_learner(every=every)
    learner.log_every = 10
    ratio = learner.feedback_grad_ratio
    found = []
    for step in range(1, 121 if every == 60 else 111):
        learner.step.assign(step - 1)
        if bool(learner.logs_are_due() & ~learner.feedback_rests()):
            found.append(step)
            ratio.assign(0.5)
    assert found == measured


def test_a_step_on_replicas_must_be_told_which_part_is_due(mirrored):
    with mirrored(2).scope():
        learner = make_learner(every=2)

        def forget(batch, *choices, **more):
            return MetaPseudoLabels.train_step(learner, batch)

        learner.train_step = forget
        with pytest.raises(ValueError, match="pass on what it takes"):
            learner.fit(dataset(1, dtype="float64"), verbose=0)


def test_flags_reach_the_learner():
    settings = dict(dataset="digits", model_type="mlp", mpl_feedback_every=4)
    learner = build_learner(Config(**settings), data.DATASETS["digits"])
    assert learner.feedback_every == 4
    assert learner.get_config()["feedback_every"] == 4
    reasons = unread_settings(vars(Config(**settings, mpl_feedback="off")))
    assert "no feedback" in reasons["mpl_feedback_every"]
