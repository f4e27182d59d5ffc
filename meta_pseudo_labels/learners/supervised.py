"""Supervised learning on the labeled images, the first control."""

import keras
import tensorflow as tf

from meta_pseudo_labels.learners.base import Learner
from meta_pseudo_labels.learners.passes import (
    forward,
    gradients_of,
    label_probabilities,
    own_losses,
)


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class Supervised(Learner):
    """Cross-entropy on the labeled images (release `Supervised.step_fn`).

    See `Learner` for the arguments. The batch needs `labeled` and `labels`.
    """

    batch_keys = ("labeled", "labels")

    def train_step(self, batch):
        """One update of the student; none where a gradient is not finite."""
        self.check_batch(batch)
        with tf.GradientTape() as tape:
            logits = forward(self.student, batch["labeled"])
            labels = label_probabilities(batch["labels"], logits)
            cross_entropy = self.labeled_loss(labels, logits)
            loss = cross_entropy + own_losses(self.student)
        weight_decay = self.weight_decay_loss(self.student)
        learning_rate, norm = self.update(
            self.student,
            self.optimizer,
            gradients_of(tape, loss, self.student),
            skip_not_finite=True,
        )
        self.step.assign_add(tf.cast(tf.math.is_finite(norm), tf.int64))
        self.average_student()
        return {
            "loss/total": loss + self.weight_decay * weight_decay,
            "loss/cross_entropy": cross_entropy,
            "loss/weight_decay": weight_decay,
            "loss/grad_norm": norm,
            "loss/lr": learning_rate,
        }
