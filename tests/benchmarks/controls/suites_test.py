"""Control runs: which there are, and what each is compared with."""

import dataclasses

import pytest

from benchmarks.controls import search
from benchmarks.controls import suites as control_suites
from meta_pseudo_labels.learners.feedback import resolve
from tests.scripts import ROOT

SEED = {"num_labeled": 20, "seed": 0}


@pytest.fixture(autouse=True)
def at_the_top(monkeypatch):
    """Where flagfiles name one another from."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", control_suites.SUITES)
def test_every_run_of_a_suite_has_valid_settings(name):
    suite = control_suites.SUITES[name]
    for run, how in suite.runs.items():
        settings = how.settings(num_labeled=suite.num_labeled[0], seed=3)
        assert settings.seed == 3
        if how.feedback is not None:
            assert settings.mpl_feedback == how.feedback
            assert run.partition(", ")[0] == f"mpl {how.feedback}"
    assert set(suite.extra) < set(suite.runs)


@pytest.mark.parametrize(
    "names", [("digits", "where"), ("cifar10", "where_cifar10")]
)
def test_suites_share_the_rows_of_the_runs_that_they_share(names):
    suites = [control_suites.SUITES[name] for name in names]
    assert [suite.has_conditions for suite in suites] == [False, True]
    assert suites[0].rows == suites[1].rows
    common = suites[0].runs.keys() & suites[1].runs.keys()
    assert {"mpl off", "mpl exact"} == common
    for run in common:
        settings = [suite.runs[run].settings(**SEED) for suite in suites]
        assert settings[0] == settings[1]


@pytest.mark.parametrize(
    "run, control",
    [
        ("mpl exact", "mpl off"),
        ("mpl off", None),
        ("uda", None),
        ("mpl exact, weight 20", "mpl off"),
        ("mpl exact, weak teacher", "mpl off, weak teacher"),
        ("mpl off, weak teacher", None),
        ("mpl release", "mpl off"),
        ("mpl reinforce", "mpl off, sampled labels"),
        ("mpl reinforce_per_example", "mpl off, sampled labels"),
        ("mpl off, sampled labels", "mpl off"),
        ("mpl kekmodel", "mpl off, hard labels"),
        ("mpl kekmodel_average", "mpl off, hard labels"),
        ("mpl usb", "mpl off"),
        (
            "mpl exact, teacher without UDA, weight 20",
            "mpl off, teacher without UDA",
        ),
    ],
)
def test_a_run_is_compared_under_its_own_condition(run, control):
    suites = [suite.runs for suite in control_suites.SUITES.values()]
    found = {runs[run].control for runs in suites if run in runs}
    assert found == {control}


@pytest.mark.parametrize("name", control_suites.SUITES)
def test_a_control_differs_in_the_feedback_alone(name):
    """Its settings are the run's, less what concerns feedback and labels."""
    suite = control_suites.SUITES[name]
    for run, how in suite.runs.items():
        assert (how.feedback is None) == (how.settings(**SEED).method != "mpl")
        if how.control is None:
            continue
        mine, other = (
            dataclasses.asdict(suite.runs[one].settings(**SEED))
            for one in (run, how.control)
        )
        assert other["mpl_feedback"] == "off"
        changed = {"mpl_feedback", "mpl_feedback_weight", "mpl_pseudo_labels"}
        changed |= {"mpl_feedback_every", "plugins"}  # Its module.
        if suite.equal_time:
            changed |= {"num_train_steps", "mpl_student_lr_wait_steps"}
            changed.add("save_every")
        assert {key for key in mine if mine[key] != other[key]} <= changed, run


@pytest.mark.parametrize("name", control_suites.SUITES)
def test_a_control_has_the_labels_of_the_estimator(name):
    suite = control_suites.SUITES[name]
    for run, how in suite.runs.items():
        if how.control is None or how.feedback == "off":
            continue
        mine, other = (
            suite.runs[one].settings(**SEED) for one in (run, how.control)
        )
        kinds = {
            resolve(one.mpl_feedback, one.mpl_pseudo_labels)[1]
            for one in (mine, other)
        }
        assert len(kinds) == 1, run


def test_fast_runs_take_as_long_as_one_another():
    """By the costs of steps that `pace` measured, in steps of UDA."""
    cost = {
        "supervised": 0.79,
        "supervised + RandAugment": 3.14,
        "uda": 1.0,
        "fixmatch": 1.40,
        "freematch": 1.40,
        "two-stage": 0.82,
        "mpl off": 1.85,
        "mpl exact": 2.48,
        "mpl off, two stages": 3.44,
        "mpl exact, two stages": 5.69,
        "mpl exact, two stages, every 4th step": 0.75 * 3.44 + 0.25 * 5.69,
    }
    first = {"uda": 1.0, "supervised": 3.14}  # Of two stages.
    runs = control_suites.SUITES["fast"].runs
    assert list(runs) == list(cost)
    for name, run in runs.items():
        settings = run.settings(**SEED)
        waits = 0
        if settings.method == "mpl" and settings.mpl_student_lr_wait_steps:
            assert settings.mpl_skip_wait
            waits = settings.mpl_student_lr_wait_steps
        total = waits + cost[name] * (settings.num_train_steps - waits)
        if run.teacher:
            teacher, cached = run.teacher.settings(**SEED), 111
            total += cached + first[teacher.method] * teacher.num_train_steps
        assert abs(total / 4450 - 1) < 0.01, name


@pytest.mark.parametrize("name", search.TRIED | search.LONG)
def test_candidates_of_the_search_have_valid_settings(name):
    settings = search.candidate(name)
    assert settings.seed == search.SEED not in range(20)
    for key, value in (search.TRIED | search.LONG)[name].items():
        assert getattr(settings, key) == value
