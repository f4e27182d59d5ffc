"""The student's feedback to the teacher: one small function per estimator.

An estimator says how the teacher should change the pseudo labels it gave, now
that the student has learned from them. All have the same signature

    @estimator(labels=("soft",))
    def mine(student_step, teacher_logits): ...

and return a scalar loss whose gradient with respect to the teacher is the
feedback. Under a strategy the mean over the replicas counts, so a sum over
images must be a `replicas.global_sum`.
"""

import functools

import keras
import tensorflow as tf

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.learners.checks import check_estimator, check_range
from meta_pseudo_labels.learners.estimator_code import reached
from meta_pseudo_labels.learners.losses import (
    TINY,
    mean_cross_entropy,
    soft_cross_entropy,
)
from meta_pseudo_labels.utils.registry import Registry, place
from meta_pseudo_labels.utils.settings import ConfigError

PSEUDO_LABELS = ("soft", "hard", "sampled")
_DRAWN = ("sampled", "hard")  # Draws, or an argmax that is treated as one.

ESTIMATORS = Registry("feedback", package="meta_pseudo_labels.learners")


def estimator(
    bare=None, /, *, labels=PSEUDO_LABELS, differentiates=False, mean=False
):
    """A decorator that registers an estimator by the name of its function.

    Args:
      labels: kinds of pseudo labels that it works with; the first is its
        default.
      differentiates: whether it asks how the student's new weights depend on
        its gradient, which is known only for some optimizers
        (optimizers/pullback.py).
      mean: whether its loss is a mean over the unlabeled images, as in the
        paper, rather than a sum. A diagnosis then multiplies by their number
        before it compares the noise with that of other estimators.

    Raises:
      ConfigError: for other kinds, for a mean that is not a bool, and if the
        decorated object is not a function of (student_step, teacher_logits)
        with a name.
    """
    if bare is not None:
        raise ConfigError(
            "Write @estimator(labels=...) or @estimator(), with parentheses; "
            f"got @estimator of {bare!r}."
        )
    is_sequence = isinstance(labels, list | tuple)
    if not (is_sequence and labels and all(k in PSEUDO_LABELS for k in labels)):
        raise ConfigError(
            f"estimator(labels=...) must be a tuple of some of {PSEUDO_LABELS},"
            f" the default first; got {labels!r}."
        )

    if not isinstance(mean, bool):
        raise ConfigError(
            "estimator(mean=...) says whether the loss is a mean over the "
            f"unlabeled images, True or False; got {mean!r}."
        )

    def add(function):
        check_estimator(function)
        try:
            register = ESTIMATORS.register(function.__name__)
            function.labels = tuple(labels)
            function.differentiates = differentiates
            function.mean = mean
        except AttributeError as error:
            raise ConfigError(
                f"@estimator takes a def, which has a name; got {function!r}."
            ) from error
        return register(function)

    return add


@estimator(labels=("soft",), differentiates=True)
def exact(student_step, teacher_logits):
    """The gradient of the new labeled loss, through the student's update.

    With soft labels everything is differentiable: nothing is drawn, and what
    batch norm adds to new - old plays no part (docs/feedback.md).
    """
    gradient = tf.stop_gradient(student_step.label_gradient())
    return replicas.global_sum(gradient * tf.nn.softmax(teacher_logits))


@estimator(labels=_DRAWN, mean=True)
def reinforce(student_step, teacher_logits):
    """REINFORCE on the labels that the student used (paper, section 2).

    The teacher's gradient is h times that of its mean cross-entropy on those
    labels, with h = old - new less a moving average: labels that helped gain
    probability. The mean over the batch, rather than the sum, is the paper's;
    it scales the unbiased gradient by 1 / (number of unlabeled images).
    """
    return _reinforced(student_step, teacher_logits, student_step.dot_product)


