"""Measures what each estimator tells the teacher, batch by batch."""

import numpy as np
import tensorflow as tf
from absl import logging

from meta_pseudo_labels.data.streams import keyed
from meta_pseudo_labels.evaluation.diagnosis.probes import Probes
from meta_pseudo_labels.evaluation.diagnosis.summary import summarize
from meta_pseudo_labels.evaluation.diagnosis.sums import (
    NEGLIGIBLE,
    GradientSums,
)
from meta_pseudo_labels.learners.feedback import ESTIMATORS, resolve
from meta_pseudo_labels.learners.mpl import MetaPseudoLabels
from meta_pseudo_labels.optimizers import check_differentiable
from meta_pseudo_labels.utils.compat import at_rate

RANDOM = "random direction"  # The control beside the estimators' directions.

# Streams of the learner's seed, apart from those of the data (keyed.py).
_LABELS, _DIRECTIONS = 100, 101

_DIVERGED = "The run has diverged; diagnose an earlier checkpoint or another."
_TOO_FAST = (
    "Use a lower learning_rate (--diagnose_lr on the command line); if that "
    "does not help, the run has diverged."
)


def diagnose(
    learner,
    batches,
    *,
    held_out,
    draws=16,
    learning_rate=None,
    start_step=0,
    teacher_step=1e-3,
    estimators=ESTIMATORS,
):
    """What the feedback of a learner is worth, at its present weights.

    On each batch the student takes a step on soft labels, for the estimators
    that use these, and one on each of several draws; all from the same weights.
    Nothing trains: in the end the learner is as before.

    Args:
      learner: a compiled `MetaPseudoLabels`.
      batches: what it trains on, a data set of two or more batches that can be
        iterated twice.
      held_out: images that no network learned from, as the student sees them,
        [images, ...], and their labels, [images] integers.
      draws: of labels for each batch, at least 2.
      learning_rate: of the student's steps here, above 0; by default the
        current one of its optimizer.
      start_step: the step of the first batch; keys the draws.
      teacher_step: how far the teacher moves in the last experiment, as a share
        of the norm of its weights.
      estimators: name -> function, see learners/feedback.py; with "exact". One
        of your own gets soft labels; the pair (function, "sampled") gets draws.
        Its noise is measured as that of an estimate of exact's gradient, or of
        1 / (unlabeled images) of it if it is registered with mean=True. By
        default, all that are registered, but for those for hard labels.

    Returns:
      A dict for JSON. "settings"; "estimators" and "teacher_steps", by name,
      see `summary.summarize`; "batches", what was measured on each.

    Raises:
      ValueError: for settings out of range, a learner that makes pseudo labels
        in a way of its own, a student that does not learn, an
        optimizer whose update cannot be differentiated, or values that are
        not finite, on the first batch that shows them.
    """
    if draws < 2:
        raise ValueError(f"draws must be at least 2; got {draws}.")
    own = MetaPseudoLabels.draw_pseudo_labels
    if type(learner).draw_pseudo_labels is not own:
        raise ValueError(
            f"{type(learner).__name__} makes pseudo labels in a way of its "
            "own (draw_pseudo_labels), but a diagnosis measures soft and drawn "
            "ones: it would be of labels that the student never sees."
        )
    if estimators is ESTIMATORS:
        estimators = _measurable(estimators)
    if "exact" not in estimators:
        raise ValueError(
            'estimators needs "exact", which the others are compared with; '
            f"got {tuple(estimators)}."
        )
    asked_by = "The feedback of exact (part of every diagnosis)"
    check_differentiable(learner.optimizer, asked_by)
    with at_rate(learner.optimizer, learning_rate):
        rate = _checked_rate(learner.optimizer)
        probes = Probes(learner, held_out)
        try:
            before = probes.held_out_loss().numpy()
            _check_finite([before], "before any step", _DIVERGED)
            measuring = _Measuring(probes, estimators, draws, teacher_step)
            rows = measuring.measure_all(batches, start_step)
        finally:
            probes.restore()
    settings = {
        "learning_rate": rate,
        "start_step": start_step,
        "draws": draws,
        "held_out_images": len(held_out[1]),
        "held_out_loss": float(before[0]),
        "held_out_loss_inference": float(before[1]),
        "feedback_weight": learner.feedback_weight,
        "feedback_every": learner.feedback_every,
        "teacher_step": teacher_step,
    }
    return summarize(settings, rows, means=measuring.means)


def _measurable(estimators):
    """Those whose labels can be drawn; a line tells of any others."""
    hard = [n for n, one in estimators.items() if resolve(one)[1] == "hard"]
    if hard:
        logging.warning(
            "Not diagnosed, as hard labels are not drawn: %s.", ", ".join(hard)
        )
    return {name: estimators[name] for name in estimators if name not in hard}


