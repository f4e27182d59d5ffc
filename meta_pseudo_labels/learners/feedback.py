"""The student's feedback to the teacher: one small function per estimator.

An estimator says how the teacher should change the pseudo labels it gave, now
that the student has learned from them. All have one signature,

    estimator(student_step, teacher_logits) -> loss

and return a scalar whose gradient with respect to the teacher is the feedback.
"""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

from meta_pseudo_labels.learners.checks import check_range
from meta_pseudo_labels.losses import mean_cross_entropy

PSEUDO_LABELS = ("soft", "hard", "sampled")


@dataclasses.dataclass(frozen=True)
class StudentStep:
    """What the student's step leaves for an estimator to use.

    Attributes:
      pseudo_labels: what the student trained on, [unlabeled, classes].
      learning_rate: of the student's update, scalar.
      labeled_loss_old: cross-entropy on the labeled batch before the update,
        scalar, nats, no label smoothing.
      labeled_loss_new: the same after the update.
      dot_product: new - old less its moving average, scalar, nats; positive
        where the pseudo labels made the student worse. The release logs it
        under this name.
      label_gradient: computes d(new labeled loss) / d(pseudo labels),
        [unlabeled, classes], through the student's whole update.
    """

    pseudo_labels: tf.Tensor
    learning_rate: tf.Tensor
    labeled_loss_old: tf.Tensor
    labeled_loss_new: tf.Tensor
    dot_product: tf.Tensor
    label_gradient: Callable[[], tf.Tensor]


def exact(student_step, teacher_logits):
    """The gradient of the new labeled loss, through the student's update.

    With soft labels everything is differentiable: no sampling, no baseline, no
    batch-norm bias (spec, "The feedback, derived").
    """
    gradient = tf.stop_gradient(student_step.label_gradient())
    return tf.reduce_sum(gradient * tf.nn.softmax(teacher_logits))


def reinforce(student_step, teacher_logits):
    """REINFORCE on the labels that the student used (paper, section 2).

    The teacher's gradient is h times that of its mean cross-entropy on those
    labels, with h = old - new less a moving average: labels that helped gain
    probability. The mean over the batch, rather than the sum, is the paper's;
    it scales the unbiased gradient by 1 / (number of unlabeled images).

    While the student waits at rate 0 its labels have done nothing, and h would
    be batch norm's noise alone; so it counts as 0 then.
    """
    moved = tf.cast(student_step.learning_rate > 0, teacher_logits.dtype)
    advantage = tf.stop_gradient(-student_step.dot_product * moved)
    return advantage * mean_cross_entropy(
        student_step.pseudo_labels, teacher_logits
    )


def release(student_step, teacher_logits):
    """As published (release `MPL.step_fn`, quirks 7 to 10): no feedback at all.

    The sign is reversed, h = new - old, and the cross-entropy compares the
    teacher's probabilities, held fixed, with its own logits; its gradient is
    softmax - softmax = 0. The loss has a value, but it steers nothing.
    """
    dot_product = tf.stop_gradient(student_step.dot_product)
    targets = tf.stop_gradient(tf.nn.softmax(teacher_logits))
    return dot_product * mean_cross_entropy(targets, teacher_logits)


def off(student_step, teacher_logits):
    """The control: a teacher that hears nothing from its student."""
    return tf.zeros([], teacher_logits.dtype)


ESTIMATORS = {
    "exact": exact,
    "reinforce": reinforce,
    "release": release,
    "off": off,
}

# The kinds of pseudo labels with which an estimator makes sense; the first is
# its default. `exact` needs labels that have a gradient, `reinforce` labels
# that are draws (or an argmax taken for one), `release` has soft ones.
_KINDS = {
    exact: ("soft",),
    reinforce: ("sampled", "hard"),
    release: ("soft",),
}


def resolve(feedback, pseudo_labels=None):
    """Looks up an estimator and the pseudo labels that go with it.

    Args:
      feedback: a name in `ESTIMATORS` or a function of their signature.
      pseudo_labels: one of `PSEUDO_LABELS`, or None for the estimator's own.

    Returns:
      The estimator and the kind of pseudo labels.

    Raises:
      ValueError: for an unknown name, or pseudo labels that the estimator
        cannot use.
    """
    if not callable(feedback) and feedback not in ESTIMATORS:
        raise ValueError(
            f"Unknown feedback {feedback!r}; use one of {tuple(ESTIMATORS)} or "
            "a function of their signature."
        )
    estimator = feedback if callable(feedback) else ESTIMATORS[feedback]
    kinds = _KINDS.get(estimator, PSEUDO_LABELS)
    if pseudo_labels is None:
        return estimator, kinds[0]
    if pseudo_labels not in kinds:
        raise ValueError(
            f"feedback={feedback!r} works with pseudo_labels in {kinds}; got "
            f"{pseudo_labels!r}."
        )
    return estimator, pseudo_labels


def draw_labels(logits, *, kind, seed):
    """The labels that the student will train on, from the teacher's logits.

    Args:
      logits: the teacher's, on the strong views, [unlabeled, classes].
      kind: "soft" (probabilities), "hard" (argmax) or "sampled".
      seed: two integers; fixes the samples (stateless).

    Returns:
      Probabilities, [unlabeled, classes]; one-hot unless soft.
    """
    if kind == "soft":
        return tf.nn.softmax(logits)
    if kind == "hard":
        indices = tf.argmax(logits, axis=-1)
    else:
        samples = tf.random.stateless_categorical(logits, 1, seed=seed)
        indices = tf.squeeze(samples, axis=-1)
    return tf.one_hot(indices, logits.shape[-1], dtype=logits.dtype)


class Baseline(keras.layers.Layer):
    """The moving average of the change in labeled loss (quirk 8).

    Args:
      decay: of the average, in [0, 1]; the release's is 0.99.
      dtype: float type of the average.

    Raises:
      ValueError: where decay is outside [0, 1].
    """

    def __init__(self, *, decay=0.99, dtype="float32"):
        check_range("baseline_decay", decay, low=0, high=1)
        super().__init__(name="feedback_baseline", dtype=dtype)
        self.decay = decay
        # The release starts at a random value, from U(-1.73, 1.73).
        self.average = self.add_weight(
            name="moving_dot_product",
            shape=(),
            dtype=dtype,
            initializer="zeros",
            trainable=False,
        )
        self.built = True

    def center(self, change):
        """Moves the average towards `change`, then subtracts it."""
        self.average.assign_sub((1.0 - self.decay) * (self.average - change))
        return change - self.average