@estimator(labels=_DRAWN, differentiates=True, mean=True)
def reinforce_dot_product(student_step, teacher_logits):
    """REINFORCE with h from both gradients (paper, algorithm 1).

    h is the product of the student's gradient on the pseudo labels and its
    gradient on the labels at the new weights. To first order this is old - new,
    without what batch norm adds to that difference. It ignores clipping of the
    gradient, and weight decay by the optimizer itself.
    """
    change = student_step.center(student_step.first_order_change())
    return _reinforced(student_step, teacher_logits, change)


@estimator(labels=_DRAWN, mean=True)
def reinforce_cosine(student_step, teacher_logits):
    """REINFORCE with h the cosine of both gradients (paper).

    h is in [-1, 1] whatever the learning rate and the size of the gradients.
    """
    step, new = (_flatten(part) for part in student_step.gradients())
    norms = tf.norm(step) * tf.norm(new)
    cosine = tf.math.divide_no_nan(tf.tensordot(step, new, 1), norms)
    change = student_step.center(-cosine)
    return _reinforced(student_step, teacher_logits, change)


@estimator(labels=_DRAWN, differentiates=True)
def reinforce_per_example(student_step, teacher_logits):
    """REINFORCE with an h_i for each unlabeled image, from its label alone.

    h_i is the part of the first-order gain that is due to the label of image i.
    The sum of all h_i is the gain of `reinforce_dot_product`, except for what
    is not due to the labels, such as label smoothing's part. Cross-entropies
    are summed too, so this is the unbiased gradient (to first order), with far
    less variance than one h for all. If the update normalizes its gradient
    (clipping, LARS, RMSProp, Adam), a label also moves the other images' parts,
    and both hold up to a share that falls with the number of images.
    """
    changes = tf.reduce_sum(
        student_step.pseudo_labels * student_step.label_gradient(), axis=-1
    )
    gains = -tf.stop_gradient(student_step.center(changes))
    losses = soft_cross_entropy(
        targets=student_step.pseudo_labels, logits=teacher_logits
    )
    return replicas.global_sum(gains * losses)


@estimator(labels=("soft",), mean=True)
def release(student_step, teacher_logits):
    """As published (release `MPL.step_fn`, quirks 7 to 10): no feedback at all.

    The sign is reversed, h = new - old, and the cross-entropy compares the
    teacher's probabilities, held fixed, with its own logits; its gradient is
    softmax - softmax = 0. The loss has a value, but it steers nothing.
    """
    dot_product = tf.stop_gradient(student_step.dot_product)
    targets = tf.stop_gradient(tf.nn.softmax(teacher_logits))
    return dot_product * mean_cross_entropy(targets, teacher_logits)


@estimator()
def off(student_step, teacher_logits):
    """The control: a teacher that hears nothing from its student."""
    return tf.zeros([], teacher_logits.dtype)


def _reinforced(student_step, teacher_logits, change):
    """-change times the mean cross-entropy of the labels that were used."""
    gain = -tf.stop_gradient(change)
    return gain * mean_cross_entropy(student_step.pseudo_labels, teacher_logits)


def _flatten(gradients):
    return tf.concat([tf.reshape(g, [-1]) for g in gradients], axis=0)


def resolve(feedback, pseudo_labels=None):
    """Looks up an estimator and the pseudo labels that go with it.

    Args:
      feedback: a name in `ESTIMATORS` or a function of their signature.
      pseudo_labels: one of `PSEUDO_LABELS`, or None for the estimator's own.

    Returns:
      The estimator and the kind of pseudo labels.

    Raises:
      ValueError: for an unknown name, something that is not an estimator, or
        pseudo labels that it, or an estimator that it uses, cannot use.
    """
    named = isinstance(feedback, str) or feedback is None
    function = ESTIMATORS[feedback] if named else feedback
    check_estimator(function)
    kinds = _kinds(function)
    if pseudo_labels is None:
        return function, kinds[0]
    if pseudo_labels not in kinds:
        raise ValueError(
            f"feedback={feedback!r} works with pseudo_labels in {kinds}; got "
            f"{pseudo_labels!r}."
        )
    return function, pseudo_labels


