import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.evaluation.diagnosis import diagnose, measure
from meta_pseudo_labels.evaluation.diagnosis.sums import GradientSums
from meta_pseudo_labels.learners import MetaPseudoLabels
from meta_pseudo_labels.learners.feedback import (
    ESTIMATORS,
    exact,
    reinforce_per_example,
)
from meta_pseudo_labels.learners.student_step import take_student_step
from meta_pseudo_labels.optimizers import Momentum
from tests.evaluation.diagnosis.conftest import BATCHES, held_out
from tests.learners.helpers import CLASSES, batch, values

DRAWN = [name for name in ESTIMATORS if name.startswith("reinforce")]


def net(name):
    """No batch norm, by which old and new differ beside the step."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Flatten(dtype="float64"),
            keras.layers.Dense(4, activation="tanh", dtype="float64"),
            keras.layers.Dense(CLASSES, dtype="float64"),
        ],
        name=name,
    )


def learner(optimizer=None, **settings):
    keras.utils.set_random_seed(3)
    made = MetaPseudoLabels(
        net("student"), net("teacher"), feedback="reinforce", **settings
    )
    made.compile(optimizer or Momentum(0.2, momentum=0.0, nesterov=False))
    return made


def batches_of(found, *path):
    """One number of each batch."""
    for row in found["batches"]:
        for key in path:
            row = row[key]
        yield row


@pytest.mark.long
def test_nothing_changes_bit_for_bit(diagnosed):
    for before, now in zip(
        diagnosed.before, values(diagnosed.state), strict=True
    ):
        np.testing.assert_array_equal(before, now)
    assert float(diagnosed.learner.optimizer.learning_rate) == 0.0
    assert diagnosed.found["settings"]["learning_rate"] == pytest.approx(0.3)


def test_nothing_changes_where_a_probe_fails():
    made = learner()
    before = values(made.variables)

    def failing(student_step, teacher_logits):
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        diagnose(
            made,
            BATCHES,
            held_out=held_out(),
            learning_rate=0.1,
            estimators={"exact": failing},
        )
    for old, now in zip(before, values(made.variables), strict=True):
        np.testing.assert_array_equal(old, now)
    assert float(made.optimizer.learning_rate) == pytest.approx(0.2)


def test_exact_agrees_with_itself_and_not_with_its_opposite(diagnosed):
    estimators = diagnosed.found["estimators"]
    for name, cosine in (("exact", 1.0), ("mirrored", -1.0)):
        for key in ("cosine_one_draw", "cosine_mean"):
            assert estimators[name][key] == pytest.approx(cosine, abs=1e-12)
    assert estimators["mirrored"]["norm_ratio"] == pytest.approx(
        estimators["exact"]["norm_ratio"]
    )


def test_release_and_off_say_nothing(diagnosed):
    for name in ("release", "off"):
        numbers = diagnosed.found["estimators"][name]
        assert numbers["norm_ratio"] < 1e-12
        assert numbers["cosine_mean"] is None
        assert name not in diagnosed.found["teacher_steps"]


def test_gains_of_the_examples_are_less_noisy_than_one_for_all(diagnosed):
    noise = {
        name: diagnosed.found["estimators"][name]["noise"] for name in DRAWN
    }
    per_example = noise.pop("reinforce_per_example")
    assert 0 < per_example < min(noise.values())


def test_the_noise_of_a_plug_in_is_on_the_scale_of_ours(diagnosed):
    estimators = diagnosed.found["estimators"]
    assert estimators["own_mean"] == pytest.approx(estimators["reinforce"])
    means = {name for name, one in estimators.items() if one["is_mean"]}
    assert means == {
        *("reinforce", "reinforce_dot_product", "reinforce_cosine"),
        *("release", "own_mean"),
    }


@pytest.mark.long
def test_the_mean_of_the_draws_turns_to_the_exact_gradient():
    """With a small step; the mean of one draw's cosines does not grow."""
    found = diagnose(
        learner(),
        [batch(unlabeled=2, seed=seed) for seed in (1, 2)],
        held_out=held_out(),
        draws=200,
        learning_rate=1e-3,
    )
    numbers = found["estimators"]["reinforce_per_example"]
    assert numbers["cosine_mean"] > 0.98
    assert numbers["cosine_one_draw"] < 0.9
    dot_product = found["estimators"]["reinforce_dot_product"]
    assert dot_product["cosine_mean"] > 0.9
    # A cosine on the scale of the dot product is as noisy.
    assert found["estimators"]["reinforce_cosine"]["noise"] == pytest.approx(
        dot_product["noise"], rel=0.5
    )


