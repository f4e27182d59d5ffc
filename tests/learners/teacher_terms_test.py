"""Meta Pseudo Labels whose teacher has the term of another method."""

import keras
import numpy as np
import pytest

from meta_pseudo_labels.data.spec import DATASETS
from meta_pseudo_labels.learners import LEARNERS, MetaPseudoLabels
from meta_pseudo_labels.learners.build import build_learner
from meta_pseudo_labels.learners.mpl_method import TERMS
from meta_pseudo_labels.optimizers import Momentum
from meta_pseudo_labels.run.experiment import Experiment
from tests.learners.helpers import batch, compiled, conv_net, values
from tests.learners.replicas_test import COMMON, assert_same, train
from tests.learners.replicas_test import conv_net as shared_net
from tests.tiny_run import rows, tiny

NUMBERS = {
    "fixmatch": dict(threshold=0.3, weight=2.0),
    "flexmatch": dict(threshold=0.4, weight=2.0, unlabeled=20),
    "freematch": dict(fairness=0.2, decay=0.9),
    "adamatch": dict(threshold=0.5, decay=0.9),
}
TERM_OF = {term.name: term for term in TERMS}
terms = pytest.mark.parametrize(
    "term", TERMS, ids=[term.name for term in TERMS]
)


def seen(seed=0):
    return batch(seed=seed) | {"unlabeled_indices": np.arange(6) + 2 * seed}


@pytest.mark.fast("adamatch")
@terms
def test_the_teacher_learns_what_the_method_learns(term):
    """Without feedback; a teacher of the weights of the method's student."""
    numbers = NUMBERS[term.name]
    mpl = compiled(MetaPseudoLabels, feedback="off", uda=term(**numbers))
    alone = LEARNERS[term.name](conv_net("student"), **numbers)
    alone.interpolate = False  # Of AdaMatch; a teacher's never are.
    alone.compile(Momentum(0.1))
    alone.student.set_weights(mpl.teacher.get_weights())
    for seed in range(3):
        logs, wanted = mpl.train_step(seen(seed)), alone.train_step(seen(seed))
        np.testing.assert_allclose(
            logs["cross_entropy/teacher_on_u"],
            wanted[f"{term.name}/cross_entropy"],
            rtol=1e-10,
        )
        ratio = f"{term.name}/u_ratio"
        assert float(logs[ratio]) == float(wanted[ratio])
    for mine, other in zip(
        mpl.teacher.trainable_variables + getattr(mpl.uda, "weights", []),
        alone.student.trainable_variables + getattr(alone.term, "weights", []),
        strict=True,
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-12)
    assert 0 < float(logs[ratio])


@pytest.mark.fast("freematch")
@terms
def test_it_is_saved_and_loaded_with_the_learner(term, tmp_path):
    learner = compiled(MetaPseudoLabels, uda=term(**NUMBERS[term.name]))
    learner.train_step(seen())
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert type(loaded.uda) is term
    assert loaded.uda.get_config() == learner.uda.get_config()
    assert loaded.batch_keys == learner.batch_keys
    for mine, other in zip(
        values(learner.variables), values(loaded.variables), strict=True
    ):
        np.testing.assert_array_equal(mine, other)


def test_a_skipped_step_leaves_the_state():
    learner = compiled(
        MetaPseudoLabels, uda=TERM_OF["freematch"](**NUMBERS["freematch"])
    )
    before = values(learner.uda.variables)
    learner.train_step(
        seen() | {"labeled": np.full((4, 6, 6, 2), np.nan)}, costly=False
    )
    for old, new in zip(before, values(learner.uda.variables), strict=True):
        np.testing.assert_array_equal(old, new)


def test_one_term_does_not_serve_two_learners():
    term = TERM_OF["freematch"]()
    compiled(MetaPseudoLabels, uda=term)
    with pytest.raises(ValueError, match="a FreeMatchTerm of its own"):
        compiled(MetaPseudoLabels, uda=term)


@terms
def test_its_settings_are_those_of_the_method(term, tmp_path):
    name = term.name
    config = tiny(tmp_path, mpl_teacher_loss=name, **{f"{name}_weight": 0.25})
    learner = build_learner(config, DATASETS["digits"], unlabeled=8)
    assert type(learner.uda) is term and learner.uda.weight == 0.25
    assert learner.passes(config) == {1, 3, 5}
    assert learner.keys(config) == learner.batch_keys == term.batch_keys


@pytest.mark.long
@pytest.mark.parametrize("name", ["flexmatch", "freematch"])
def test_two_replicas_are_as_good_as_one(name, mirrored):
    def build():
        return MetaPseudoLabels(
            shared_net("student"),
            shared_net("teacher"),
            uda=TERM_OF[name](**NUMBERS[name]),
            **COMMON,
        )

    one, two = (train(build, x, steps=3) for x in (None, mirrored(2)))
    assert_same(one, two)


@pytest.mark.long
def test_a_run_tells_which_images_it_shows(tmp_path):
    config = tiny(
        tmp_path,
        mpl_teacher_loss="flexmatch",
        flexmatch_threshold=0.1,
        num_train_steps=2,
    )
    experiment = Experiment(config)
    assert experiment.train()
    chosen = experiment.learner.uda.chosen.numpy()
    assert len(chosen) == len(experiment.data.unlabeled_images)
    assert (chosen >= 0).sum() == 16  # Two batches of 8 images.
    logged = [row for row in rows(config) if "flexmatch/u_ratio" in row]
    assert len(logged) == 2 and logged[0]["flexmatch/u_ratio"] == 1
