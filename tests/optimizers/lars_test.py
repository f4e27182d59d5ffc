"""The release's LARS: hand numbers, and its formula before TF1's kernel."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.optimizers import LARS
from tests.optimizers.helpers import (
    RATES,
    Rate,
    random_gradients,
    trajectory,
)


def layer_step(optimizer, path, weights, gradient):
    """One variable of a given path after one step, float64."""
    variable = keras.Variable(weights, dtype="float64", name=path)
    optimizer.apply([tf.constant(gradient, tf.float64)], [variable])
    return variable.numpy()


def test_one_step_by_hand():
    """|w| = 5, |g| = 1: ratio 0.1 * 5 / (1 + 0.2 * 5) = 1/4, rate 2.

    The step is 2 / 4 * (g + w / 5), and Nesterov makes it 1.5 times as long.
    """
    optimizer = LARS(2.0, momentum=0.5, weight_decay=0.2, eeta=0.1)
    got = layer_step(optimizer, "kernel", [3.0, 4.0], [0.6, -0.8])
    np.testing.assert_allclose(got, [3 - 0.75 * 1.2, 4.0], rtol=1e-7)
    np.testing.assert_allclose(optimizer.slots[0], [0.6, 0.0], atol=1e-12)


def test_epsilon_joins_the_divisor():
    """As above, with ratio 0.5 / (2 + 2)."""
    optimizer = LARS(2.0, momentum=0.5, weight_decay=0.2, eeta=0.1, epsilon=2.0)
    layer_step(optimizer, "kernel", [3.0, 4.0], [0.6, -0.8])
    np.testing.assert_allclose(optimizer.slots[0], [0.3, 0.0], atol=1e-12)


@pytest.mark.parametrize(
    ("weights", "gradient", "slot"),
    [
        ([0.0, 0.0], [3.0, 4.0], [1.5, 2.0]),
        ([3.0, 4.0], [0.0, 0.0], [0.3, 0.4]),  # Of the inner weight decay.
        ([0.0, 0.0], [0.0, 0.0], [0.0, 0.0]),
    ],
)
def test_ratio_is_one_where_a_norm_is_zero(weights, gradient, slot):
    optimizer = LARS(0.5, weight_decay=0.2)
    layer_step(optimizer, "kernel", weights, gradient)
    np.testing.assert_allclose(optimizer.slots[0], slot, rtol=1e-7)


@pytest.mark.parametrize(
    ("path", "skipped"),
    [
        ("kernel", False),
        ("depthwise_kernel", False),
        ("Bias", False),  # The release compares as it is.
        ("bn_scale", False),
        ("bias", True),
        ("gamma", True),
        ("beta", True),
        ("batch_normalization", True),
        ("batchnorm_moments", True),
    ],
)
def test_skipped_variables_take_plain_momentum(path, skipped):
    """Rate times gradient: no ratio, no weight decay."""
    optimizer = LARS(0.5, weight_decay=0.2)
    layer_step(optimizer, path, [3.0, 4.0], [0.6, -0.8])
    plain = np.allclose(optimizer.slots[0], [0.3, -0.4], rtol=1e-7)
    assert plain == skipped


def test_skips_by_the_whole_path_of_a_models_variables():
    """Dense's bias by its own name, all of batch norm by the layer's."""
    inputs = keras.Input([3])
    x = keras.layers.Dense(4, name="dense")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dense(2, name="batch_norm_like", use_bias=False)(x)
    variables = keras.Model(inputs, x).trainable_variables
    optimizer = LARS(0.5, weight_decay=0.2)
    before = [v.numpy() for v in variables]
    optimizer.apply([tf.ones(v.shape) for v in variables], variables)
    plain = {
        v.path
        for v, w in zip(variables, before, strict=True)
        if np.allclose(v, w - 0.5 * 1.9, rtol=1e-5)
    }
    assert plain == {
        "dense/bias",
        "norm/gamma",
        "norm/beta",
        "batch_norm_like/kernel",
    }


def release_steps(gradients, rates, *, nesterov, dtype):
    """The release's formula in NumPy, then TensorFlow 1's kernel at rate 1."""
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        weights, slot = (
            v1.get_variable(name, initializer=start, use_resource=True)
            for name, start in (
                ("w", np.ones(len(gradients[0]), dtype)),
                ("slot", np.zeros(len(gradients[0]), dtype)),
            )
        )
        scaled = v1.placeholder(dtype, weights.shape)
        step = tf.raw_ops.ResourceApplyMomentum(
            var=weights.handle,
            accum=slot.handle,
            lr=np.ones([], dtype),
            grad=scaled,
            momentum=np.asarray(0.9, dtype),
            use_nesterov=nesterov,
        )
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            path = []
            for g, rate in zip(gradients, rates, strict=True):
                w = session.run(weights)
                w_norm, g_norm = np.sqrt(np.sum(w * w)), np.sqrt(np.sum(g * g))
                ratio = 1.0
                if w_norm > 0 and g_norm > 0:
                    ratio = 1e-3 * w_norm / (g_norm + 1e-2 * w_norm)
                session.run(
                    step, {scaled: (g + 1e-2 * w) * np.float32(rate) * ratio}
                )
                path.append(session.run(weights))
            return np.array(path), session.run(slot)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)]
)
def test_equals_the_releases_formula(nesterov, dtype, tolerance):
    gradients = random_gradients(dtype)
    rates = [100 * rate for rate in RATES]
    want, slot = release_steps(gradients, rates, nesterov=nesterov, dtype=dtype)
    assert np.ptp(want) > 0.1
    optimizer = LARS(Rate(*rates), weight_decay=1e-2, nesterov=nesterov)
    got = trajectory(optimizer, gradients, dtype)
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)
    np.testing.assert_allclose(
        optimizer.release_slots["LARSOptimizer"][0],
        slot,
        rtol=0,
        atol=tolerance,
    )


def test_defaults_are_the_releases():
    config = LARS(0.1).get_config()
    assert config["momentum"] == 0.9
    assert config["weight_decay"] == 1e-4
    assert config["eeta"] == 1e-3
    assert config["epsilon"] == 0.0
    assert config["nesterov"] is True
    assert config["skip_list"] == [
        "batch_norm",
        "batchnorm",
        "gamma",
        "beta",
        "bias",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(momentum=1.0), "momentum.*got 1.0"),
        (dict(weight_decay=-0.1), "weight_decay.*got -0.1"),
        (dict(eeta=0.0), "eeta.*got 0.0"),
        (dict(epsilon=-1.0), "epsilon.*got -1.0"),
    ],
)
def test_numbers_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        LARS(0.1, **settings)
