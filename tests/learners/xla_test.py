"""XLA compiles every train step whole, and the result is the same.

TPUs run what XLA makes of a step. It is compiled for the processor here;
traced_graph_test.py asks what a TPU would refuse.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.optimizers import LARS, Momentum, RMSProp
from tests.learners.float32_learners import BUILDERS, batches, build_learner

STEPS = 3
# Float32 rounds in another order. What is zero but for rounding (the gradient
# of a bias before batch norm) is judged on the scale of what is not.
TOLERANCE, SMALLEST_SCALE = 1e-4, 1e-3


class Logs(keras.callbacks.Callback):
    """Keeps what every step logged."""

    def on_train_begin(self, logs=None):
        self.rows = []

    def on_train_batch_end(self, batch, logs=None):
        self.rows.append({name: float(value) for name, value in logs.items()})


def train(
    name, *, jit_compile, network="conv net", optimizer=None, batch_slices=1
):
    """Every log, by its name and step, and every variable, by its path."""
    learner = build_learner(name, network=network)
    learner.compile(
        optimizer() if optimizer else Momentum(0.2, nesterov=True),
        weight_decay=0.01,
        grad_bound=0.5,  # Below some norms, so that clipping counts.
        jit_compile=jit_compile,
        batch_slices=batch_slices,
    )
    logs = Logs()
    learner.fit(batches(name, steps=STEPS), verbose=0, callbacks=[logs])
    assert learner.step.numpy() == len(logs.rows) == STEPS
    variables = learner.variables + learner.optimizer.variables
    if hasattr(learner, "teacher_optimizer"):
        variables += learner.teacher_optimizer.variables
    results = {name: [row[name] for row in logs.rows] for name in logs.rows[0]}
    return results | {v.path: v.numpy() for v in variables}


def check_same(*run, **settings):
    keras.backend.clear_session()  # So that names of layers repeat.
    want = train(*run, jit_compile=False, **settings)
    keras.backend.clear_session()
    got = train(*run, jit_compile=True, **settings)
    assert list(got) == list(want) and len(want) > 10
    if run == ("release",):  # Whose feedback is 0 but for rounding.
        ratios = [logs.pop("mpl/feedback_grad_ratio") for logs in (got, want)]
        assert np.max(ratios) < 1e-5
    for name, value in want.items():
        scale = max(np.abs(value).max(), SMALLEST_SCALE)
        np.testing.assert_allclose(
            got[name], value, rtol=0, atol=TOLERANCE * scale, err_msg=name
        )


@pytest.mark.long
@pytest.mark.parametrize("name", BUILDERS)
def test_compiled_step_is_the_uncompiled_one(name):
    check_same(name)


@pytest.mark.long
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: RMSProp(0.02),
        lambda: LARS(20.0),
        lambda: keras.optimizers.SGD(0.2, momentum=0.9, nesterov=True),
    ],
    ids=["rmsprop", "lars", "sgd"],
)
def test_every_optimizer_compiles(optimizer):
    check_same("uda", optimizer=optimizer)


@pytest.mark.long
@pytest.mark.parametrize("optimizer", [RMSProp, LARS, keras.optimizers.SGD])
def test_feedback_compiles_with_every_optimizer(optimizer):
    """`exact` differentiates what the student's optimizer did."""
    check_same("exact", optimizer=lambda: optimizer(0.02))


@pytest.mark.long
@pytest.mark.parametrize("name", ["uda", "exact"])
def test_slices_compile(name):
    check_same(name, batch_slices=2)


@pytest.mark.long
@pytest.mark.parametrize("name", BUILDERS)
def test_wide_resnet_compiles(name):
    check_same(name, network="wrn-10-1")


@pytest.mark.long
@pytest.mark.parametrize("name", ["uda", "exact"])
def test_stochastic_depth_compiles(name):
    # Its first gradients have a norm of 500; larger steps multiply rounding.
    check_same(name, network="efficientnet", optimizer=lambda: Momentum(0.002))


@pytest.mark.parametrize(
    "seed", [(0, 0), (7, 123_456), (2**31 - 1, 2**31 - 1), (2**40 + 5, -3)]
)
def test_draws_are_the_same_bits(seed):
    def draw():
        with replicas.joint_batch(3, 5):
            return replicas.uniform(
                tf.constant(seed, tf.int64), rows=8, width=7
            )

    got = tf.function(draw, jit_compile=True)().numpy()
    assert got.tobytes() == draw().numpy().tobytes()
    assert len(np.unique(got)) > 50
