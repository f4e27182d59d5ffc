"""What other implementations compute as feedback, as estimators of our own.

    --plugin=benchmarks.audit.estimators --mpl_feedback=usb

Each keeps the scalar, its sign and its moving average, the labels that the
cross-entropy compares with, and what is differentiated; docs/audit.md says
where each was read. Google's own is `release`, of the package.
"""

import tensorflow as tf

from meta_pseudo_labels.learners.feedback import estimator, exact
from meta_pseudo_labels.learners.losses import mean_cross_entropy


@estimator(labels=("hard", "soft"))
def kekmodel(student_step, teacher_logits):
    """kekmodel/MPL-pytorch: (new - old) times CE(argmax, teacher).

    No moving average. The student there learns the argmax of the *weak* view,
    while this argmax is of the strong one.
    """
    change = student_step.labeled_loss_new - student_step.labeled_loss_old
    return tf.stop_gradient(change) * _argmax_loss(teacher_logits)


@estimator(labels=("hard", "soft"))
def kekmodel_detached(student_step, teacher_logits):
    """An earlier kekmodel/MPL-pytorch, its logits detached: no gradient."""
    loss = _argmax_loss(tf.stop_gradient(teacher_logits))
    return _centered(student_step) * loss


@estimator(labels=("soft", "hard"))
def usb(student_step, teacher_logits):
    """USB's MPL: (old - new, less its average) times CE(argmax, teacher).

    The student there learns sharpened soft labels, those above a threshold.
    """
    return -_centered(student_step) * _argmax_loss(teacher_logits)


@estimator(labels=("soft",))
def modssc(student_step, teacher_logits):
    """ModSSC: (new - old, less its average) times the teacher's entropy.

    As the release's, but nothing holds the targets: they have a gradient too.
    """
    entropy = mean_cross_entropy(tf.nn.softmax(teacher_logits), teacher_logits)
    return _centered(student_step) * entropy


@estimator(labels=("soft",), differentiates=True)
def ricoshin(student_step, teacher_logits):
    """ricoshin/meta-pseudo-labels-pytorch: through the student's update."""
    return exact(student_step, teacher_logits)


def _centered(student_step):
    """new - old less a moving average that has taken it in, a constant."""
    return tf.stop_gradient(student_step.dot_product)


def _argmax_loss(logits):
    """Mean cross-entropy of logits with their own most likely class, nats."""
    hard = tf.one_hot(
        tf.argmax(logits, axis=-1), logits.shape[-1], dtype=logits.dtype
    )
    return mean_cross_entropy(hard, logits)
