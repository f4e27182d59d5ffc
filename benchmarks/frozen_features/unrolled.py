"""Feedback over several steps of the student, differentiated exactly.

One step is short-sighted (arXiv 1803.02021): labels that pay later look
useless. Here the teacher's labels of the next steps' batches move a copy of the
student several steps ahead, and the labeled loss that it then has is
differentiated through all of them. With one step it is `exact`.
"""

import tensorflow as tf

from benchmarks.frozen_features.run import Trainer

MOMENTUM = 0.9  # Of `run.optimizer`, Nesterov's.


class UnrolledTrainer(Trainer):
    """A `Trainer` whose teacher hears of the student `steps` steps ahead.

    The student itself takes the first of these steps. As every batch is looked
    ahead to `steps` times, the feedback is divided by that.
    """

    def __init__(self, method, settings, *, steps):
        super().__init__(method, settings)
        self.ahead = steps

    def _step(self, step, pools):
        learner = self.learner
        student, teacher = learner.student, learner.teacher
        batches = [self._batch(step + k, *pools) for k in range(self.ahead)]
        first = batches[0]
        with tf.GradientTape() as tape:
            loss, _ = learner.teacher_loss(first, learner.teacher_logits(first))
            loss += self._loss_ahead(batches) / self.ahead
        learner.teacher_optimizer.apply(
            tape.gradient(loss, teacher.trainable_variables)
        )
        learner.optimizer.apply(self._first, student.trainable_variables)
        learner.step.assign_add(1)

    def _loss_ahead(self, batches):
        """The first batch's labeled loss, after a step on each."""
        learner = self.learner
        weights = [w.value for w in learner.student.trainable_variables]
        slots = [m.value for m in learner.optimizer.momentums]
        rate = learner.optimizer.learning_rate.value
        for number, batch in enumerate(batches):
            labels = tf.nn.softmax(
                learner.teacher(batch["strong"], training=True)
                / learner.label_temperature
            )
            with tf.GradientTape() as tape:
                tape.watch(weights)
                loss = cross_entropy(
                    labels, perceptron(weights, batch["strong"])
                )
            gradients = tape.gradient(loss, weights)
            if number == 0:
                self._first = [tf.stop_gradient(g) for g in gradients]
            slots = [
                MOMENTUM * m - rate * g
                for m, g in zip(slots, gradients, strict=True)
            ]
            weights = [
                w + MOMENTUM * m - rate * g
                for w, m, g in zip(weights, slots, gradients, strict=True)
            ]
        first = batches[0]
        logits = perceptron(weights, first["labeled"])
        return cross_entropy(
            tf.one_hot(first["labels"], logits.shape[-1]), logits
        )


def perceptron(weights, inputs):
    """What `run.network` computes, with weights of a moment."""
    kernel, bias, last_kernel, last_bias = weights
    return tf.nn.relu(inputs @ kernel + bias) @ last_kernel + last_bias


def cross_entropy(labels, logits):
    return tf.reduce_mean(
        tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    )
