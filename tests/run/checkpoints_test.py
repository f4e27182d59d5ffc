"""Checkpoints hold everything that the next step depends on."""

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
from meta_pseudo_labels.optimizers.schedules import WaitWarmupDecay
from meta_pseudo_labels.run.checkpoints import Checkpoints
from meta_pseudo_labels.run.restoring import learner_state
from meta_pseudo_labels.utils.checkpoint_files import CheckpointError


def network(name, *, units=6):
    """Batch norm and dropout: moments and a seed state beside the weights."""
    inputs = keras.Input([4])
    x = keras.layers.Dense(units, name="dense")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.3, name="dropout")(x)
    return keras.Model(
        inputs, keras.layers.Dense(3, name="logits")(x), name=name
    )


def compiled_learner(method="mpl", *, seed=0, units=6, ema_decay=0.9):
    keras.utils.set_random_seed(seed)
    student = network("student", units=units)
    optimizers = [Momentum(WaitWarmupDecay(0.1, decay="constant"))]
    uda = UDASettings(ramp_steps=2, threshold=0.0)
    if method == "mpl":
        learner = MetaPseudoLabels(
            student, network("teacher"), uda=uda, ema_decay=ema_decay
        )
        optimizers.append(Momentum(0.2))
    elif method == "uda":
        learner = UDA(student, uda=uda, ema_decay=ema_decay)
    else:
        learner = Supervised(student, ema_decay=ema_decay)
    learner.compile(*optimizers, metrics=["accuracy"])
    return learner


def batch(step):
    random = np.random.default_rng(step)
    draw = {
        name: tf.constant(random.normal(size=[size, 4]), tf.float32)
        for name, size in (("labeled", 3), ("weak", 6), ("strong", 6))
    }
    return {**draw, "labels": tf.constant([0, 1, 2])}


def run_steps(learner, steps):
    logs = [learner.train_step(batch(step)) for step in steps]
    return {name: float(value) for name, value in logs[-1].items()}


def checkpoints_of(learner, folder, **kwargs):
    return Checkpoints(learner_state(learner), folder, **kwargs)


def saved(folder, learner):
    """Writes a checkpoint of the learner."""
    checkpoints = checkpoints_of(learner, folder)
    checkpoints.save(int(learner.step.numpy()))
    checkpoints.wait()
    return checkpoints


@pytest.fixture
def created(monkeypatch):
    """All Keras variables made since, whether or not anything tracks them."""
    variables = []
    original = keras.Variable.__init__

    def recording(self, *args, **kwargs):
        original(self, *args, **kwargs)
        variables.append(self)

    monkeypatch.setattr(keras.Variable, "__init__", recording)
    return variables


def test_every_variable_comes_back_and_the_next_step_is_equal(
    tmp_path, created
):
    first = compiled_learner(seed=1)
    ours = list(created)
    run_steps(first, range(3))
    saved(tmp_path, first)
    created.clear()
    second = compiled_learner(seed=2)
    theirs = list(created)
    assert [v.path for v in ours] != []
    assert len(ours) == len(theirs)
    changed = [
        not np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)
    ]
    assert sum(changed) > 30  # Else the comparison below shows nothing.

    restored = checkpoints_of(second, tmp_path).restore_latest()

    assert restored == 3
    _assert_equal(ours, theirs)
    assert run_steps(first, [3]) == run_steps(second, [3])
    _assert_equal(ours, theirs)


def _assert_equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=f"{a.path} / {b.path}")


def test_the_variables_that_matter_are_among_them(created):
    """Guards the test above against recording too little."""
    learner = compiled_learner()
    recorded = {id(v) for v in created}
    parts = {
        "student": learner.student.variables,
        "teacher": learner.teacher.variables,
        "averages": learner.student_ema.averages,
        "student's slots": learner.optimizer.slots,
        "teacher's slots": learner.teacher_optimizer.slots,
        "iterations": [
            learner.optimizer.iterations,
            learner.teacher_optimizer.iterations,
        ],
        "baseline": [learner.baseline.average],
        "step": [learner.step],
    }
    for name, variables in parts.items():
        assert variables, name
        assert {id(v) for v in variables} <= recorded, name


@pytest.mark.parametrize("method", ["supervised", "uda"])
def test_the_other_learners_come_back(tmp_path, created, method):
    first = compiled_learner(method, seed=1)
    ours = list(created)
    run_steps(first, range(2))
    saved(tmp_path, first)
    created.clear()
    second = compiled_learner(method, seed=2)
    theirs = list(created)

    assert checkpoints_of(second, tmp_path).restore_latest() == 2
    assert run_steps(first, [2]) == run_steps(second, [2])
    _assert_equal(ours, theirs)


@pytest.mark.long
def test_a_learner_that_was_evaluated_is_saved_and_restored(tmp_path):
    """Evaluation makes variables of metrics, which are no part of a run."""
    data = (batch(0)["labeled"], batch(0)["labels"])
    evaluated, fresh = compiled_learner(seed=1), compiled_learner(seed=2)
    evaluated.evaluate(*data, verbose=0)
    saved(tmp_path / "evaluated", evaluated)
    saved(tmp_path / "fresh", fresh)
    for folder in ("evaluated", "fresh"):
        for learner in (compiled_learner(), evaluated):
            checkpoints = checkpoints_of(learner, tmp_path / folder)
            assert checkpoints.restore_latest() == 0


def test_the_newest_of_several_is_restored_and_old_ones_deleted(tmp_path):
    learner = compiled_learner("supervised")
    checkpoints = checkpoints_of(learner, tmp_path, max_to_keep=2)
    for step in range(3):
        run_steps(learner, [step])
        checkpoints.save(int(learner.step.numpy()))
    checkpoints.wait()

    other = compiled_learner("supervised")
    assert checkpoints_of(other, tmp_path).restore_latest() == 3
    kept = sorted(p.name for p in (tmp_path / "checkpoints").glob("*.index"))
    assert kept == ["step-2.index", "step-3.index"]


def test_no_checkpoint_is_no_error_and_writes_nothing(tmp_path):
    checkpoints = checkpoints_of(compiled_learner(), tmp_path)
    assert checkpoints.restore_latest() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fast("averages too many", "teacher too many")
@pytest.mark.parametrize(
    ("before", "now"),
    [
        pytest.param({}, dict(units=7), id="other shapes"),
        pytest.param({}, dict(ema_decay=0.0), id="averages too many"),
        pytest.param(dict(ema_decay=0.0), {}, id="averages missing"),
        pytest.param({}, dict(method="supervised"), id="teacher too many"),
        pytest.param(dict(method="supervised"), {}, id="teacher missing"),
        pytest.param(dict(method="uda"), {}, id="uda as mpl"),
    ],
)
def test_a_checkpoint_of_another_learner_is_refused(tmp_path, before, now):
    saved(tmp_path, compiled_learner(**before))
    checkpoints = checkpoints_of(compiled_learner(**now), tmp_path)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.restore_latest()
    message = str(caught.value)
    assert str(tmp_path / "checkpoints" / "step-0") in message
    assert "of another model or method" in message
    assert "hparams.json" in message and "--output_dir" in message
    assert "\n" not in message and len(message) < 600


def test_a_checkpoint_that_lacks_one_variable_is_refused(tmp_path):
    """As when a part of the learner is not tracked: nothing may be skipped."""
    saved(tmp_path, compiled_learner())
    learner = compiled_learner()
    learner.forgotten = keras.Variable(1.0)
    with pytest.raises(CheckpointError, match="another model or method"):
        checkpoints_of(learner, tmp_path).restore_latest()