def test_the_norm_ratio_is_that_of_the_gradients_times_the_weight(diagnosed):
    """Once more by eager steps, on the first batch."""
    made = diagnosed.learner
    made.optimizer.learning_rate = 0.3
    weights = [w.value for w in made.teacher.trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        logits = made.teacher_logits(BATCHES[0])
        with tape.stop_recording():
            step, _ = take_student_step(
                made, BATCHES[0], pseudo_labels=tf.nn.softmax(logits.strong)
            )
        feedback = exact(step, logits.strong)
        other = made.teacher_loss(BATCHES[0], logits).loss
    made.optimizer.learning_rate = 0.0
    for variable, value in zip(diagnosed.state, diagnosed.before, strict=True):
        variable.assign(value)
    norm, other_norm = (
        float(tf.linalg.global_norm(tape.gradient(loss, weights)))
        for loss in (feedback, other)
    )
    row = diagnosed.found["batches"][0]
    assert row["step"] == 4
    assert row["exact_squared_norm"] == pytest.approx(norm**2, rel=1e-9)
    assert row["estimators"]["exact"]["norm_ratio"] == pytest.approx(
        3.0 * norm / other_norm, rel=1e-9
    )


def test_a_step_of_the_teacher_does_what_exact_predicts(diagnosed):
    steps = diagnosed.found["teacher_steps"]
    assert steps["exact"]["predicted"] < 0 < steps["mirrored"]["predicted"]
    assert steps["exact"]["lowered"] == 1.0
    assert steps["mirrored"]["lowered"] == 0.0
    for name in steps:
        for step in batches_of(diagnosed.found, "teacher_steps", name):
            error = abs(step["measured"] - step["predicted"])
            assert error < 0.02 * abs(
                diagnosed.found["batches"][0]["teacher_steps"]["exact"][
                    "predicted"
                ]
            ), name


def test_random_directions_gain_nothing_to_speak_of(diagnosed):
    steps = diagnosed.found["teacher_steps"]
    random, best = (
        abs(steps[name]["measured"]) for name in ("random direction", "exact")
    )
    assert random < 0.3 * best


@pytest.mark.long
def test_h_is_the_true_fall_where_the_judged_images_are_held_out():
    """Small steps without batch norm, judged on the held-out images."""
    judged = batch(seed=7)
    batches = [
        batch(seed=seed) | {k: judged[k] for k in ("labeled", "labels")}
        for seed in (1, 2)
    ]
    found = diagnose(
        learner(),
        batches,
        held_out=(judged["labeled"], judged["labels"]),
        draws=6,
        learning_rate=1e-4,
    )
    before = found["settings"]["held_out_loss"]
    for name in ("reinforce", "reinforce_dot_product", "reinforce_per_example"):
        for row in found["batches"]:
            falls = before - np.array(row["held_out_losses"])
            h = row["estimators"][name]["h"]
            np.testing.assert_allclose(falls[:, 0], h, atol=5e-8)
            assert np.ptp(h) > 1e-5
            np.testing.assert_allclose(falls[:, 0], falls[:, 1])
        numbers = found["estimators"][name]
        assert numbers["pearson"] > 0.9999
        assert numbers["pearson_within"] > 0.9999
        assert numbers["spearman"] > 0.95


@pytest.mark.long
def test_draws_are_keyed_by_step_and_number():
    """More draws, or a later start, repeat those that there were."""

    def h(batches, **settings):
        found = diagnose(learner(), batches, held_out=held_out(), **settings)
        return [row["estimators"]["reinforce"]["h"] for row in found["batches"]]

    one, more = (h(BATCHES[:2], draws=draws) for draws in (2, 3))
    assert [row[:2] for row in more] == one
    assert h(BATCHES[1:2], draws=2, start_step=1) == one[1:]
    everything = list(itertools.chain.from_iterable(more))
    assert len(set(everything)) == len(everything)


def test_numbers_of_two_gradients_by_hand():
    sums = GradientSums(np.array([2.0, 0.0]), other=4.0)
    sums.add(np.array([1.0, 0.0]), h=0.5)
    sums.add(np.array([0.0, 3.0]), h=-0.5)
    assert sums.numbers() == {
        "norm_ratio": pytest.approx((1 + 3) / 2 / 4),
        "squared_norm_of_mean": pytest.approx(0.25 + 2.25),
        "cosine_one_draw": pytest.approx(0.5),
        "cosine_mean": pytest.approx(0.5 / np.sqrt(2.5)),
        # Of 1, 0 and of 0, 3: 0.5 and 4.5.
        "variance": pytest.approx(5.0),
        "h": [0.5, -0.5],
    }
    assert sums.first.tolist() == [1.0, 0.0]


def test_the_result_is_json(diagnosed):
    text = json.dumps(diagnosed.found, allow_nan=False)
    assert json.loads(text)["settings"] == {
        "learning_rate": pytest.approx(0.3),
        "start_step": 4,
        "batches": 3,
        "draws": 8,
        "held_out_images": 20,
        "held_out_loss": pytest.approx(
            diagnosed.found["settings"]["held_out_loss"]
        ),
        "held_out_loss_inference": pytest.approx(
            float(
                keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
                    held_out()[1], diagnosed.learner.student(held_out()[0])
                )
            )
        ),
        "feedback_weight": 3.0,
        "feedback_every": 1,
        "teacher_step": 1e-3,
    }