def saved_name(function):
    """The name of an estimator in the file of a learner.

    `resolve` finds the same one by it, or refuses it: a function of the user's
    may be called like another one that is registered.
    """
    name = getattr(function, "__name__", str(function))
    known = ESTIMATORS.get(name)  # A notebook may have defined it again.
    found = known is not None and place(known) == place(function)
    return name if found else f"{name} (not registered)"


def _kinds(function):
    """The pseudo labels that an estimator works with, its default first.

    Those that it declares itself; else those that suit all estimators that its
    code uses: with soft labels, the gradient of `reinforce` is 0.
    """
    bare = function
    while isinstance(bare, functools.partial) and not hasattr(bare, "labels"):
        bare = bare.func
    own = getattr(bare, "labels", None)
    if isinstance(own, list | tuple):
        return tuple(own)
    there = {id(found) for found, _ in reached(function)}
    used = [x for x in ESTIMATORS.values() if id(x) in there]
    common = [k for k in PSEUDO_LABELS if all(k in x.labels for x in used)]
    if not common:
        each = "; ".join(f"{x.__name__} {' or '.join(x.labels)}" for x in used)
        raise ValueError(
            f"feedback={function!r} uses estimators without a kind of pseudo "
            f"labels in common: {each}. If it is right as it is, declare its "
            "own, with @estimator(labels=...)."
        )
    # The default of those that it uses.
    first = [k for x in used for k in x.labels if k in common]
    return tuple(dict.fromkeys([*first, *common]))


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
        # The Gumbel trick, with draws that do not depend on the replicas.
        rows = logits.shape[0] or tf.shape(logits)[0]
        draws = replicas.uniform(seed, rows=rows, width=logits.shape[-1])
        draws = tf.cast(tf.maximum(draws, TINY), logits.dtype)
        indices = tf.argmax(logits - tf.math.log(-tf.math.log(draws)), axis=-1)
    return tf.one_hot(indices, logits.shape[-1], dtype=logits.dtype)


class Baseline(keras.layers.Layer):
    """The moving average of the change in labeled loss (quirk 8).

    It ignores a change that is not finite, and one of a student that did not
    move: `counts`, below, is a scalar boolean.

    Args:
      decay: of the average, in (0, 1]; the release's is 0.99. 1 keeps the first
        value forever.
      start: its first value. The release draws it from U(-1.73, 1.73).
      dtype: float type of the average.
      name: of the layer.

    Raises:
      ValueError: if decay is outside (0, 1].
    """

    def __init__(self, *, decay=0.99, start=0.0, dtype="float32", name=None):
        check_range("baseline_decay", decay, low=0, high=1)
        if decay == 0:
            raise ValueError(
                "baseline_decay must be above 0; got 0, with which the average "
                "is the change itself, and subtracting it leaves 0."
            )
        super().__init__(name=name, dtype=dtype)
        self.decay = decay
        self.start = start
        self.average = self.add_weight(
            name="moving_dot_product",
            shape=(),
            dtype=dtype,
            initializer=keras.initializers.Constant(start),
            trainable=False,
            aggregation="only_first_replica",
        )
        self.built = True

    def center(self, change, *, counts=True):
        """Moves the average towards `change`, then subtracts it (quirk 8).

        The result is `decay` times (the change less the earlier average).
        """
        self._move(change, counts)
        return change - self.average

    def subtract(self, change, *, counts=True):
        """Subtracts the average of earlier changes, then moves it.

        So the average does not depend on these labels, and leaves the
        expectation of the feedback unchanged.

        Args:
          change: scalar or [unlabeled]; its mean is what is averaged.
          counts: see `Baseline`.
        """
        centered = change - tf.convert_to_tensor(self.average)
        self._move(replicas.mean(tf.reduce_mean(change)), counts)
        return centered

    def _move(self, change, counts):
        distance = (1.0 - self.decay) * (self.average - change)
        counts = tf.math.is_finite(change) & counts
        self.average.assign_sub(
            tf.where(counts, distance, tf.zeros_like(distance))
        )
