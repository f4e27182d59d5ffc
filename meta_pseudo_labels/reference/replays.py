"""Replays of the release's recorded runs by our learners.

    logs = replay("mpl_wrn28_1.npz", dtype="float64")["log/mpl/dot_product"]

A trace is an .npz file with the inputs of every step, the initial variables,
the logged scalars and the final variables of a run of the release; its format
is described with the reference data (`input/`, `init/`, `log/`, `final/`,
`eval/` and `hparams_json`).
"""

import json
import os
import zipfile

import numpy as np
import tensorflow as tf

from meta_pseudo_labels.build import build_learner
from meta_pseudo_labels.config import Config
from meta_pseudo_labels.data import DatasetSpec
from meta_pseudo_labels.learners.passes import forward
from meta_pseudo_labels.reference.variables import (
    OVERWRITTEN,
    load_release_variables,
    network_variables,
    release_variables,
)

# What turns our defaults into the release: quirks 10 and 12.
AS_RELEASED = dict(mpl_feedback="release", mpl_update_teacher_moments=False)

_INPUTS = {
    "labeled": "l_images",
    "labels": "l_labels",
    "weak": "u_images_ori",
    "strong": "u_images_aug",
}


def replay(path, dtype="float32", *, free_running=False):
    """Runs a trace through our learners, step by step.

    Training in float32 is chaotic: where rounding moves one unit across the
    kink of its leaky ReLU, two runs part within a few steps, and how a sum is
    rounded depends on the processor and its number of threads. So a float32
    replay computes every step with the float32 learner, but starts
    each from where the float64 replay stands, rounded to float32: all that is
    compared is computed in float32, and nothing that the comparison is not
    about is amplified. `free_running` leaves that out.

    Args:
      path: of the trace.
      dtype: "float32" or "float64".
      free_running: whether a float32 replay goes on from its own steps.

    Returns:
      A dict of arrays under the names of the trace: `log/<name>` [steps],
      `final/<variable>` after the last step, `eval/initial_*` and
      `eval/final_*` [images, classes], logits of `eval/images`.

    Raises:
      ValueError: for a file that is no trace, or one that cannot be repeated:
        of an unknown method, or with dropout, whose draws it does not hold.
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be float32 or float64; got {dtype!r}.")
    trace = _read_trace(path)
    run = _Run(trace, dtype)
    guide = None if dtype == "float64" or free_running else run.twin("float64")
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

    def __init__(self, trace, dtype):
        self.trace, self.dtype = trace, dtype
        self.hparams = json.loads(str(trace["hparams_json"]))
        self.inputs = {
            key: trace[f"input/{name}"]
            for key, name in _INPUTS.items()
            if f"input/{name}" in trace
        }
        self.num_steps = len(self.inputs["labeled"])
        self.learner = self._build()
        self._initialize()
        self.train_step = tf.function(self.learner.train_step)
        self.logits = tf.function(self._logits, reduce_retracing=True)

    def twin(self, dtype):
        """The same run in another dtype."""
        return _Run(self.trace, dtype)

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
        """Takes over the state of the same run in another dtype."""
        mine, others = self._release_variables(), other._release_variables()
        for name, variable in mine.items():
            variable.assign(others[name].numpy().astype(variable.dtype))
        self.learner.set_step(other.learner.step)

    def evaluate(self, when):
        """Logits of `eval/images` of all networks, in both modes."""
        if "eval/images" not in self.trace:
            return {}
        images = tf.constant(self.trace["eval/images"], self.dtype)
        logits = {
            f"{name}_{mode}": self.logits(images, name=name, mode=mode)
            for name in self.networks
            for mode in ("infer", "train")
        }
        if when == "final":
            logits["ema_infer"] = self.learner(images)
        return {
            f"eval/{when}_{name}": value.numpy()
            for name, value in logits.items()
        }

    def _logits(self, images, *, name, mode):
        network = self.networks[name]
        if mode == "infer":
            return network(images, training=False)
        return forward(network, images, update_moments=False)

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
        names = [n for n in self.trace if n.startswith("init/model/")]
        return "/".join(names[0].split("/")[1:3])

    def _release_variables(self):
        scope = self._scope.removeprefix("model/")
        return release_variables(self.learner, scope=scope)

    def _build(self):
        hparams = self.hparams
        known = Config.__dataclass_fields__
        config = Config(
            **{k: v for k, v in hparams.items() if k in known}
            | AS_RELEASED
            | dict(model_type=_model_type(hparams), num_classes=None)
        )
        images = self.inputs["labeled"]
        spec = DatasetSpec(
            name="trace",
            num_classes=hparams["num_classes"],
            image_size=images.shape[2],
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            flip=False,
        )
        return build_learner(config, spec, dtype=self.dtype)

    def _initialize(self):
        start = "init/"
        load_release_variables(
            self.learner,
            {
                name[len(start) :]: self.trace[name]
                for name in self.trace
                if name.startswith(start)
            },
        )
        if self.learner.student_ema is not None:
            self.learner.student_ema.reset_as_release()


def _read_trace(path):
    """The arrays of a trace, a dict."""
    path = os.fspath(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            trace = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no trace: {error}") from error
    for name in ("hparams_json", "input/l_images", "input/l_labels"):
        if name not in trace:
            raise ValueError(f"{path} is no trace of the release: no {name}.")
    hparams = json.loads(str(trace["hparams_json"]))
    for name in ("dense_dropout_rate", "stochastic_depth_drop_rate"):
        if hparams.get(name):
            raise ValueError(
                f"{path} has {name}={hparams[name]}, whose random draws a "
                "trace does not hold; it cannot be repeated."
            )
    return trace


def _model_type(hparams):
    """Our name of a trace's network; "wrn-28-1 (k=1)" is one of theirs."""
    name = hparams["model_type"].split()[0]
    return "wrn-28-large" if name == "wrn-28-135" else name
