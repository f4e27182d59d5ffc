"""What holds for every method that is labels and a term of two views."""

import dataclasses

import keras
import numpy as np
import pytest

from meta_pseudo_labels.learners import LEARNERS
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.config.unread import unread_settings
from meta_pseudo_labels.run.experiment import Experiment
from tests.command_line import parse, refusal
from tests.learners.helpers import batch, conv_net, values
from tests.learners.replicas_test import COMMON, assert_same, train
from tests.learners.replicas_test import conv_net as shared_net
from tests.tiny_run import rows, tiny, weights

# By name: numbers of its own for a student; what has no bearing on those.
METHODS = {
    "adamatch": dict(weight=0.7, threshold=0.5, decay=0.9, num_train_steps=4),
    "flexmatch": dict(weight=0.7, threshold=0.4, unlabeled=20),
    "freematch": dict(weight=0.7, fairness=0.1, decay=0.9),
}
methods = pytest.mark.parametrize("name", METHODS)


def seen(seed=0):
    """One random batch, of 6 of 20 unlabeled images."""
    return batch(seed=seed) | {
        "unlabeled_indices": np.arange(6) + 7 * (seed % 3)
    }


def make(name, net=conv_net, **settings):
    return LEARNERS[name](net("student"), **METHODS[name], **settings)


@pytest.mark.fast("flexmatch")
@methods
def test_it_is_saved_and_loaded_with_its_state(name, tmp_path):
    learner = make(name)
    learner.compile("sgd")
    for seed in range(3):
        learner.train_step(seen(seed))
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert loaded.term.get_config() == learner.term.get_config()
    state = values(learner.term.variables)
    assert any(np.ptp(part) > 0 for part in state if part.size)
    for mine, theirs in zip(state, values(loaded.term.variables), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@methods
def test_a_step_that_is_not_taken_leaves_the_state(name):
    learner = make(name)
    learner.compile("sgd")
    before = values(learner.term.variables)
    bad = seen()
    bad["labeled"] = bad["labeled"] * np.nan
    learner.train_step(bad)
    for old, new in zip(before, values(learner.term.variables), strict=True):
        np.testing.assert_array_equal(old, new)
    learner.train_step(seen())
    assert any(
        (old != new).any()
        for old, new in zip(before, values(learner.term.variables), strict=True)
    )


@methods
def test_numbers_out_of_range_are_refused(name):
    for field in METHODS[name]:
        with pytest.raises(ValueError, match=field):
            LEARNERS[name](conv_net("student"), **METHODS[name] | {field: -1})
    text = refusal(f"--method={name}", f"--{name}_weight=-1")
    assert text == f"--{name}_weight=-1.0 is too small; at least 0."


@methods
def test_its_settings_are_flags(name):
    config = parse(f"--method={name}", f"--{name}_weight=0.5")
    assert getattr(config, f"{name}_weight") == 0.5
    reasons = unread_settings(dataclasses.asdict(config))
    assert reasons["uda_threshold"].startswith(f"--method={name} has --{name}_")
    for other in ("supervised", "uda", "fixmatch", "mpl"):
        unread = unread_settings(dataclasses.asdict(Config(method=other)))
        want = f"--method={other} is not {LEARNERS[name].__name__}."
        assert unread[f"{name}_weight"] == want


@pytest.mark.fast("flexmatch")
@methods
def test_two_replicas_are_as_good_as_one(name, mirrored):
    one, two = (
        train(lambda: make(name, shared_net, **COMMON), strategy, steps=3)
        for strategy in (None, mirrored(2))
    )
    assert_same(one, two)


@pytest.mark.long
@methods
def test_a_run_that_goes_on_is_the_run_at_once(name, tmp_path):
    """From the checkpoint of its second step, state and all."""
    common = dict(method=name, lr=1.0)
    if name == "adamatch":  # Its ramp depends on the length of the run.
        common |= dict(adamatch_weight=0.0, adamatch_threshold=0.1)
    once, parts = (tiny(tmp_path / x, **common) for x in ("once", "parts"))
    Experiment(once).train()
    Experiment(dataclasses.replace(parts, num_train_steps=2)).train()
    Experiment(dataclasses.replace(parts, allow_hparam_change=True)).train()
    want, got = weights(once), weights(parts)
    assert want.keys() == got.keys()
    state = [key for key in want if f".S{name}.S" in key]
    assert state
    for key, value in want.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)
    (last,) = [r for r in rows(once) if r.get("step") == 4 and "loss/lr" in r]
    assert 0 < last[f"{name}/u_ratio"] <= 1
