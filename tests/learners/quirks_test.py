"""What the release computes in a step, where no other test would notice.

docs/fidelity.md lists all quirks, and for each the tests that pin it.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.learners import UDA, MetaPseudoLabels, Supervised
from tests.learners.helpers import CLASSES, batch, compiled, values


def copy(model):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def joint_logits(model, images, *parts):
    """Training-mode logits of one joint batch, in its parts."""
    logits = model(np.concatenate([images[p] for p in parts]), training=True)
    return np.split(logits, np.cumsum([len(images[p]) for p in parts])[:-1])


def cross_entropy(targets, logits):
    """The mean over the batch, in nats."""
    return float(np.mean(-np.sum(targets * tf.nn.log_softmax(logits), axis=-1)))


def one_hot(images):
    return np.eye(CLASSES)[images["labels"]]


class TestStep:
    def test_the_teacher_sees_all_images_as_one_batch(self):
        """Quirk 1: shared statistics, weights from before the update."""
        learner, images = compiled(MetaPseudoLabels), batch()
        teacher = copy(learner.teacher)
        labeled, _, _ = joint_logits(
            teacher, images, "labeled", "weak", "strong"
        )
        logs = learner.train_step(images)
        assert float(logs["cross_entropy/teacher_on_l"]) == pytest.approx(
            cross_entropy(one_hot(images), labeled), rel=1e-9
        )
        moments = (
            [v for v in learner.teacher.variables if "moving" in v.path],
            [v for v in teacher.variables if "moving" in v.path],
        )
        for ours, theirs in zip(*moments, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)

    def test_the_students_targets_are_the_teachers_smoothed(self):
        """Quirk 3: temperature 1, no mask, y (1 - s) + s / classes."""
        learner, images = (
            compiled(MetaPseudoLabels, label_smoothing=0.3),
            batch(),
        )
        *_, strong = joint_logits(
            copy(learner.teacher), images, "labeled", "weak", "strong"
        )
        targets = 0.7 * tf.nn.softmax(strong).numpy() + 0.3 / CLASSES
        student, _ = joint_logits(
            copy(learner.student), images, "strong", "labeled"
        )
        logs = learner.train_step(images)
        assert float(logs["cross_entropy/student_on_u"]) == pytest.approx(
            cross_entropy(targets, student), rel=1e-9
        )

    @pytest.mark.fast("0.3")
    @pytest.mark.parametrize("rate", [0.0, 0.3])
    def test_the_change_is_new_minus_old_of_the_same_step(self, rate):
        """Quirks 4, 6, 7 and 13.

        Old is measured in the joint batch, new on the labeled images alone, by
        the updated weights; neither is smoothed. So the change is not 0 where
        the student waits. A stale old would be the one of the step before.
        """
        learner = compiled(
            MetaPseudoLabels,
            rate=rate,
            feedback="release",
            label_smoothing=0.3,
            baseline_decay=1.0,  # The average stays 0.
        )
        before = values(learner.student.trainable_variables)
        olds = []
        for seed in (0, 1):
            images = batch(seed=seed)
            student = copy(learner.student)
            _, labeled = joint_logits(student, images, "strong", "labeled")
            olds.append(cross_entropy(one_hot(images), labeled))
            logs = learner.train_step(images)
            (labeled,) = joint_logits(copy(learner.student), images, "labeled")
            change = cross_entropy(one_hot(images), labeled) - olds[-1]
            assert abs(change) > 1e-4
            assert float(logs["mpl/dot_product"]) == pytest.approx(
                change, abs=1e-9
            )
        assert abs(olds[1] - olds[0]) > 1e-4
        after = values(learner.student.trainable_variables)
        moved = [(a != b).any() for a, b in zip(after, before, strict=True)]
        assert any(moved) == bool(rate)

    def test_the_average_of_the_feedback_starts_at_zero(self):
        """Quirk 8: after one step it is 0.01 of the change."""
        logs = compiled(MetaPseudoLabels).train_step(batch())
        average = float(logs["mpl/moving_dot_product"])
        change = float(logs["mpl/dot_product"]) + average
        assert average == pytest.approx(0.01 * change, rel=1e-9)
        assert change != 0

    @pytest.mark.parametrize("method", [Supervised, UDA])
    def test_averages_are_taken_after_the_increment(self, method):
        """Quirk 16; MPL's are taken before it, see learners/mpl_test.py."""
        learner = compiled(method, ema_decay=0.9)
        old = values(learner.student.trainable_variables)
        learner.train_step(batch())
        averages = learner.student_ema.averages
        new = values(learner.student.trainable_variables)
        by_name = {a.name: a.numpy() for a in averages}
        for variable, a, b in zip(
            learner.student.trainable_variables, old, new, strict=True
        ):
            # s = 1 keeps (1 + 1) / (1 + 10) of the old.
            np.testing.assert_allclose(
                by_name[variable.path.replace("/", ".")],
                2 / 11 * a + 9 / 11 * b,
                rtol=1e-9,
                atol=1e-15,
            )

    @pytest.mark.parametrize("method", [Supervised, UDA, MetaPseudoLabels])
    def test_no_step_lets_in_what_is_not_finite(self, method):
        """Quirk 19: here every learner skips, and the step is not counted."""
        learner = compiled(method, ema_decay=0.9)
        learner.train_step(batch())
        average = learner.student_ema.averages[0]
        kernel = learner.student.trainable_variables[0]
        before = values([average, kernel])
        assert np.abs(before[0] - before[1]).max() > 1e-4  # It had to move.
        bad = batch(seed=1)
        for view in ("labeled", "weak", "strong"):
            bad[view][0, 0, 0, 0] = np.inf
        logs = learner.train_step(bad)
        assert int(learner.step) == float(logs["skipped_steps"]) == 1
        for variable, old in zip([average, kernel], before, strict=True):
            np.testing.assert_array_equal(variable, old)