class _Measuring:
    """The probes of a diagnosis, and the numbers that they give."""

    def __init__(self, probes, estimators, draws, teacher_step):
        self.probes = probes
        self.learner = probes.learner
        self.draws = draws
        self.teacher_step = teacher_step
        self.functions, kinds = {}, {}
        for name, given in estimators.items():
            how = given if isinstance(given, tuple) else (given,)
            self.functions[name], kinds[name] = resolve(*how)
            if kinds[name] == "hard":
                raise ValueError(
                    f"estimators[{name!r}] asks for hard labels, which are "
                    'not drawn; use "soft" or "sampled".'
                )
        self.means = [
            name
            for name, function in self.functions.items()
            if getattr(function, "mean", False) is True
        ]
        self.soft = [name for name, kind in kinds.items() if kind == "soft"]
        self.drawn = [name for name in kinds if name not in self.soft]
        self.order = list(estimators)
        self.baselines = np.zeros(len(self.drawn))

    def measure_all(self, batches, start_step):
        """Sets the baselines, then measures each batch: a list of dicts."""
        self.set_baselines(batches, start_step)
        rows = [
            self.measure(batch, step)
            for step, batch in enumerate(batches, start_step)
        ]
        if not rows:
            raise ValueError(
                "batches is empty, or can be iterated only once; give a "
                "tf.data.Dataset or a list of batches."
            )
        return rows

    def set_baselines(self, batches, start_step):
        """The mean change, from one draw per batch that is not measured.

        What the moving average would be if the run had gone on at this rate.
        """
        if not self.drawn:
            return
        changes = [
            self._draw(batch, step, 0).mean_changes.numpy()
            for step, batch in enumerate(batches, start_step)
        ]
        if changes:
            self.baselines = np.mean(changes, axis=0)

    def measure(self, batch, step):
        """One batch, as a dict for JSON."""
        soft = self._probe(batch, self.soft, "soft", self._key(step, 0))
        other = np.linalg.norm(_wide(soft.other))
        gradients = dict(zip(self.soft, _wide(soft.gradients), strict=True))
        exact = gradients["exact"]
        weight = self.learner.feedback_weight
        sums = {
            name: GradientSums(exact, other / weight if weight else np.inf)
            for name in self.order
        }
        for name, gradient in gradients.items():
            sums[name].add(gradient)
        held_out = self._add_draws(sums, batch, step)
        directions = {name: part.mean for name, part in sums.items()}
        for name in self.drawn:
            directions[f"{name}, one draw"] = sums[name].first
        return {
            "step": step,
            "unlabeled": int(tf.nest.flatten(batch["strong"])[0].shape[0]),
            "exact_squared_norm": float(exact @ exact),
            "other_norm": float(other),
            "held_out_losses": held_out,
            "estimators": {name: sums[name].numbers() for name in self.order},
            "teacher_steps": self._teacher_steps(
                batch, step, exact, NEGLIGIBLE * other, directions
            ),
        }

    def _add_draws(self, sums, batch, step):
        """Adds what the draws show; returns the held-out losses, [draws][2]."""
        held_out = []
        for draw in range(1, self.draws + 1) if self.drawn else ():
            probe = self._draw(batch, step, draw)
            for name, gradient, change in zip(
                self.drawn,
                _wide(probe.gradients),
                probe.changes.numpy().tolist(),
                strict=True,
            ):
                sums[name].add(gradient, h=-change)
            held_out.append(probe.held_out.numpy().tolist())
        return held_out

    def _teacher_steps(self, batch, step, exact, negligible, directions):
        """What the student gains when the teacher moves, by direction."""
        weights = self.learner.teacher.trainable_variables
        values = [tf.cast(w.value, self.learner.float_type) for w in weights]
        norm = float(tf.linalg.global_norm(values))
        length = self.teacher_step * norm
        random = tf.random.stateless_normal(
            exact.shape, keyed.key(self.learner.seed, _DIRECTIONS, step)
        )
        stay = self._respond(batch, np.zeros_like(exact))
        found = {}
        for name, gradient in (directions | {RANDOM: _wide(random)}).items():
            norm = np.linalg.norm(gradient)
            if name != RANDOM and norm <= negligible:
                continue  # No direction: it would be rounding error.
            move = -length / norm * gradient
            change = self._respond(batch, move) - stay
            found[name] = {
                "predicted": float(move @ exact),
                "measured": float(change[0]),
                "held_out": float(change[1]),
                "held_out_inference": float(change[2]),
            }
        return found

    def _respond(self, batch, move):
        move = tf.constant(move, self.learner.float_type)
        found = _wide(self.probes.respond(batch, move))
        _check_finite([found], "after a step", _TOO_FAST)
        return found

    def _draw(self, batch, step, draw):
        key = self._key(step, draw)
        return self._probe(batch, self.drawn, "sampled", key)

    def _probe(self, batch, names, kind, seed):
        self.learner.check_batch(batch)
        baselines = np.zeros(len(names)) if kind == "soft" else self.baselines
        found = self.probes.probe(
            batch,
            kind=kind,
            estimators=tuple(self.functions[name] for name in names),
            seed=seed,
            baselines=baselines,
        )
        _check_finite(vars(found).values(), "after a step", _TOO_FAST)
        return found

    def _key(self, step, draw):
        return keyed.key(self.learner.seed, _LABELS, step, draw)


def _wide(tensor):
    """A tensor as a float64 array, for sums that cancel."""
    return np.asarray(tensor).astype(np.float64)


def _check_finite(tensors, when, advice):
    """Raises ValueError for inf or nan, before hours are spent on them."""
    if not all(np.isfinite(tensor).all() for tensor in tensors):
        raise ValueError(
            f"The student's losses or the teacher's gradients are not finite "
            f"{when}. {advice}"
        )


def _checked_rate(optimizer):
    rate = float(optimizer.learning_rate)
    if not rate > 0:
        raise ValueError(
            f"The student's learning rate is {rate:g}: it does not learn, and "
            "every feedback is 0. Set learning_rate (--diagnose_lr on the "
            "command line)."
        )
    return rate
