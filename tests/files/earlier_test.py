"""Files that revision 8ceb65d wrote, see write.py, still mean the same."""

import json
import pathlib
import shutil

import keras
import numpy as np
import pytest

from meta_pseudo_labels import Config, Experiment
from tests.files.write import batch, images

FOLDER = pathlib.Path(__file__).parent / "8ceb65d"
# Processors round otherwise than the one that wrote them.
CLOSE = dict(rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def answers():
    with np.load(FOLDER / "answers.npz") as saved:
        return dict(saved)


def test_a_learner_is_loaded_with_its_averages_and_goes_on(answers):
    learner = keras.models.load_model(FOLDER / "learner.keras")
    assert learner.feedback.__name__ == "reinforce"
    assert learner.uda.weight == 2.0
    assert int(learner.step.numpy()) == 2
    np.testing.assert_allclose(
        learner(images(5, 99)), answers["before"], **CLOSE
    )
    learner.train_step(batch(7))
    after = learner(images(5, 99))
    np.testing.assert_allclose(after, answers["after"], **CLOSE)
    assert not np.allclose(after, answers["before"], **CLOSE)


def test_a_run_goes_on_from_its_checkpoint(answers, tmp_path):
    run = shutil.copytree(FOLDER / "run", tmp_path / "run")
    settings = json.loads((run / "hparams.json").read_text())
    config = Config(**settings | {"output_dir": str(run)})
    experiment = Experiment(config)
    assert experiment.train()
    weights = Experiment(config).trained_learner().get_weights()
    assert len(weights) == sum(name.startswith("run/") for name in answers)
    for index, weight in enumerate(weights):
        np.testing.assert_allclose(weight, answers[f"run/{index}"], **CLOSE)