class TestWeightDecay:
    def test_all_but_batch_norm_is_decayed(self):
        """Quirk 17: biases of dense layers and of excitation too."""
        network = models.efficientnet(
            width=0.1,
            depth=0.1,
            input_shape=(8, 8, 3),
            num_classes=3,
            small_images=True,
        )
        learner = Supervised(network)
        learner.compile("sgd", weight_decay=0.25)
        weights = network.trainable_variables
        for weight in weights:
            weight.assign(tf.fill(weight.shape, 2.0))
        gradients, _ = learner.prepare_gradients(
            [tf.zeros(w.shape) for w in weights], network
        )
        exempt = ("batchnorm", "batch_norm", "bn", "layer_norm", "layernorm")
        for weight, gradient in zip(weights, gradients, strict=True):
            spared = any(word in weight.path for word in exempt)
            np.testing.assert_array_equal(gradient, 0.0 if spared else 0.5)
        biases = {w.path for w in weights if w.path.endswith("bias")}
        assert {"head.dense/bias", "block_0.se.reduce/bias"} < biases

    @pytest.mark.parametrize(
        ("method", "name"),
        [(Supervised, "loss/weight_decay"), (UDA, "loss/weight_dec")],
    )
    def test_it_is_logged_unscaled(self, method, name):
        """Quirk 17: half the sum of squares, in the total times its weight."""
        learner = compiled(method, weight_decay=0.25)
        half_squares = sum(
            np.sum(np.square(w.numpy())) / 2
            for w in learner.student.trainable_variables
            if "batch_norm" not in w.path
        )
        logs = learner.train_step(batch())
        np.testing.assert_allclose(logs[name], half_squares, rtol=1e-9)
        # The weight of UDA's other term is 0 at the first step.
        np.testing.assert_allclose(
            logs["loss/total"],
            logs["loss/cross_entropy"] + 0.25 * half_squares,
            rtol=1e-9,
        )

    def test_mpl_does_not_log_it(self):
        """Quirk 17: it is in the gradients, not in the losses."""
        learners = [
            compiled(MetaPseudoLabels, weight_decay=d) for d in (0.0, 0.25)
        ]
        plain, decayed = (learner.train_step(batch()) for learner in learners)
        for name in ("student_on_u", "teacher_on_l", "teacher_on_u"):
            loss = f"cross_entropy/{name}"
            np.testing.assert_allclose(plain[loss], decayed[loss], rtol=1e-12)
        for role in ("student", "teacher"):
            one, two = (getattr(learner, role) for learner in learners)
            assert (one.get_weights()[0] != two.get_weights()[0]).any()
