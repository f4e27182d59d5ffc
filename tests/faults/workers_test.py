"""Several workers for real: two processes on this machine."""

import json

import numpy as np
import pytest

from meta_pseudo_labels.run.metrics_log import read_rows
from meta_pseudo_labels.utils.signals import EXIT_INTERRUPTED
from tests.faults import runs
from tests.faults.kill_worker import kill_one_of_two
from tests.tiny_run import untimed


@pytest.mark.long
def test_a_killed_worker_costs_nothing_that_was_saved(tmp_path):
    result = kill_one_of_two(tmp_path, seed=0)
    assert result["identical"], result["different"]
    assert result["survivor_told"]
    assert result["survivor_exit"] == EXIT_INTERRUPTED


@pytest.mark.long
def test_two_workers_learn_what_one_device_does(tmp_path):
    """The first steps: float32 sums in another order, no more."""
    short = ("--num_train_steps=3", "--save_every=3", "--log_every=1")
    workers = [
        runs.start(tmp_path / "two", *flags, *short)
        for flags in runs.worker_flags(2)
    ]
    alone = runs.start(tmp_path / "one", *short)
    for process in (*workers, alone):
        assert process.wait(timeout=300) == 0, runs.said(tmp_path / "two")
    one, two = (
        untimed(read_rows(tmp_path / run / "metrics.jsonl"))
        for run in ("one", "two")
    )
    steps = [row for row in one if "lr/student" in row]
    assert len(steps) == 3
    for row, other in zip(steps, two[:3], strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-6)
    weights, others = (
        runs.final_weights(tmp_path / run) for run in ("one", "two")
    )
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        near = 1e-4 * float(max(1e-2, np.abs(value).max()))
        assert others[name] == pytest.approx(value, rel=0, abs=near), name
    # The second worker wrote nothing, and neither did it say that it did.
    assert "accuracy" in json.dumps(two[-1])
