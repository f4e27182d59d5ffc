"""Runs that begin where another one, of the release or ours, ended."""

import numpy as np
import pytest

from meta_pseudo_labels.experiment import Experiment
from meta_pseudo_labels.reference import (
    release_variables,
    save_release_checkpoint,
)
from tests.tiny_run import rows, tiny


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Its learner, and the path of its checkpoint in either format."""
    folder = tmp_path_factory.mktemp("ended")
    run = Experiment(tiny(folder / "run"))
    run.train()
    path = str(folder / "ckpt-4")
    save_release_checkpoint(run.learner, path, model_type="mlp")
    own = f"{run.output_dir}/checkpoints"
    return run.learner, {"release": path, "own": own}


@pytest.mark.parametrize("kind", ["release", "own"])
def test_goes_on_at_its_step(tmp_path, ended, kind):
    learner, paths = ended
    run = Experiment(tiny(tmp_path / "run", load_checkpoint=paths[kind]))
    assert not run.train()  # All four steps are done.
    ours, theirs = (
        release_variables(x, scope="mlp") for x in (run.learner, learner)
    )
    assert len(theirs) > 30 and int(theirs["global_step"]) == 4
    for name, variable in theirs.items():
        np.testing.assert_array_equal(ours[name], variable, err_msg=name)


@pytest.mark.parametrize("kind", ["release", "own"])
def test_may_count_from_zero(tmp_path, ended, kind):
    learner, paths = ended
    config = tiny(
        tmp_path / "run",
        load_checkpoint=paths[kind],
        load_checkpoint_and_restart_global_step=True,
        num_train_steps=1,
    )
    run = Experiment(config)
    assert run.train()
    steps = [row["step"] for row in rows(config) if "lr/student" in row]
    assert steps == [1]
    # Step 0 waits, so the student is still the one that was loaded.
    for ours, theirs in zip(
        run.learner.student.get_weights(),
        learner.student.get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
