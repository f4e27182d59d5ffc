"""A backbone that is frozen, or moves at another rate than the head."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import (
    MetaPseudoLabels,
    ReducedMPL,
    Supervised,
    UDASettings,
)
from meta_pseudo_labels.learners.finetuning import freeze_batch_norm
from meta_pseudo_labels.learners.student_step import take_student_step
from meta_pseudo_labels.optimizers import AdamW, Momentum
from tests.learners.helpers import CLASSES, batch, conv_net, values


def mpl(*, frozen_norm=False, optimizer=None, feedback="exact", **settings):
    """A learner whose both networks are paced alike."""
    keras.utils.set_random_seed(1)
    networks = [conv_net("student"), conv_net("teacher")]
    for network in networks if frozen_norm else ():
        freeze_batch_norm(network)
    learner = MetaPseudoLabels(
        *networks,
        feedback=feedback,
        ema_decay=0.9,
        uda=UDASettings(weight=0.5),
        log_every=1,
    )
    learner.compile(
        optimizer or AdamW(0.05, weight_decay=0.1), grad_bound=0.2, **settings
    )
    return learner


def supervised(optimizer, **settings):
    keras.utils.set_random_seed(1)
    learner = Supervised(conv_net("student"))
    learner.compile(optimizer, weight_decay=0.01, **settings)
    return learner


def state_of(learner):
    return [
        *learner.variables,
        *learner.optimizer.variables,
        *learner.teacher_optimizer.variables,
    ]


def moved(network, before):
    """The names of a network's variables that are not as before."""
    return [
        variable.path
        for variable, value in zip(network.variables, before, strict=True)
        if (variable.numpy() != value).any()
    ]


def head_of(network):
    return [weight.path for weight in network.layers[-1].weights]


@pytest.mark.parametrize("feedback", ["exact", "reinforce_per_example"])
def test_a_frozen_backbone_moves_by_0(feedback):
    """Weights, moving averages and the average of weights; the head moves."""
    learner = mpl(frozen_norm=True, freeze_backbone_steps=-1, feedback=feedback)
    networks = learner.student, learner.teacher
    before = [values(network.variables) for network in networks]
    averages = values(learner.student_ema.averages)
    for seed in range(2):
        learner.train_step(batch(seed=seed))
    for network, start in zip(networks, before, strict=True):
        assert moved(network, start) == head_of(network)
    same = [
        (one.numpy() == two).all()
        for one, two in zip(learner.student_ema.averages, averages, strict=True)
    ]
    assert sum(same) == len(same) - 2  # Kernel and bias of the head.


def test_moving_averages_go_on_where_batch_norm_is_not_frozen():
    """Also where the optimizer is wrapped."""
    inner = Momentum(0.1)
    learner = supervised(
        keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0),
        freeze_backbone_steps=-1,
    )
    before = values(learner.student.variables)
    learner.train_step(batch())
    names = moved(learner.student, before)
    assert set(head_of(learner.student)) < set(names)
    others = set(names) - set(head_of(learner.student))
    assert {name.rpartition("/")[2] for name in others} == {
        "moving_mean",
        "moving_variance",
    }


def test_a_run_that_goes_on_thaws_at_the_same_step_bit_for_bit():
    settings = dict(freeze_backbone_steps=2, backbone_lr_factor=0.1)
    whole, cut, resumed = (mpl(**settings) for _ in range(3))
    start = values(whole.student.trainable_variables)
    for step in range(3):
        whole.train_step(batch(seed=step))
        kernel = whole.student.trainable_variables[0]
        assert np.any(kernel.numpy() != start[0]) == (step == 2)
    cut.train_step(batch(seed=0))
    for one, two in zip(state_of(resumed), state_of(cut), strict=True):
        one.assign(two)
    for step in (1, 2):
        resumed.train_step(batch(seed=step))
    for one, two in zip(state_of(whole), state_of(resumed), strict=True):
        np.testing.assert_array_equal(one, two, err_msg=one.path)


