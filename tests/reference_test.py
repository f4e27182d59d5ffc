"""The learners against the release: its own runs, replayed step by step."""

import json

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels import models
from meta_pseudo_labels.learners import (
    UDA,
    MetaPseudoLabels,
    Supervised,
    UDASettings,
)
from meta_pseudo_labels.optimizers import Momentum
from meta_pseudo_labels.schedules import WaitWarmupDecay, scale_by_batch

# A float32 run may cross a kink of a leaky ReLU by rounding alone, and then
# drifts away (see the README of the reference): float64 is compared for all
# steps, float32 for the first.


class Trace:
    """One recorded run and the learner that repeats it."""

    def __init__(self, path, dtype):
        self.arrays = np.load(path, allow_pickle=False)
        self.hparams = json.loads(str(self.arrays["hparams_json"]))
        self.dtype = dtype
        self.learner = self._learner()
        self._load_initial_weights()

    def __getitem__(self, name):
        return self.arrays[name]

    def _learner(self):
        hparams = self.hparams
        settings = dict(
            label_smoothing=hparams["label_smoothing"],
            ema_decay=hparams["ema_decay"],
            ema_start=hparams["ema_start"],
        )
        uda = UDASettings(
            weight=hparams.get("uda_weight", 0.0),
            ramp_steps=hparams.get("uda_steps", 1),
            temperature=hparams.get("uda_temp", 1.0),
            threshold=hparams.get("uda_threshold", 0.0),
            num_train_steps=hparams["num_train_steps"],
        )
        optimizers = dict(
            weight_decay=hparams["weight_decay"],
            grad_bound=hparams["grad_bound"],
        )
        student = self._model("model")
        if hparams["method"] == "mpl":
            learner = MetaPseudoLabels(
                student,
                self._model("teacher"),
                feedback="release",
                update_teacher_moments=False,
                uda=uda,
                **settings,
            )
            learner.compile(
                self._optimizer("mpl_student_lr"),
                self._optimizer("mpl_teacher_lr"),
                **optimizers,
            )
            return learner
        if hparams["method"] == "uda":
            learner = UDA(student, uda=uda, **settings)
        else:
            learner = Supervised(student, **settings)
        learner.compile(self._optimizer("lr"), **optimizers)
        return learner

    def _model(self, name):
        return models.build(
            f"wrn-28-{self.hparams['wrn_k']}",
            input_shape=(16, 16, 3),
            num_classes=10,
            batch_norm_decay=self.hparams["batch_norm_decay"],
            batch_norm_epsilon=self.hparams["batch_norm_epsilon"],
            name=name,
            dtype=self.dtype,
        )

    def _optimizer(self, rate):
        hparams = self.hparams
        warmup = "num_warmup_steps" if rate == "lr" else f"{rate}_warmup_steps"
        schedule = WaitWarmupDecay(
            scale_by_batch(hparams[rate], hparams["train_batch_size"]),
            decay=hparams["lr_decay_type"],
            num_train_steps=hparams["num_train_steps"],
            warmup_steps=hparams[warmup],
            wait_steps=hparams.get(f"{rate}_wait_steps", 0),
            dtype=self.dtype,
        )
        return Momentum(schedule, momentum=0.9, nesterov=True)

    def variables(self):
        """Release name and variable, for all that the trace knows."""
        for model in self.networks():
            for layer in model.layers:
                for variable in layer.variables:
                    name = models.release_variable_name(
                        layer.name, variable.name
                    )
                    yield f"{model.name}/wrn-28-1/{name}", variable

    def all_variables(self):
        """As `variables`, with the student's averages under `ema/`."""
        students = list(self.learner.student.variables)
        names = {id(variable): name for name, variable in self.variables()}
        yield from self.variables()
        for variable, average in zip(
            students, self.learner.student_ema.averages, strict=True
        ):
            yield f"ema/{names[id(variable)]}", average
        if self.hparams["method"] == "mpl":
            yield "moving_dot_product", self.learner.baseline.average

    def networks(self):
        teacher = getattr(self.learner, "teacher", None)
        return [self.learner.student] + ([teacher] if teacher else [])

    def _load_initial_weights(self):
        for name, variable in self.variables():
            variable.assign(self[f"init/{name}"])
        average = self.learner.student_ema
        for variable in average.averages:
            constant = (
                1.0 if variable.name.endswith(("beta", "variance")) else 0.0
            )
            variable.assign(
                tf.fill(variable.shape, tf.cast(constant, variable.dtype))
            )
        if self.hparams["method"] == "mpl":
            self.learner.baseline.average.assign(
                self["init/moving_dot_product"]
            )

    def replay(self, steps=None):
        """Runs all steps or the first; the logs by name, each [steps]."""
        step = tf.function(self.learner.train_step)
        names = {"labeled": "l_images", "labels": "l_labels"}
        if self.hparams["method"] != "supervised":
            names |= {"weak": "u_images_ori", "strong": "u_images_aug"}
        rows = []
        for t in range(steps or self.hparams["steps"]):
            batch = {
                key: tf.constant(self[f"input/{name}"][t], self.dtype)
                for key, name in names.items()
            }
            rows.append({k: float(v) for k, v in step(batch).items()})
        return {k: np.array([row[k] for row in rows]) for k in rows[0]}


def _close(actual, desired, *, tolerance, name):
    """Relative to max(1, |desired|), as the reference measures it."""
    scale = np.maximum(1.0, np.abs(desired))
    error = np.max(np.abs(actual - desired) / scale)
    assert error <= tolerance, f"{name}: off by {error:.2e}"


def all_logs_agree(trace, logs, *, against, steps, tolerance):
    """Compares every scalar that the release logged, but for its counter."""
    names = [
        name.removeprefix(f"{against}/")
        for name in trace.arrays.files
        if name.startswith(f"{against}/") and not name.endswith("global_step")
    ]
    assert len(names) >= 5
    for name in names:
        _close(
            logs[name][:steps],
            trace[f"{against}/{name}"][:steps],
            tolerance=tolerance,
            name=name,
        )


@pytest.mark.parametrize(
    "name",
    ["supervised_wrn28_1", "uda_wrn28_1", "mpl_wrn28_1", "mpl_wrn28_1_mdp0"],
)
def test_float64_repeats_the_release_for_all_steps(reference_dir, name):
    trace = Trace(reference_dir / f"{name}.npz", "float64")
    logs = trace.replay()
    steps = trace.hparams["steps"]
    all_logs_agree(trace, logs, against="log64", steps=steps, tolerance=1e-6)
    for variable_name, variable in trace.all_variables():
        _close(
            variable.numpy(),
            trace[f"final/{variable_name}"],
            tolerance=1e-5,
            name=variable_name,
        )
    assert int(trace.learner.step) == steps


@pytest.mark.parametrize(
    "name", ["supervised_wrn28_1", "uda_wrn28_1", "mpl_wrn28_1"]
)
def test_float32_repeats_the_first_steps(reference_dir, name):
    trace = Trace(reference_dir / f"{name}.npz", "float32")
    all_logs_agree(
        trace, trace.replay(steps=3), against="log", steps=3, tolerance=1e-4
    )
