"""The probes of a diagnosis: steps that are taken, measured and undone.

Each is one compiled graph that ends by restoring everything it changed:
weights, moments of batch norm, optimizer slots, random states, moving averages.
"""

import dataclasses

import tensorflow as tf

from meta_pseudo_labels.learners import updates
from meta_pseudo_labels.learners.checks import checked_loss
from meta_pseudo_labels.learners.feedback import draw_labels
from meta_pseudo_labels.learners.losses import mean_cross_entropy
from meta_pseudo_labels.learners.passes import (
    forward,
    gradients_of,
    label_probabilities,
)
from meta_pseudo_labels.learners.student_step import take_student_step


@dataclasses.dataclass(frozen=True)
class Probe:
    """What a step on one draw of labels showed.

    Attributes:
      gradients: of each estimator by the teacher's weights, flat, [E, P].
      changes: what each used as the change of the judged loss, new - old: h
        with the opposite sign; the sum over images if it has one for each, [E].
      mean_changes: the same, but the mean over images, [E].
      held_out: the held-out losses after the step, see `Probes.held_out_loss`.
      other: gradient of the teacher's other losses, flat, [P].
    """

    gradients: tf.Tensor
    changes: tf.Tensor
    mean_changes: tf.Tensor
    held_out: tf.Tensor
    other: tf.Tensor


class Probes:
    """Steps of a learner that leave no trace.

    Args:
      learner: a compiled `MetaPseudoLabels`.
      held_out: images that no network learned from, as the student sees them,
        [images, ...], and their labels, [images] integers.
    """

    def __init__(self, learner, held_out):
        self.learner = learner
        images, labels = held_out
        self._images = tf.nest.map_structure(self._as_input, images)
        self._labels = tf.convert_to_tensor(labels)
        self._state = learner.variables + learner.optimizer.variables
        self._saved = [tf.identity(v.value) for v in self._state]
        self._random = [
            (variable, saved)
            for variable, saved in zip(self._state, self._saved, strict=True)
            if any(variable is v for v in learner.student.variables)
            and "float" not in variable.dtype
        ]
        self.respond = _compiled(self._respond)
        self.held_out_loss = _compiled(self._held_out_loss)
        self._compiled = {}

    def _as_input(self, images):
        images = tf.convert_to_tensor(images)
        wide = images.dtype.is_floating or images.dtype == tf.uint8
        return tf.cast(images, self.learner.float_type) if wide else images

    def restore(self):
        """Undoes whatever has happened since the probes were made."""
        for variable, value in zip(self._state, self._saved, strict=True):
            variable.assign(value)

    def probe(self, batch, *, kind, estimators, seed, baselines):
        """One step of the student, and what each estimator makes of it.

        Args:
          batch: see `MetaPseudoLabels`.
          kind: of the pseudo labels, "soft" or "sampled".
          estimators: functions, see learners/feedback.py.
          seed: [2] integers, of the draw.
          baselines: what each estimator subtracts from its change, [E].

        Returns:
          A `Probe`.
        """
        key = (kind, estimators)
        if key not in self._compiled:
            self._compiled[key] = _compiled(
                lambda *arguments: self._probe(kind, estimators, *arguments)
            )
        baselines = tf.cast(baselines, self.learner.float_type)
        return Probe(*self._compiled[key](batch, seed, baselines))

    def _probe(self, kind, estimators, batch, seed, baselines):
        learner = self.learner
        losses, listeners = [], []
        with tf.GradientTape(persistent=True) as tape:
            logits = learner.teacher_logits(batch)
            label_logits = learner.label_logits(logits)
            with tape.stop_recording():
                labels = draw_labels(label_logits, kind=kind, seed=seed)
                step, _ = take_student_step(
                    learner, batch, pseudo_labels=labels
                )
            for index, estimator in enumerate(estimators):
                listener = _Listener(step, baselines[index])
                losses.append(
                    checked_loss(
                        estimator,
                        listener.step,
                        label_logits,
                        tape,
                        learner=learner,
                    )
                )
                listeners.append(listener)
            other = learner.teacher_loss(batch, logits).loss
        held_out = self._held_out_loss()
        gradients = [self._gradient(tape, loss) for loss in losses]
        result = (
            tf.stack(gradients),
            tf.stack([listener.change for listener in listeners]),
            tf.stack([listener.mean_change for listener in listeners]),
            held_out,
            self._gradient(tape, other),
        )
        self.restore()
        return result

    def _respond(self, batch, direction):
        """How the student fares after its teacher has moved.

        It learns the moved teacher's soft labels, from its own old weights.

        Args:
          batch: see `MetaPseudoLabels`.
          direction: by how much each weight of the teacher moves, [P].

        Returns:
          The judged loss after the student's step, then the held-out losses as
          in `held_out_loss`, [3].
        """
        learner = self.learner
        weights = learner.teacher.trainable_variables
        parts = tf.split(direction, [tf.size(w.value) for w in weights])
        for weight, part in zip(weights, parts, strict=True):
            part = tf.reshape(part, weight.shape)
            weight.assign_add(tf.cast(part, weight.dtype))
        logits = learner.teacher_logits(batch)
        labels = tf.nn.softmax(learner.label_logits(logits))
        step, _ = take_student_step(learner, batch, pseudo_labels=labels)
        losses = [step.labeled_loss_new[tf.newaxis], self._held_out_loss()]
        self.restore()
        return tf.concat(losses, axis=0)

    def _held_out_loss(self):
        """Cross-entropy on the held-out images, nats, [2].

        First with the statistics of these very images in batch norm, as if its
        moving averages had caught up with the weights; then in inference mode,
        where they lag behind by a step. Dropout draws the same each time.
        """
        student = self.learner.student
        for variable, value in self._random:
            variable.assign(value)
        inference = student(self._images, training=False)
        training = forward(student, self._images, update_moments=False)
        losses = []
        for logits in (training, tf.cast(inference, training.dtype)):
            labels = label_probabilities(self._labels, logits)
            losses.append(mean_cross_entropy(labels, logits))
        return tf.stack(losses)

    def _gradient(self, tape, loss):
        parts = gradients_of(
            tape,
            loss,
            self.learner.teacher,
            scale=updates.loss_scale(self.learner.teacher_optimizer),
        )
        flat = [tf.reshape(part, [-1]) for part in parts]
        return tf.concat(
            [tf.cast(part, self.learner.float_type) for part in flat], axis=0
        )


class _Listener:
    """A student's step as one estimator sees it: with a baseline of its own.

    In training, a baseline follows the changes at the run's rate; here the rate
    may be different, and several estimators see the same step.
    """

    def __init__(self, step, baseline):
        self.change = step.labeled_loss_new - step.labeled_loss_old
        self.mean_change = self.change
        self._baseline = baseline
        self.step = dataclasses.replace(
            step, center=self._center, dot_product=self.change - baseline
        )

    def _center(self, change):
        self.change = tf.reduce_sum(change)
        self.mean_change = tf.reduce_mean(change)
        return change - self._baseline


def _compiled(function):
    # Nothing here needs AutoGraph, which makes tracing several times slower.
    return tf.function(function, autograph=False)
