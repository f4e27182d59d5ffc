"""Nothing is silently wrong: a step is right in float64, or refused in a line.

A table of networks, optimizers and settings, each with one learner; what a step
should do is computed here, in float64, with nothing of the learners'.
"""

import itertools
import math
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import (
    UDA,
    MetaPseudoLabels,
    PseudoLabels,
    Supervised,
    UDASettings,
)
from meta_pseudo_labels.learners.fixmatch import FixMatch
from meta_pseudo_labels.optimizers import Momentum

CLASSES, RATE, STEP = 3, 0.5, 5
kinds, ops, optimizers = keras.layers, keras.ops, keras.optimizers


def dense(units=CLASSES, activation=None, **settings):
    return kinds.Dense(units, activation, **settings)


PENALTY = keras.regularizers.L2(0.1)
HIDDEN = {
    "tanh": lambda **p: [dense(4, "tanh", **p)],
    "batch norm": lambda **p: [
        dense(4, **p),
        kinds.BatchNormalization(**p),
        kinds.Activation("tanh", **p),
    ],
    "layer norm": lambda **p: [
        dense(4, "tanh", **p),
        kinds.LayerNormalization(**p),
    ],
    "weights' loss": lambda **p: [
        dense(4, "tanh", kernel_regularizer=PENALTY, **p)
    ],
    "activity's loss": lambda **p: [
        dense(4, "tanh", activity_regularizer=PENALTY, **p)
    ],
    "convolution": lambda **p: [
        kinds.Reshape((4, 1), **p),
        kinds.Conv1D(2, 3, activation="tanh", **p),
        kinds.Flatten(**p),
    ],
}
LOGITS = {
    "dense": lambda x, **p: dense(**p)(x),
    "gated": lambda x, **p: dense(**p)(x) * dense(3, "sigmoid", **p)(x),
    "swish": lambda x, **p: dense(activation="silu", **p)(x),
    "log softmax": lambda x, **p: ops.log_softmax(dense(**p)(x)),
    "attention": lambda x, **p: dense(**p)(
        kinds.Multiply(**p)([x, kinds.Softmax(**p)(x)])
    ),
    "identity": lambda x, **p: kinds.Reshape((3,), **p)(dense(**p)(x)),
}
NO_LOGITS = {
    "softmax": lambda x, **p: dense(activation="softmax", **p)(x),
    "softmax, cast": lambda x, **p: ops.cast(
        kinds.Softmax(**p)(dense(**p)(x)), "float32"
    ),
    "sigmoids, dropped": lambda x, **p: kinds.Dropout(0.1, **p)(
        ops.sigmoid(dense(**p)(x))
    ),
    "ensemble": lambda x, **p: kinds.Average(**p)(
        [dense(3, "softmax", **p)(x), dense(3, "softmax", **p)(x)]
    ),
    "one logit": lambda x, **p: dense(1, **p)(x),
    "rank 3": lambda x, **p: dense(**p)(kinds.Reshape((1, -1), **p)(x)),
    "two outputs": lambda x, **p: [dense(**p)(x), dense(**p)(x)],
    "integers": lambda x, **p: ops.cast(dense(**p)(x), "int32"),
}
# The type's rounding: of an update's size, and of a weight's.
DTYPES = {
    "float64": (1e-6, 0.0),
    "float32": (1e-4, 1e-6),
    "bfloat16": (0.15, 0.02),
    "mixed_bfloat16": (0.15, 1e-6),
    "mixed_float16": (0.02, 1e-6),
}
WRAPPERS = ("functional", "nested", "subclassed")
SETTINGS = {
    "plain": {},
    "smoothed": dict(label_smoothing=0.2),
    "averaged": dict(ema_decay=0.9),
    "decayed": dict(weight_decay=0.1),
    "bounded": dict(grad_bound=0.05, weight_decay=0.01),
}
# What each does to w in its first step, by NumPy.
OPTIMIZERS = {
    "sgd": (lambda: optimizers.SGD(RATE), lambda g: RATE * g),
    "nesterov": (
        lambda: optimizers.SGD(RATE, momentum=0.9, nesterov=True),
        lambda g: RATE * 1.9 * g,
    ),
    "momentum": (lambda: Momentum(RATE), lambda g: RATE * 1.9 * g),
    "scaled": (
        lambda: optimizers.LossScaleOptimizer(optimizers.SGD(RATE), 2.0**8),
        lambda g: RATE * g,
    ),
    "clipped": (
        lambda: optimizers.SGD(RATE, clipnorm=0.1),
        lambda g: RATE * g * min(1, 0.1 / max(np.linalg.norm(g), 1e-12)),
    ),
    "accumulating": (
        lambda: optimizers.SGD(RATE, gradient_accumulation_steps=2),
        lambda g: 0 * g,
    ),
    "adagrad": (
        lambda: optimizers.Adagrad(RATE, epsilon=1e-3),
        lambda g: RATE * g / np.sqrt(g**2 + 0.1 + 1e-3),
    ),
}
METHODS = ("supervised", "uda", "fixmatch", "pseudo_labels", "off", "exact")
DIFFERENTIABLE = ("sgd", "nesterov", "momentum", "scaled")


