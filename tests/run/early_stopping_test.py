"""Counting on from what the checkpoints say."""

import types

import pytest

from meta_pseudo_labels.run.early_stopping import epochs_since_best


@pytest.fixture
def checkpoints(tmp_path):
    """With the best one at step 20."""
    (tmp_path / "step-20.index").touch()
    return types.SimpleNamespace(best_folder=str(tmp_path), best_accuracy=0.5)


@pytest.mark.parametrize(
    ("step", "epochs"),
    # Of 10 steps each; one that was cut off does not count.
    [(20, 0), (25, 0), (30, 1), (39, 1), (60, 4), (10, 0)],
)
def test_whole_epochs_since_the_best_one(checkpoints, step, epochs):
    assert epochs_since_best(checkpoints, step, every=10) == epochs


def test_none_before_there_is_a_best_one(checkpoints, tmp_path):
    checkpoints.best_accuracy = -1.0  # Of one that begins anew.
    assert epochs_since_best(checkpoints, 90, every=10) == 0
    checkpoints.best_accuracy = 0.5
    (tmp_path / "step-20.index").unlink()
    assert epochs_since_best(checkpoints, 90, every=10) == 0
