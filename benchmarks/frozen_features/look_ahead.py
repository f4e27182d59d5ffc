"""Feedback over several steps of the student, unrolled: for small networks.

Judging pseudo labels by the next step alone may be short-sighted (arXiv
1803.02021). Here the teacher hears of the labeled loss some steps later.
"""

import tensorflow as tf


class LookAhead:
    """An estimator: the labeled loss after several steps of the student.

    The student that looks ahead starts where the real one stood. It takes the
    real one's step, then steps on the coming unlabeled images, all with labels
    of the teacher as it is now. Its loss on the labeled images of this batch is
    differentiated through all of these steps. With one step this is `exact`.
    Networks have two dense layers; the optimizer is SGD with Nesterov momentum.

    Args:
      steps: of the student, at least 1.
    """

    labels = ("soft",)

    def __init__(self, steps):
        if steps < 1:
            raise ValueError(f"steps must be at least 1; got {steps}.")
        self.steps = steps
        self.__name__ = f"look_ahead_{steps}"

    def prepare(self, learner, batch, strong):
        """Saves the student's state; to be called before its step.

        Args:
          learner: `MetaPseudoLabels` with this estimator.
          batch: of the coming step.
          strong: views of the steps after it, a list of [unlabeled, features].
        """
        student, optimizer = learner.student, learner.optimizer
        weights = student.trainable_variables
        self.learner, self.batch, self.strong = learner, batch, strong
        self.start = [tf.identity(weight) for weight in weights]
        self.velocity = [
            tf.identity(slot) for slot in optimizer.variables[-len(weights) :]
        ]

    def __call__(self, student_step, teacher_logits):
        views = [self.batch["strong"], *self.strong]
        weights, velocity = self.start, self.velocity
        for number, images in enumerate(views):
            if number:
                teacher_logits = self.learner.teacher(images, training=True)
                teacher_logits /= self.learner.label_temperature
            labels = tf.nn.softmax(teacher_logits)
            weights, velocity = self._learned(weights, velocity, images, labels)
        logits = forward(weights, self.batch["labeled"])
        return tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(
                self.batch["labels"], logits
            )
        )

    def _learned(self, weights, velocity, images, labels):
        """Weights and velocities after a step on images and soft labels."""
        optimizer = self.learner.optimizer
        rate, momentum = optimizer.learning_rate, optimizer.momentum
        with tf.GradientTape() as tape:
            tape.watch(weights)
            # To TensorFlow's tapes, the gradient of its own cross-entropy is
            # constant in the labels.
            log_probabilities = tf.nn.log_softmax(forward(weights, images))
            losses = -tf.reduce_sum(labels * log_probabilities, -1)
            loss = tf.reduce_mean(losses)
        pulls = [rate * gradient for gradient in tape.gradient(loss, weights)]
        velocity = [
            momentum * v - pull for v, pull in zip(velocity, pulls, strict=True)
        ]
        weights = [
            weight + momentum * v - pull
            for weight, v, pull in zip(weights, velocity, pulls, strict=True)
        ]
        return weights, velocity


def forward(weights, inputs):
    """Logits of `run.network` with these weights, [batch, classes]."""
    kernel, bias, head, offset = weights
    return tf.nn.relu(inputs @ kernel + bias) @ head + offset
