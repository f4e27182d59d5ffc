"""Replays of the release's recorded runs by our learners.

    logs = replay("mpl_wrn28_1.npz", dtype="float64")["log/mpl/dot_product"]

A trace is an .npz file with the inputs of every step, the initial variables,
the logged scalars and the final variables of a run of the release; its format
is described with the reference data (`input/`, `init/`, `log/`, `final/`,
`eval/` and `hparams_json`).
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.data import DatasetSpec
from meta_pseudo_labels.learners.build import build_learner
from meta_pseudo_labels.learners.passes import forward
from meta_pseudo_labels.learners.settings import learner_settings
from meta_pseudo_labels.release.traces import INPUTS, read_trace
from meta_pseudo_labels.release.variables import (
    OVERWRITTEN,
    load_release_variables,
    network_variables,
    release_variables,
)

# What turns our defaults into the release's: quirks 10 and 12.
AS_RELEASED = dict(mpl_feedback="release", mpl_update_teacher_moments=False)

# Data sets whose name has one of these words have small images (quirk 25).
_SMALL_IMAGES = ("cifar", "tinyimages", "svhn")


def replay(path, dtype="float32", *, free_running=False):
    """Runs a trace through our learners, step by step.

    Training in float32 is chaotic: if rounding moves one unit across the kink
    of its leaky ReLU, two runs diverge within a few steps, and how a sum is
    rounded depends on the processor and its number of threads. So a float32
    replay computes every step with the float32 learner, but starts each step
    from the state of the float64 replay, rounded to float32: everything that is
    compared is computed in float32, and nothing that the comparison is not
    about is amplified. `free_running` turns this off.

    Args:
      path: of the trace.
      dtype: "float32" or "float64".
      free_running: whether a float32 replay continues from its own steps.

    Returns:
      A dict of arrays under the names of the trace: `log/<name>` [steps],
      `final/<variable>` after the last step, `eval/initial_*` and
      `eval/final_*` [images, classes], logits of `eval/images`.

    Raises:
      ValueError: for a file that is not a trace, or a trace that cannot be
        repeated: one of an unknown method, or with dropout, whose draws it does
        not hold.
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be float32 or float64; got {dtype!r}.")
    arrays, hparams = read_trace(path)
    try:
        run = _Run(arrays, hparams, dtype)
    except ValueError as error:
        raise ValueError(f"{path} cannot be repeated: {error}") from error
    guide = None
    if dtype == "float32" and not free_running:
        guide = _Run(arrays, hparams, "float64")
    results = run.evaluate("initial")
    logs = []
    for step in range(run.num_steps):
        if guide is not None:
            run.copy_state(guide)
            guide.train(step)
        logs.append(run.train(step))
    for name in logs[0]:
        results[f"log/{name}"] = np.stack([log[name] for log in logs])
    return results | run.final_variables(logs[-1]) | run.evaluate("final")


class _Run:
    """A trace, and the learner that repeats it in one dtype."""

    def __init__(self, arrays, hparams, dtype):
        self.arrays, self.hparams, self.dtype = arrays, hparams, dtype
        self.inputs = {
            key: arrays[name] for key, name in INPUTS.items() if name in arrays
        }
        self.num_steps = len(self.inputs["labeled"])
        self.learner = self._build()
        self._initialize()
        self.train_step = tf.function(self.learner.train_step, autograph=False)

    @property
    def networks(self):
        networks = {"student": self.learner.student}
        if hasattr(self.learner, "teacher"):
            networks["teacher"] = self.learner.teacher
        return networks

    def train(self, step):
        """One step; its scalars by the release's names."""
        batch = {
            key: tf.constant(rows[step], self.dtype)
            for key, rows in self.inputs.items()
        }
        logs = {k: v.numpy() for k, v in self.train_step(batch).items()}
        count = np.asarray(self.learner.step.numpy(), self.dtype)
        return logs | {"global_step": count}

    def copy_state(self, other):
        """Copies the state of the same run in another dtype."""
        mine, others = self._release_variables(), other._release_variables()
        for name, variable in mine.items():
            variable.assign(others[name].numpy().astype(variable.dtype))
        self.learner.set_step(other.learner.step)

    def evaluate(self, when):
        """Logits of `eval/images` of all networks, in both modes."""
        if "eval/images" not in self.arrays:
            return {}
        images = tf.constant(self.arrays["eval/images"], self.dtype)
        logits = {}
        for name, network in self.networks.items():
            logits[f"{name}_infer"] = network(images, training=False)
            train = tf.function(
                functools.partial(forward, network, update_moments=False),
                autograph=False,
            )
            logits[f"{name}_train"] = train(images)
        if when == "final":
            logits["ema_infer"] = self.learner(images)
        return {
            f"eval/{when}_{name}": value.numpy()
            for name, value in logits.items()
        }

    def final_variables(self, last_logs):
        """All variables as `final/<release name>`."""
        variables = {
            name: variable.numpy()
            for name, variable in self._release_variables().items()
        }
        if self.learner.student_ema is None:  # Then the release has copies.
            student = network_variables(self.learner.student, self._scope)
            for name, variable in student.items():
                variables[f"ema/{name}"] = variable.numpy()
        if hasattr(self.learner, "teacher"):
            variables[OVERWRITTEN] = last_logs["cross_entropy/student_on_l_old"]
        return {f"final/{name}": value for name, value in variables.items()}

    @property
    def _scope(self):
        names = [n for n in self.arrays if n.startswith("init/model/")]
        return "/".join(names[0].split("/")[1:3])

    def _release_variables(self):
        scope = self._scope.removeprefix("model/")
        return release_variables(self.learner, scope=scope)

    def _build(self):
        hparams = self.hparams
        spec = DatasetSpec(
            name="trace",
            num_classes=hparams["num_classes"],
            image_size=self.inputs["labeled"].shape[2],
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            flip=False,
            small_images=any(
                word in hparams.get("dataset_name", "").lower()
                for word in _SMALL_IMAGES
            ),
        )
        return build_learner(_settings(hparams), spec, dtype=self.dtype)

    def _initialize(self):
        start = "init/"
        report = load_release_variables(
            self.learner,
            {
                name[len(start) :]: self.arrays[name]
                for name in self.arrays
                if name.startswith(start)
            },
        )
        weights = set()
        for root, network in zip(
            ("model", "teacher"), self.networks.values(), strict=False
        ):
            scope = self._scope.replace("model", root, 1)
            weights |= set(network_variables(network, scope))
        lacking = sorted(weights.intersection(report.missing))
        if lacking or report.left_over:
            raise ValueError(
                f"of its initial variables {lacking[:3]} are missing and "
                f"{list(report.left_over[:3])} are not used."
            )
        if self.learner.student_ema is not None:
            self.learner.student_ema.reset_as_release()


def _settings(hparams):
    """The settings of a trace's learner, as released."""
    known = {field.name for field in dataclasses.fields(learner_settings())}
    settings = {
        name: value
        for name, value in hparams.items()
        if name in known and value is not None
    }
    settings |= AS_RELEASED | dict(model_type=_model_type(hparams))
    if "optim_type" in settings:
        settings["optim_type"] = settings["optim_type"].lower()
    if hparams["method"] == "supervised" and (
        "noisy_student" in hparams.get("dataset_name", "").lower()
    ):
        settings["label_smoothing"] = 0.0  # Its labels are soft already.
    return learner_settings(**settings)


def _model_type(hparams):
    """Our name for a trace's network; "wrn-28-1 (k=1)" is one of theirs."""
    name = hparams["model_type"].split()[0]
    return "wrn-28-large" if name == "wrn-28-135" else name
