"""Pseudo Labels from a fixed teacher, the third control."""

import keras
import tensorflow as tf

from meta_pseudo_labels.learners.base import Learner
from meta_pseudo_labels.learners.checks import check_positive
from meta_pseudo_labels.learners.feedback import PSEUDO_LABELS, draw_labels
from meta_pseudo_labels.learners.losses import TINY
from meta_pseudo_labels.learners.method import register
from meta_pseudo_labels.learners.mpl_method import MPLSettings
from meta_pseudo_labels.learners.passes import (
    forward_together,
    label_probabilities,
    own_losses,
)
from meta_pseudo_labels.learners.settings import TeacherSettings
from meta_pseudo_labels.utils.settings import (
    ConfigError,
    Unread,
    command_for,
)


@register("pseudo_labels")
@keras.saving.register_keras_serializable("meta_pseudo_labels")
class PseudoLabels(Learner):
    """The student learns labels, and a trained teacher's labels of the rest.

    The teacher is well trained and never changes (Pham et al. 2021, section 2,
    equation 1); all that is left of it is its class distribution for every
    unlabeled image. The loss is the cross-entropy of the pseudo labels on
    strong views plus that of the labels on labeled images, both means and both
    with weight 1: pseudo labels are "combined with labeled images" (section 1).
    By default the most likely class is the label, as in Lee (2013).

    Args:
      student: see `Learner`.
      pseudo_labels: "hard", "soft" or "sampled" (anew in each step).
      label_temperature: divides the logarithms of the distributions before
        labels are made from them; below 1 sharpens.
      **kwargs: see `Learner`.

    The batch needs "labeled", "labels", "strong" and
    "unlabeled_distributions", [unlabeled, classes] float, of the same images
    as "strong"; see `data.training_dataset`.

    Raises:
      ValueError: for settings out of range.
    """

    batch_keys = ("labeled", "labels", "strong", "unlabeled_distributions")
    settings = (MPLSettings, TeacherSettings)
    unread = (
        Unread(
            ("mpl_",),
            "--method=pseudo_labels learns from a fixed teacher, which hears "
            "no feedback.",
            but=("mpl_pseudo_labels", "mpl_label_temp"),
        ),
        Unread(
            ("mpl_label_temp",),
            "the pseudo labels are hard, the same at every temperature.",
            when=lambda settings: (
                settings["mpl_pseudo_labels"] in (None, "hard")
            ),
        ),
        Unread(
            ("teacher_model_type", "teacher_weights"),
            "only the labels of the fixed teacher are read.",
        ),
    )

    def __init__(
        self, student, *, pseudo_labels="hard", label_temperature=1.0, **kwargs
    ):
        super().__init__(student, **kwargs)
        if pseudo_labels not in PSEUDO_LABELS:
            raise ValueError(
                f"pseudo_labels must be in {PSEUDO_LABELS}; got "
                f"{pseudo_labels!r}."
            )
        check_positive("label_temperature", label_temperature)
        self.label_kind = pseudo_labels
        self.label_temperature = label_temperature

    @classmethod
    def from_settings(cls, settings, networks, **common):
        return cls(
            networks.student(),
            pseudo_labels=settings.mpl_pseudo_labels or "hard",
            label_temperature=settings.mpl_label_temp,
            **common,
        )

    @classmethod
    def check_settings(cls, settings):
        if not settings.teacher_labels:
            raise ConfigError(
                "--method=pseudo_labels needs --teacher_labels=<folder of "
                "the run that trained the teacher>; "
                f"{command_for('cache_labels', '<that folder>')} writes them "
                "there."
            )

    def get_config(self):
        return {
            **super().get_config(),
            "pseudo_labels": self.label_kind,
            "label_temperature": self.label_temperature,
        }

    def train_step(self, batch):
        """One update of the student on labels and pseudo labels."""
        self.check_batch(batch)
        with tf.GradientTape() as tape:
            labeled_logits, strong_logits = forward_together(
                self.student,
                batch["labeled"],
                batch["strong"],
                slices=self.batch_slices,
            )
            labels = label_probabilities(batch["labels"], labeled_logits)
            pseudo_labels = self.draw_pseudo_labels(
                label_probabilities(
                    batch["unlabeled_distributions"], strong_logits
                )
            )
            on_labeled = self.labeled_loss(labels, labeled_logits, batch)
            on_unlabeled = self.labeled_loss(pseudo_labels, strong_logits)
            loss = on_labeled + on_unlabeled + own_losses(self.student)
        logs = {
            "loss/cross_entropy": on_labeled,
            "pseudo_labels/cross_entropy": on_unlabeled,
        }
        return self.take_step(tape, loss, logs)

    def draw_pseudo_labels(self, distributions):
        """Labels of this step, [unlabeled, classes], one-hot unless soft."""
        logits = tf.math.log(tf.maximum(distributions, TINY))
        seed = tf.stack([tf.cast(self.seed, "int64"), self.step.value])
        return draw_labels(
            logits / self.label_temperature, kind=self.label_kind, seed=seed
        )
