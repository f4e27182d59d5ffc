"""Reduced Meta Pseudo Labels: a small teacher in place of a large one."""

import keras

from meta_pseudo_labels.learners.mpl import MetaPseudoLabels
from meta_pseudo_labels.learners.passes import ViewLogits, forward_together


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class ReducedMPL(MetaPseudoLabels):
    """Meta Pseudo Labels for a student that leaves no room for its teacher.

    A large teacher is trained first, its class distributions of all images are
    kept, and it is thrown away. The teacher here takes such a distribution and
    adjusts it to what its student needs (Pham et al. 2021, Reduced Meta Pseudo
    Labels). It learns from the labels, with the large teacher's distributions
    of the labeled images as inputs, and from the student's feedback. There is
    no consistency term: a distribution has no views.

    Args:
      student: see `Learner`.
      teacher: a built Keras model from class distributions, [batch, classes],
        to logits, [batch, classes]; see `models.reduced_teacher`.
      **kwargs: see `MetaPseudoLabels`; not `uda` or `weak_pass`.

    Besides "labeled", "labels" and "strong" the batch needs
    "labeled_distributions", [batch, classes], and "unlabeled_distributions",
    [unlabeled, classes], of the same images; see `data.training_dataset`.

    Raises:
      ValueError: as `MetaPseudoLabels`, and for a teacher with other inputs.
    """

    def __init__(self, student, teacher, **kwargs):
        super().__init__(student, teacher, uda=None, **kwargs)
        takes, gives = (
            getattr(teacher, name, None)
            for name in ("input_shape", "output_shape")
        )
        if takes is not None and takes != gives:
            raise ValueError(
                "A reduced teacher maps class distributions, [batch, classes], "
                f"to the same number of logits; {teacher.name!r} maps {takes} "
                f"to {gives}. See models.reduced_teacher."
            )
        self.batch_keys = (
            "labeled",
            "labels",
            "strong",
            "labeled_distributions",
            "unlabeled_distributions",
        )

    def image_networks(self):
        return [self.student]  # The teacher sees distributions.

    def get_config(self):
        config = super().get_config()
        del config["uda"], config["weak_pass"]
        return config

    def backbone_weights(self, model):
        """None for the small teacher, which starts untrained."""
        return [] if model is self.teacher else super().backbone_weights(model)

    def teacher_logits(self, batch):
        """The adjusted distributions, of labeled and of unlabeled images."""
        labeled, unlabeled = forward_together(
            self.teacher,
            batch["labeled_distributions"],
            batch["unlabeled_distributions"],
            update_moments=self.update_teacher_moments,
            slices=self.batch_slices,
            dtype=self.float_type,
        )
        return ViewLogits(labeled=labeled, weak=None, strong=unlabeled)