def network(hidden, head, dtype, wrapper="functional"):
    policy = dict(dtype=dtype)
    inputs = keras.Input((4,), dtype="float64" if dtype == "float64" else None)
    x = inputs
    for layer in HIDDEN[hidden](**policy):
        x = layer(x)
    net = keras.Model(inputs, (LOGITS | NO_LOGITS)[head](x, **policy))
    if wrapper == "frozen":
        net.trainable = False
    elif wrapper == "nested" and head != "two outputs":
        net = keras.Sequential([keras.Input((4,), dtype=inputs.dtype), net])
    elif wrapper == "subclassed":
        net = Subclassed(net)
        net(np.zeros([2, 4], inputs.dtype))
    return net


class Subclassed(keras.Model):
    def __init__(self, net):
        super().__init__(dtype=net.layers[-1].dtype_policy)
        self.net = net

    def call(self, inputs):
        return self.net(inputs)


def batch():
    draw = np.random.default_rng(0)
    parts = {key: draw.normal(size=(4, 4)) for key in ("labeled", "weak")}
    parts["strong"] = parts["weak"] + 0.3 * draw.normal(size=(4, 4))
    shares = draw.dirichlet(np.ones(CLASSES), 4)
    return parts | {
        "labels": np.int32([0, 1, 2, 1]),
        "unlabeled_distributions": shares,
    }


def table():
    """Every kind of network once; all of the rest, shuffled, along with it."""
    sound = itertools.product(HIDDEN, LOGITS, DTYPES, WRAPPERS)
    unsound = itertools.product(("tanh",), NO_LOGITS, ("float32",), WRAPPERS)
    frozen = itertools.product(
        ("batch norm",), LOGITS, ("float64",), ["frozen"]
    )
    rest = list(itertools.product(SETTINGS, OPTIMIZERS, METHODS))
    nets = [*sound, *unsound, *frozen]
    random.Random(15).shuffle(rest)
    return [
        (*net, *choices)
        for net, choices in zip(nets, itertools.cycle(rest), strict=False)
    ]


TABLE = table()


