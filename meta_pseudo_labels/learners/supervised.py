"""Supervised learning on the labeled images, the first control."""

import keras
import tensorflow as tf

from meta_pseudo_labels.learners.base import Learner
from meta_pseudo_labels.learners.method import register
from meta_pseudo_labels.learners.passes import (
    forward,
    label_probabilities,
    own_losses,
)
from meta_pseudo_labels.utils.settings import Unread


@register("supervised")
@keras.saving.register_keras_serializable("meta_pseudo_labels")
class Supervised(Learner):
    """Cross-entropy on the labeled images (release `Supervised.step_fn`).

    See `Learner` for the arguments. The batch needs `labeled` and `labels`.
    """

    batch_keys = ("labeled", "labels")
    unread = (
        Unread(
            ("uda_",),
            "--method=supervised learns from labeled images alone.",
        ),
        Unread(
            ("augment_",),
            "without --use_augment supervised training has no strong views.",
            when=lambda settings: not settings["use_augment"],
        ),
    )

    @classmethod
    def augments_labeled(cls, settings):
        # As in the release, whose other methods never read the flag.
        return settings.use_augment

    def train_step(self, batch):
        """One update of the student."""
        self.check_batch(batch)
        with tf.GradientTape() as tape:
            logits = forward(
                self.student, batch["labeled"], slices=self.batch_slices
            )
            labels = label_probabilities(batch["labels"], logits)
            cross_entropy = self.labeled_loss(labels, logits, batch)
            loss = cross_entropy + own_losses(self.student)
        logs = {"loss/cross_entropy": cross_entropy}
        return self.take_step(tape, loss, logs)