@pytest.mark.long
def test_an_estimator_of_ones_own_gets_draws_where_it_needs_them():
    def mine(student_step, teacher_logits):
        return reinforce_per_example(student_step, teacher_logits)

    theirs = "reinforce_per_example"
    found = diagnose(
        learner(),
        BATCHES,
        held_out=held_out(),
        draws=2,
        estimators={
            "exact": exact,
            theirs: reinforce_per_example,
            "mine": (mine, "sampled"),
            "mine, by its code": mine,
        },
    )["estimators"]
    assert found["mine"]["noise"] > 0
    assert found["mine"] == pytest.approx(found[theirs])
    assert found["mine, by its code"] == pytest.approx(found[theirs])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(draws=1), "draws must be at least 2; got 1"),
        (dict(estimators={"off": ESTIMATORS["off"]}), 'needs "exact"'),
        (
            dict(
                estimators={"exact": exact, "off": (ESTIMATORS["off"], "hard")}
            ),
            "asks for hard labels",
        ),
        (dict(learning_rate=0.0), "learning rate is 0"),
        (dict(batches=iter(BATCHES)), "only once"),
        (dict(batches=[{"labeled": 1}]), "trains on a tf.data.Dataset"),
        (dict(optimizer="adamax"), "every diagnosis. supports Momentum"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(settings, words):
    arguments = dict(optimizer=None, batches=BATCHES) | settings
    with pytest.raises(ValueError, match=words):
        diagnose(
            learner(arguments.pop("optimizer")),
            arguments.pop("batches"),
            held_out=held_out(),
            **arguments,
        )


def pair(name):
    """`net` with a second input, which it adds to the first."""
    one, two = (keras.Input((6, 6, 2), name=key) for key in ("one", "two"))
    outputs = net(name)(keras.layers.Add()([one, two]))
    return keras.Model({"one": one, "two": two}, outputs, name=name)


def as_pair(images):
    images = np.float32(images)
    return {"one": images / 4, "two": images * 0.75}


@pytest.mark.long
def test_networks_of_several_inputs_are_diagnosed_too():
    found = []
    for build, change in ((net, np.float32), (pair, as_pair)):
        keras.utils.set_random_seed(3)
        made = MetaPseudoLabels(build("student"), build("teacher"))
        made.compile(Momentum(0.2))
        batches = [
            {
                key: value if key == "labels" else change(value)
                for key, value in batch(seed=seed).items()
            }
            for seed in range(2)
        ]
        images, labels = held_out()
        found.append(
            diagnose(
                made,
                batches,
                held_out=(change(images), labels),
                estimators={"exact": exact},
            )
        )
    for path in (("exact_squared_norm",), ("other_norm",)):
        one, two = (list(batches_of(part, *path)) for part in found)
        np.testing.assert_allclose(two, one, rtol=1e-5)
    one, two = (part["settings"]["held_out_loss"] for part in found)
    assert two == pytest.approx(one, rel=1e-6)


@pytest.mark.parametrize("view", ["strong", "weak"])
def test_labels_are_of_the_view_that_the_learner_labels(view):
    made = learner(label_view=view, label_temperature=0.5)
    found = diagnose(
        made, BATCHES, held_out=held_out(), estimators={"exact": exact}
    )
    weights = [w.value for w in made.teacher.trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        labeled_by = getattr(made.teacher_logits(BATCHES[0]), view) / 0.5
        with tape.stop_recording():
            step, _ = take_student_step(
                made, BATCHES[0], pseudo_labels=tf.nn.softmax(labeled_by)
            )
        feedback = exact(step, labeled_by)
    norm = float(tf.linalg.global_norm(tape.gradient(feedback, weights)))
    assert found["batches"][0]["exact_squared_norm"] == pytest.approx(
        norm**2, rel=1e-9
    )


def test_labels_that_are_made_in_another_way_are_not_diagnosed():
    class Uniform(MetaPseudoLabels):
        def draw_pseudo_labels(self, logits):
            return tf.ones_like(logits) / CLASSES

    made = Uniform(net("student"), net("teacher"))
    made.compile(Momentum(0.2))
    with pytest.raises(ValueError, match="Uniform makes pseudo labels in a wa"):
        diagnose(made, BATCHES, held_out=held_out())


def test_estimators_for_hard_labels_are_left_out_of_the_default(
    monkeypatch, caplog
):
    """A plug-in with one must not keep a run from being diagnosed."""

    def mine(student_step, teacher_logits):
        return exact(student_step, teacher_logits)

    mine.labels = ("hard", "soft")
    registered = {"exact": exact, "mine": mine}
    monkeypatch.setattr(measure, "ESTIMATORS", registered)
    found = diagnose(
        learner(), BATCHES, held_out=held_out(), estimators=registered
    )
    assert set(found["estimators"]) == {"exact"}
    assert "Not diagnosed, as hard labels are not drawn: mine." in caplog.text