class Reference:
    """One step of a method, in float64.

    Args:
      nets: "student" and perhaps "teacher", in float64.
      settings: of `SETTINGS`.
      move: of `OPTIMIZERS`.
    """

    def __init__(self, nets, settings, move):
        self.nets, self.settings, self.move = nets, settings, move
        self.data = batch()
        self.labels = np.eye(CLASSES)[self.data["labels"]]

    def call(self, role, weights, *parts):
        """Logits of a joint pass, part by part, and the network's losses."""
        net = self.nets[role]
        states = [v.value for v in net.non_trainable_variables]
        inputs = np.concatenate([self.data[part] for part in parts])
        logits, _, losses = net.stateless_call(
            weights, states, inputs, training=True, return_losses=True
        )
        own = tf.add_n(losses) if losses else 0.0
        return tf.split(logits, len(parts)), own

    def cross_entropy(self, targets, logits, *, smooth=True):
        share = self.settings.get("label_smoothing", 0.0) * smooth
        targets = targets * (1 - share) + share / CLASSES
        return -tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=-1)

    def weights(self, role):
        return [
            tf.identity(v.value) for v in self.nets[role].trainable_variables
        ]

    def prepared(self, role, gradients):
        """With weight decay, within the bound."""
        decay = self.settings.get("weight_decay", 0.0)
        gradients = [
            g if "norm" in v.path else g + decay * v.value
            for g, v in zip(
                gradients, self.nets[role].trainable_variables, strict=True
            )
        ]
        norm = tf.sqrt(tf.add_n([tf.reduce_sum(g**2) for g in gradients]))
        bound = self.settings.get("grad_bound", math.inf)
        return [g * tf.minimum(1.0, bound / norm) for g in gradients]

    def student_loss(self, method, weights):
        mean, data = tf.reduce_mean, self.data
        if method == "supervised":
            (labeled,), own = self.call("student", weights, "labeled")
            return mean(self.cross_entropy(self.labels, labeled)) + own
        if method == "pseudo_labels":
            parts, own = self.call("student", weights, "labeled", "strong")
            targets = (self.labels, data["unlabeled_distributions"])
            return own + sum(
                mean(self.cross_entropy(*pair))
                for pair in zip(targets, parts, strict=True)
            )
        parts, own = self.call("student", weights, "labeled", "weak", "strong")
        labeled, weak, strong = parts
        if method == "uda":
            targets = tf.nn.softmax(weak / 0.5)
            ramp = 2.0 * STEP / 10
        else:
            targets = tf.nn.softmax(weak)
            ramp = 0.7
        sure = tf.cast(tf.reduce_max(targets, -1) >= 0.4, "float64")
        if method == "fixmatch":
            targets = tf.one_hot(tf.argmax(weak, -1), CLASSES, dtype="float64")
        losses = self.cross_entropy(
            tf.stop_gradient(targets), strong, smooth=False
        )
        on_labeled = mean(self.cross_entropy(self.labels, labeled))
        return on_labeled + ramp * mean(sure * losses) + own

    def student(self, method):
        """The changes of its weights."""
        weights = self.weights("student")
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = self.student_loss(method, weights)
        gradients = self.prepared("student", tape.gradient(loss, weights))
        return {"student": [-self.move(g.numpy()) for g in gradients]}

    def both(self, method):
        """The changes of student and teacher in Meta Pseudo Labels."""
        teacher, student = self.weights("teacher"), self.weights("student")
        with tf.GradientTape() as outer:
            outer.watch(teacher)
            (labeled, strong), own = self.call(
                "teacher", teacher, "labeled", "strong"
            )
            with tf.GradientTape() as inner:
                inner.watch(student)
                (seen, _), student_own = self.call(
                    "student", student, "strong", "labeled"
                )
                losses = self.cross_entropy(tf.nn.softmax(strong), seen)
                loss = tf.reduce_mean(losses) + student_own
            gradients = self.prepared("student", inner.gradient(loss, student))
            loss = own + tf.reduce_mean(
                self.cross_entropy(self.labels, labeled)
            )
            if method == "exact":
                slope = float(self.move(np.ones(())))
                new = [
                    w - slope * g
                    for w, g in zip(student, gradients, strict=True)
                ]
                (judged,), _ = self.call("student", new, "labeled")
                losses = self.cross_entropy(self.labels, judged, smooth=False)
                loss += tf.reduce_mean(losses)
        of_teacher = self.prepared("teacher", outer.gradient(loss, teacher))
        return {
            "student": [-self.move(g.numpy()) for g in gradients],
            "teacher": [-self.move(g.numpy()) for g in of_teacher],
        }


def build(method, nets, settings):
    settings = {k: v for k, v in settings.items() if k not in COMPILED}
    uda = UDASettings(weight=2.0, ramp_steps=10, temperature=0.5, threshold=0.4)
    if method == "supervised":
        return Supervised(**nets, **settings)
    if method == "uda":
        return UDA(**nets, uda=uda, **settings)
    if method == "fixmatch":
        return FixMatch(**nets, weight=0.7, threshold=0.4, **settings)
    if method == "pseudo_labels":
        return PseudoLabels(**nets, pseudo_labels="soft", **settings)
    return MetaPseudoLabels(
        **nets, feedback=method, pseudo_labels="soft", uda=None, **settings
    )