@pytest.mark.fast("layers")
@pytest.mark.parametrize(
    ("optimizer", "pace"),
    [
        (lambda: Momentum(0.3), dict(backbone_lr_factor=0.1)),
        (
            lambda: AdamW(0.05, weight_decay=0.5),
            dict(backbone_lr_factor=0.1),
        ),
        (
            lambda: AdamW(0.05, weight_decay=0.5),
            dict(layer_lr_decay=0.3),
        ),
    ],
    ids=["momentum", "adamw", "layers"],
)
def test_feedback_heeds_the_rate_of_the_backbone(optimizer, pace):
    """Finite differences of the whole update, a few steps in."""
    learner = mpl(optimizer=optimizer(), **pace)
    data = batch()
    for _ in range(2):
        learner.train_step(data)
    state = [*learner.student.variables, *learner.optimizer.variables]
    saved = values(state)
    logits = np.random.default_rng(2).normal(size=(6, CLASSES))
    labels = tf.nn.softmax(logits).numpy()

    def step_with(labels):
        for variable, value in zip(state, saved, strict=True):
            variable.assign(value)
        labels = tf.constant(labels)
        return take_student_step(learner, data, pseudo_labels=labels)[0]

    gradient = step_with(labels).label_gradient().numpy()
    for index in [(0, 0), (1, 2), (3, 1), (5, 0)]:
        change = np.zeros_like(labels)
        change[index] = 1e-5
        up, down = (
            float(step_with(labels + sign * change).labeled_loss_new)
            for sign in (1, -1)
        )
        np.testing.assert_allclose(
            gradient[index],
            (up - down) / 2e-5,
            rtol=0,
            atol=1e-6 * np.abs(gradient).max(),
        )


def test_a_layer_moves_at_a_share_of_the_one_above_it():
    """A first step is linear in the rate: of student and teacher."""
    moves = []
    for decay in (1.0, 0.5):
        learner = mpl(feedback="off", layer_lr_decay=decay)
        networks = learner.student, learner.teacher
        before = [values(x.trainable_variables) for x in networks]
        learner.train_step(batch(), costly=False)
        moves.append(
            [
                [w - x for w, x in zip(values(n), old, strict=True)]
                for n, old in zip(
                    [x.trainable_variables for x in networks],
                    before,
                    strict=True,
                )
            ]
        )
    # Twice a convolution and its batch norm; a Dense layer.
    shares = [0.25] * 4 + [0.5] * 4 + [1.0] * 2
    for plain, decayed in zip(*moves, strict=True):
        for one, two, share in zip(plain, decayed, shares, strict=True):
            assert np.any(one)
            np.testing.assert_allclose(two, share * one, rtol=1e-6, atol=1e-12)


def test_a_saved_learner_keeps_its_pace(tmp_path):
    learner = supervised(
        AdamW(0.1), freeze_backbone_steps=-1, layer_lr_decay=0.5
    )
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert loaded.layer_lr_decay == 0.5
    for one, is_frozen in ((loaded, True), (learner, False)):
        if not is_frozen:  # The same optimizer, compiled without.
            one.compile(one.optimizer)
        before = values(one.student.trainable_variables)
        one.train_step(batch())
        *backbone, kernel, bias = [
            np.any(weight.numpy() != value)
            for weight, value in zip(
                one.student.trainable_variables, before, strict=True
            )
        ]
        assert kernel and bias and any(backbone) != is_frozen


def test_the_small_teacher_on_top_of_labels_has_no_backbone():
    teacher = keras.Sequential(
        [keras.Input((CLASSES,)), keras.layers.Dense(CLASSES, dtype="float64")]
    )
    learner = ReducedMPL(conv_net("student"), teacher)
    learner.compile(Momentum(0.1), freeze_backbone_steps=-1)
    assert learner.backbone_weights(learner.student)
    assert learner.backbone_weights(learner.teacher) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(freeze_backbone_steps=-2), "freeze_backbone_steps must .*-2"),
        (dict(backbone_lr_factor=-0.5), "backbone_lr_factor must .*-0.5"),
        (dict(layer_lr_decay=0), "layer_lr_decay must .* got 0"),
    ],
)
def test_bad_numbers_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        supervised("sgd", **settings)
