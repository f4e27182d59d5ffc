"""A student whose part is skipped while it waits."""

import dataclasses

import keras
import numpy as np
import pytest

from meta_pseudo_labels import data
from meta_pseudo_labels.learners import MetaPseudoLabels
from meta_pseudo_labels.learners.build import build_learner
from meta_pseudo_labels.learners.feedback import ESTIMATORS
from meta_pseudo_labels.optimizers import Momentum, WaitWarmupDecay
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

WAIT = 2


def make_learner(*, skip=WAIT, feedback="exact", **compile_arguments):
    keras.utils.set_random_seed(3)
    learner = MetaPseudoLabels(
        conv_net("student", dropout_rate=0.2),
        conv_net("teacher", dropout_rate=0.2),
        feedback=feedback,
        ema_decay=0.9,
        student_wait_steps=skip,
    )
    rate = WaitWarmupDecay(0.25, decay="constant", wait_steps=WAIT)
    learner.compile(Momentum(rate), Momentum(0.25), **compile_arguments)
    return learner


def of_student(learner):
    """All that a step moves of the student, the count of its calls apart."""
    count = learner.optimizer.iterations
    slots = [v for v in learner.optimizer.variables if v is not count]
    return [
        *learner.student.variables,
        *learner.student_ema.averages,
        *learner.baseline.variables,
        *learner.estimator_baseline.variables,
        *slots,
    ]


@pytest.fixture(scope="module")
def waited():
    """One that waited, in Python, and the logs of its last step."""
    learner = make_learner()
    before = values(of_student(learner))
    for seed in range(WAIT):
        logs = learner.train_step(batch(seed=seed))
    return learner, before, logs, values(all_of(learner))


@pytest.mark.parametrize(
    "feedback", [name for name in ESTIMATORS if name != "off"]
)
def test_the_teacher_is_that_of_a_student_whose_rate_is_0(feedback, waited):
    learner, *_ = waited
    computed = make_learner(skip=0, feedback=feedback)
    for seed in range(WAIT):
        logs = computed.train_step(batch(seed=seed))
    assert float(logs["lr/student"]) == 0
    assert_equal(computed.teacher.variables, learner.teacher.variables, 1e-12)
    moments = [v.numpy() for v in computed.student.non_trainable_variables]
    assert not np.array_equal(
        moments[0], learner.student.non_trainable_variables[0]
    )  # So the numbers after the wait are others.


def test_nothing_of_the_student_moves_but_its_count(waited):
    learner, before, logs, _ = waited
    assert_equal(before, of_student(learner))
    assert int(learner.optimizer.iterations) == WAIT == int(learner.step)
    assert float(logs["lr/student"]) == 0
    assert np.isnan(logs["mpl/dot_product"])
    assert np.isnan(logs["mpl/feedback_grad_ratio"])
    assert float(logs["skipped_steps"]) == 0
    assert np.isfinite(logs["cross_entropy/teacher_on_u"])


def test_then_it_learns_as_one_that_begins_there(waited):
    """By hand: a fresh student beside that teacher, at that step."""
    learner, _, _, state = waited
    fresh = make_learner(skip=0)
    for variable, value in zip(all_of(fresh), state, strict=True):
        variable.assign(value)
    logs, want = (one.train_step(batch(seed=9)) for one in (learner, fresh))
    assert set(logs) == set(want)
    assert float(logs["lr/student"]) == 0.25
    assert float(logs["mpl/feedback_grad_ratio"]) > 0
    assert_equal(all_of(learner), all_of(fresh))


@pytest.mark.long
def test_a_run_goes_on_across_the_end_of_the_wait():
    """One execution of `fit` has steps of both kinds; another is cut off."""
    steps = WAIT + 2
    whole = make_learner(feedback="off", steps_per_execution=steps)
    history = whole.fit(dataset(steps, dtype="float64"), verbose=0).history
    assert np.isfinite(history["mpl/dot_product"][-1])
    cut, resumed = make_learner(feedback="off"), make_learner(feedback="off")
    cut.train_step(batch(seed=0))
    for variable, value in zip(all_of(resumed), all_of(cut), strict=True):
        variable.assign(value)
    for seed in range(1, steps):
        resumed.train_step(batch(seed=seed))
    assert int(resumed.step) == steps
    assert_equal(whole.variables, resumed.variables, 1e-10)


@pytest.mark.long
def test_two_replicas_wait_as_one(mirrored):
    logs = logs_of_one_and_two(
        mirrored(2), steps=WAIT + 2, student_wait_steps=WAIT
    )
    assert [np.isnan(row["mpl/dot_product"]) for row in logs] == [
        True
    ] * WAIT + [False] * 2


def test_flags_reach_the_learner():
    settings = Config(
        dataset="digits",
        model_type="mlp",
        mpl_skip_wait=True,
        mpl_student_lr_wait_steps=7,
    )
    learner = build_learner(settings, data.DATASETS["digits"])
    assert learner.student_wait_steps == 7
    assert learner.get_config()["student_wait_steps"] == 7
    still = dataclasses.replace(settings, mpl_student_lr_wait_steps=0)
    reasons = unread_settings(dataclasses.asdict(still))
    assert "does not wait" in reasons["mpl_skip_wait"]
    with pytest.raises(ValueError, match="student_wait_steps"):
        make_learner(skip=-1)
