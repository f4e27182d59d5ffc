"""Learners for checkpoints of runs that had other unlabeled images."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.learners import Supervised
from meta_pseudo_labels.run.checkpoints import Checkpoints, saved_shapes
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.inference.networks import checkpoint_networks
from meta_pseudo_labels.run.restoring import learner_state, saved_unlabeled
from meta_pseudo_labels.run.stages.review import review_run
from tests.tiny_folders import run_settings, write, write_folders
from tests.tiny_run import tiny


def test_shapes_are_known_by_the_names_of_the_state(tmp_path):
    state = {
        "learner/3/a.b/chosen": tf.Variable(tf.zeros([7])),
        "student/0/x..Sy": tf.Variable(tf.zeros([2, 3])),
        "learner/0/step": tf.Variable(0),
    }
    checkpoints = Checkpoints(state, str(tmp_path))
    checkpoints.save(1)
    checkpoints.wait()
    (path,) = checkpoints.paths()
    want = {name: variable.shape.as_list() for name, variable in state.items()}
    assert saved_shapes(path) == want
    (tmp_path / "checkpoints" / "step-1.index").write_bytes(b"cut off")
    assert saved_shapes(path) == {}


class WithHelper(Supervised):
    """As of a plug-in, which trains a second network beside the student."""

    def __init__(self, student, helper):
        super().__init__(student)
        self.helper = helper

    def compile(self, optimizer, helper_optimizer):
        super().compile(optimizer)
        self.helper_optimizer = self.ready_optimizer(
            helper_optimizer, self.helper
        )
        self.build_optimizer(self.helper_optimizer, self.helper)

    def optimized(self):
        return [*super().optimized(), (self.helper_optimizer, self.helper)]


def test_the_state_has_every_optimizer_and_each_variable_once():
    networks = (
        models.build("mlp", input_shape=(2, 2, 3), num_classes=2)
        for _ in range(2)
    )
    learner = WithHelper(*networks)
    learner.compile("sgd", "adam")
    found = [id(variable) for variable in learner_state(learner).values()]
    for owner in (learner, learner.optimizer, learner.helper_optimizer):
        assert {id(variable) for variable in owner.variables} <= {*found}
    assert len(found) == len({*found})


@pytest.fixture(params=["flexmatch", "mpl"])
def flexmatch(request):
    """Settings of methods that keep a value for each unlabeled image."""
    return dict(
        method=request.param, mpl_teacher_loss="flexmatch", num_train_steps=2
    )


def trained(config):
    """The weights of the averaged student of a run."""
    experiment = Experiment(config)
    experiment.train()
    return experiment.learner.finished_student().get_weights()


def staged(config, mode, **settings):
    return Experiment(dataclasses.replace(config, task_mode=mode, **settings))


def assert_same(network, weights):
    for one, other in zip(network.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.long
def test_a_run_is_reviewed_after_an_image_was_added(tmp_path, flexmatch):
    write_folders(tmp_path)
    config = tiny(
        tmp_path / "run",
        **run_settings(tmp_path),
        num_labeled=0,
        **flexmatch,
    )
    weights = trained(config)
    write(tmp_path / "unlabeled" / "new.png", 230)
    review = staged(config, "review")
    assert saved_unlabeled(review.learner, "latest", config.output_dir) == 4
    review_run(review)
    table = tmp_path / "run" / "review" / "pseudo_labels.csv"
    assert len(table.read_text().splitlines()) == 1 + 5
    assert_same(review.learner.finished_student(), weights)


@pytest.mark.long
def test_runs_with_other_numbers_of_images_predict(tmp_path, flexmatch):
    fields = dict(dataset="digits", **flexmatch)
    weights = trained(tiny(tmp_path / "a", num_labeled=100, **fields))
    config = tiny(tmp_path / "b", num_labeled=40, **fields)
    own = trained(config)
    predict = staged(
        config, "inference", inference_ckpt_ensemble=f"latest,{tmp_path}/a"
    )
    for network, want in zip(
        checkpoint_networks(predict), (own, weights), strict=True
    ):
        assert_same(network, want)
    # As many as the run had: its learner is used as it is.
    learner = predict.learner
    predict.trained_learner()
    assert predict.learner is learner
    follow = staged(config, "evals")
    follow.data = dataclasses.replace(
        follow.data, unlabeled_images=follow.data.unlabeled_images[:3]
    )
    (row,) = follow.follow(forever=False)
    assert row["step"] == 2
    assert_same(follow.learner.finished_student(), own)
