"""A trained run, made once; tests of inference leave its weights alone."""

import dataclasses
import shutil

import pytest

from meta_pseudo_labels.run.experiment import Experiment
from tests.tiny_run import tiny


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The experiment of a run of four steps, checkpoints at 2 and 4."""
    experiment = Experiment(tiny(tmp_path_factory.mktemp("inference") / "run"))
    experiment.train()
    return experiment


@pytest.fixture
def inferring(trained, tmp_path):
    """A function from settings to the experiment of a copy of the run.

    Data and learner are shared: to load and to build them takes longest.
    """
    folder = tmp_path / "run"
    shutil.copytree(trained.output_dir, folder)

    def experiment(**settings):
        config = dataclasses.replace(
            trained.config,
            **dict(task_mode="inference", output_dir=str(folder)) | settings,
        )
        made = Experiment(config)
        made.data, made.learner = trained.data, trained.learner
        return made

    return experiment
