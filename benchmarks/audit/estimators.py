"""The feedback of other implementations, as estimators of this package.

    --plugin=benchmarks.audit.estimators --mpl_feedback=usb

Each keeps the scalar, its sign and its moving average, the labels in the
cross-entropy, and what is differentiated; docs/audit.md cites the source of
each. Google's own is `release`, in the package.
"""

import tensorflow as tf

from meta_pseudo_labels.learners.feedback import estimator, exact
from meta_pseudo_labels.learners.losses import mean_cross_entropy


@estimator(labels=("hard", "soft"), mean=True)
def kekmodel(student_step, teacher_logits):
    """kekmodel/MPL-pytorch: (new - old) times CE(argmax, teacher).

    No moving average. The student there learns the argmax of the *weak* view,
    while this argmax is of the strong one.
    """
    change = student_step.labeled_loss_new - student_step.labeled_loss_old
    return tf.stop_gradient(change) * _argmax_loss(teacher_logits)


@estimator(labels=("hard", "soft"))
def kekmodel_detached(student_step, teacher_logits):
    """An earlier kekmodel/MPL-pytorch, with detached logits: no gradient."""
    loss = _argmax_loss(tf.stop_gradient(teacher_logits))
    return _centered(student_step) * loss


@estimator(labels=("hard", "soft"), mean=True)
def kekmodel_average(student_step, teacher_logits):
    """A control, of no implementation: kekmodel with the average change.

    What this step did to the student is not in it (but for 1 %).
    """
    change = student_step.labeled_loss_new - student_step.labeled_loss_old
    average = tf.stop_gradient(change - student_step.dot_product)
    return average * _argmax_loss(teacher_logits)


@estimator(labels=("soft", "hard"), mean=True)
def usb(student_step, teacher_logits):
    """USB's MPL: (old - new, less its average) times CE(argmax, teacher).

    The student there learns sharpened soft labels, those above a threshold.
    """
    return -_centered(student_step) * _argmax_loss(teacher_logits)


@estimator(labels=("soft",), mean=True)
def modssc(student_step, teacher_logits):
    """ModSSC: (new - old, less its average) times the teacher's entropy.

    Like the release's, but the targets are not held fixed: they have a
    gradient too.
    """
    entropy = mean_cross_entropy(tf.nn.softmax(teacher_logits), teacher_logits)
    return _centered(student_step) * entropy


@estimator(labels=("soft",), differentiates=True)
def ricoshin(student_step, teacher_logits):
    """ricoshin/meta-pseudo-labels-pytorch: through the student's update."""
    return exact(student_step, teacher_logits)


def _centered(student_step):
    """new - old minus a moving average that includes it, a constant."""
    return tf.stop_gradient(student_step.dot_product)


def _argmax_loss(logits):
    """Mean cross-entropy of logits with their own most likely class, nats."""
    hard = tf.one_hot(
        tf.argmax(logits, axis=-1), logits.shape[-1], dtype=logits.dtype
    )
    return mean_cross_entropy(hard, logits)
