"""Supervised learning on the labeled images, the first control."""

import tensorflow as tf

from meta_pseudo_labels.learners.base import Learner, gradients_of
from meta_pseudo_labels.losses import soft_cross_entropy


class Supervised(Learner):
    """Cross-entropy on the labeled images (release `Supervised.step_fn`).

    See `Learner` for the arguments. The batch needs `labeled` and `labels`.
    """

    def train_step(self, batch):
        """One update of the student; none where a gradient is not finite."""
        with tf.GradientTape() as tape:
            logits = self.student(batch["labeled"], training=True)
            labels = self.label_probabilities(
                batch["labels"], classes=logits.shape[-1]
            )
            cross_entropy = tf.reduce_mean(
                soft_cross_entropy(targets=self.smooth(labels), logits=logits)
            )
        weight_decay = self.weight_decay_loss(self.student)
        gradients, norm = self.prepare_gradients(
            gradients_of(tape, cross_entropy, self.student), self.student
        )
        learning_rate = self.optimizer.learning_rate

        def update():
            self.optimizer.apply(gradients, self.student.trainable_variables)
            self.step.assign_add(1)

        # Only the weights and the step stand still: batch norm's moments and
        # the averages move on all the same (quirk 19).
        tf.cond(tf.math.is_finite(norm), update, lambda: None)
        self.average_student()
        return {
            "loss/total": cross_entropy + self.weight_decay * weight_decay,
            "loss/cross_entropy": cross_entropy,
            "loss/weight_decay": weight_decay,
            "loss/grad_norm": norm,
            "loss/lr": learning_rate,
        }
