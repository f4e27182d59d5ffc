"""The table of controls: what it repeats, and what it makes of rows."""

import importlib.util
import pathlib

import pytest

from meta_pseudo_labels.config import Config

PATH = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def controls():
    spec = importlib.util.spec_from_file_location(
        "digits_controls", PATH / "digits_controls.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(run, **settings):
    known = {"seed": 0, "lr": 0.016, **settings}
    return {
        "run": run,
        "settings": known,
        "accuracy": 0.9,
        "accuracy_finetuned": 0.9 + 0.02 * known["seed"],
        "accuracy_teacher": None,
        "train_seconds": 10.0 + known["seed"],
        "revision": "abc",
    }


def test_only_runs_with_the_same_settings_are_taken_again(controls):
    rows = [row("uda"), row("uda", seed=1), row("uda", lr=0.1), row("mpl off")]
    assert controls._find(rows, "uda", Config()) == rows[:1]
    assert controls._find(rows, "uda", Config(seed=1)) == rows[1:2]
    assert controls._find(rows, "uda", Config(seed=2)) == []


def test_the_table_has_means_and_standard_deviations(controls):
    rows = [row("uda", seed=seed) for seed in range(3)]
    (line,) = controls._table(rows).splitlines()[2:]
    # 90, 92, 94: mean 92, deviation 2. No teacher.
    assert line.split() == "uda 3 90.00 +- 0.00 92.00 +- 2.00 11".split()


@pytest.mark.parametrize("run", ["supervised", "uda", "mpl exact", "mpl off"])
def test_every_run_of_the_table_has_settings(controls, run, monkeypatch):
    monkeypatch.chdir(controls.ROOT)
    flagfile, changes = controls.RUNS[run]
    config = controls.config_from_flagfile(flagfile, seed=3, **changes)
    assert config.method == run.split()[0] and config.seed == 3