COMPILED = ("weight_decay", "grad_bound")


def outcome(hidden, head, dtype, wrapper, setting, optimizer, method):
    """None where a step is right; else what is wrong with it.

    Raises:
      ValueError, TypeError: where it is refused.
    """
    keras.utils.set_random_seed(0)
    roles = ["student", "teacher"][: 1 + (method in ("off", "exact"))]
    nets = {role: network(hidden, head, dtype, wrapper) for role in roles}
    settings, (make, move) = SETTINGS[setting], OPTIMIZERS[optimizer]
    learner = build(method, nets, settings)
    compiled = {k: v for k, v in settings.items() if k in COMPILED}
    if len(roles) > 1:
        compiled["teacher_optimizer"] = make()
    learner.compile(make(), **compiled)
    wide = {role: network(hidden, head, "float64") for role in roles}
    for role in roles:
        wide[role].set_weights(nets[role].get_weights())
    learner.step.assign(STEP)
    floats = "float64" if dtype == "float64" else "float32"
    data = {
        key: value if key == "labels" else value.astype(floats)
        for key, value in batch().items()
    }
    learner.train_step(data)
    reference = Reference(wide, settings, move)
    wanted = (reference.both if len(roles) > 1 else reference.student)(method)
    for role in roles:
        for at, variable, change in zip(
            wide[role].trainable_variables,
            nets[role].trainable_variables,
            wanted[role],
            strict=True,
        ):
            got = variable.numpy().astype("float64") - at.numpy()
            relative, of_weight = DTYPES[dtype]
            size = max(np.abs(c).max() for c in wanted[role])
            room = relative * size + of_weight * max(
                1, np.abs(at.numpy()).max()
            )
            if np.abs(got - change).max() > room + 1e-9:
                return f"{role}'s {variable.path} moved {got}, not {change}"
    if "ema_decay" in settings:
        step = STEP + (len(roles) == 1)  # Before its increment, or after.
        return wrong_average(learner, wide["student"], step)
    return None


def wrong_average(learner, before, step):
    rate = 1 - min(0.9, (step + 1) / (step + 10))
    average = learner.student_ema.averages[0].numpy()
    old = before.variables[0].numpy()
    new = learner.student.variables[0].numpy().astype("float64")
    if np.abs(average - (old + rate * (new - old))).max() > 1e-6:
        return "its average moved otherwise"
    return None


def must_be_refused(hidden, head, dtype, wrapper, setting, optimizer, method):
    return (
        head in NO_LOGITS
        or wrapper == "frozen"
        or (method == "exact" and optimizer not in DIFFERENTIABLE)
    )


def check(rows):
    """Runs rows of the table; all that is neither right nor refused."""
    wrong, counts = [], {"right": 0, "refused": 0}
    for row in rows:
        try:
            found = outcome(*row)
        except (ValueError, TypeError) as error:
            counts["refused"] += 1
            if "\n" in str(error) or not must_be_refused(*row):
                wrong.append((row, f"{type(error).__name__}: {error}"))
            continue
        counts["right"] += 1
        if found or must_be_refused(*row):
            wrong.append((row, found or "it was not refused"))
    print(f"{len(rows)} combinations: {counts}")
    assert not wrong, "\n".join(map(str, wrong[:5]))
    return counts


UNSOUND = sum(row[1] in NO_LOGITS or row[3] == "frozen" for row in TABLE)


@pytest.mark.parametrize(
    ("rows", "right", "refused"),
    [(TABLE[:-UNSOUND:7], 60, 5), (TABLE[-UNSOUND:], 0, UNSOUND)],
    ids=["sound", "unsound"],
)
def test_a_step_is_right_or_refused(rows, right, refused):
    """Every seventh: of each network, optimizer, method and setting some."""
    counts = check(rows)
    assert counts["right"] >= right and counts["refused"] >= refused


@pytest.mark.long
@pytest.mark.parametrize("hidden", HIDDEN)
def test_every_step_is_right_or_refused(hidden):
    check([row for row in TABLE if row[0] == hidden])
