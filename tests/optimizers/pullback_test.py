"""The derivative of every update, against differences of the update."""

import functools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.optimizers import (
    LARS,
    AdamW,
    Momentum,
    RMSProp,
    check_differentiable,
    pace,
    update_pullback,
    update_rates,
)
from tests.optimizers.helpers import Rate

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam
RATE = Rate(0.3, 0.1, 0.2)  # The third step is the one that is tested.
OPTIMIZERS = {
    "momentum": lambda **kw: Momentum(RATE, momentum=0.5, nesterov=False, **kw),
    "nesterov": lambda **kw: Momentum(RATE, momentum=0.5, **kw),
    "sgd": lambda **kw: SGD(RATE, **kw),
    "sgd momentum": lambda **kw: SGD(RATE, momentum=0.5, **kw),
    "sgd nesterov": lambda **kw: SGD(RATE, momentum=0.5, nesterov=True, **kw),
    "rmsprop": lambda **kw: RMSProp(RATE, rho=0.5, epsilon=0.125, **kw),
    "rmsprop rho=0": lambda **kw: RMSProp(RATE, rho=0.0, epsilon=0.125, **kw),
    "lars": lambda **kw: LARS(RATE, momentum=0.5, eeta=0.5, **kw),
    "lars decay": lambda **kw: LARS(
        RATE, momentum=0.5, eeta=0.5, weight_decay=0.3, epsilon=0.1, **kw
    ),
    "lars plain": lambda **kw: LARS(
        RATE, momentum=0.5, eeta=0.5, weight_decay=0.3, nesterov=False, **kw
    ),
    "adam": lambda **kw: Adam(RATE, **kw),
    "adam epsilon": lambda **kw: Adam(
        RATE, beta_1=0.3, beta_2=0.6, epsilon=0.1, **kw
    ),
    "adam amsgrad": lambda **kw: Adam(RATE, beta_2=0.3, amsgrad=True, **kw),
    "kerass adamw": lambda **kw: keras.optimizers.AdamW(
        RATE, **{"weight_decay": 0.2, **kw}
    ),
    "adamw": lambda **kw: AdamW(RATE, **{"weight_decay": 0.2, **kw}),
}
ADAMS = ("adam", "kerass adamw")
ALL = pytest.mark.parametrize("name", OPTIMIZERS)


class Case:
    """An optimizer after two steps on two variables, one of them skipped."""

    def __init__(self, optimizer, dtype="float64", steps=2, **of_kernel):
        random = np.random.default_rng(1)
        self.optimizer = optimizer
        self.variables = [
            keras.Variable(random.normal(size=shape), dtype=dtype, name=name)
            for name, shape in (("kernel", [2, 3]), ("bias", [3]))
        ]
        self.draw = lambda: [
            tf.constant(random.normal(size=v.shape), dtype)
            for v in self.variables
        ]
        optimizer.build(self.variables)
        if of_kernel:
            pace(optimizer, self.variables[:1], **of_kernel)
        for _ in range(steps):
            optimizer.apply(self.draw(), self.variables)
        self.gradients, self.upstream = self.draw(), self.draw()
        self.state = [
            (v, v.numpy().copy())
            for v in (*self.variables, *optimizer.variables)
        ]

    def step(self, gradients):
        """From the same state each time: the new weights and the pullback."""
        for variable, value in self.state:
            variable.assign(value)
        pullback = update_pullback(self.optimizer, gradients, self.variables)
        self.optimizer.apply(gradients, self.variables)
        return [v.numpy().copy() for v in self.variables], pullback

    def pulled_back(self):
        """As the learner does: the pullback is called after the update."""
        _, pullback = self.step(self.gradients)
        return pullback(self.upstream)

    def differences(self, epsilon=1e-6):
        """Slopes of sum(upstream * new weights) along every gradient."""
        slopes = [np.zeros(v.shape) for v in self.variables]
        for which, slope in enumerate(slopes):
            for index in np.ndindex(slope.shape):
                up, down = (
                    self._scalar(which, index, change)
                    for change in (epsilon, -epsilon)
                )
                slope[index] = (up - down) / (2 * epsilon)
        return slopes

    def _scalar(self, which, index, change):
        gradients = [g.numpy() for g in self.gradients]
        gradients[which][index] += change
        weights, _ = self.step([tf.constant(g) for g in gradients])
        return sum(
            np.sum(u * w) for u, w in zip(self.upstream, weights, strict=True)
        )


def assert_close(got, want, *, rtol):
    for one, two in zip(got, want, strict=True):
        assert np.abs(two).max() > 1e-3
        np.testing.assert_allclose(
            one, two, rtol=0, atol=rtol * np.abs(two).max()
        )


@pytest.mark.fast("adam amsgrad", "lars", "nesterov", "sgd momentum")
@ALL
def test_is_the_derivative_of_the_update(name):
    case = Case(OPTIMIZERS[name]())
    assert_close(case.pulled_back(), case.differences(), rtol=1e-7)


PACED = [name for name in OPTIMIZERS if name != "kerass adamw"]


@pytest.mark.fast("adam amsgrad", "lars decay", "nesterov", "sgd momentum")
@pytest.mark.parametrize("name", PACED)
def test_a_pace_scales_the_update_and_its_derivative(name):
    case, plain = (
        Case(OPTIMIZERS[name](), steps=0, **of_kernel)
        for of_kernel in (dict(lr_factor=0.1), {})
    )
    starts = [v.numpy().copy() for v in case.variables]
    for moved, full, start, factor in zip(
        case.step(case.gradients)[0],
        plain.step(plain.gradients)[0],
        starts,
        (0.1, 1.0),
        strict=True,
    ):
        np.testing.assert_allclose(moved - start, factor * (full - start))
    case = Case(OPTIMIZERS[name](), lr_factor=0.1)
    kernel, bias = case.pulled_back()
    want = case.differences()
    assert np.abs(want[0]).max() > 1e-5
    for one, two in zip((kernel, bias), want, strict=True):
        atol = 1e-6 * np.abs(two).max()
        np.testing.assert_allclose(one, two, rtol=0, atol=atol)


@pytest.mark.parametrize("name", PACED)
def test_what_is_frozen_neither_moves_nor_pulls_back(name):
    """Up to the second step; slots filled before it do not move it either."""
    case = Case(OPTIMIZERS[name](), steps=1)
    still = case.variables[0].numpy().copy()
    pace(case.optimizer, case.variables[:1], lr_factor=0.5, freeze_steps=2)
    pullback = update_pullback(case.optimizer, case.gradients, case.variables)
    case.optimizer.apply(case.gradients, case.variables)
    np.testing.assert_array_equal(case.variables[0], still)
    kernel, bias = pullback(case.upstream)
    assert not np.any(kernel) and np.any(bias)
    case.optimizer.apply(case.gradients, case.variables)
    assert np.all(case.variables[0] != still)
    pace(case.optimizer, [])  # Is as if there never had been one.
    assert "update_step" not in vars(case.optimizer)


def test_a_decay_that_knows_one_rate_is_refused_beside_a_pace():
    for kind in (keras.optimizers.AdamW, functools.partial(SGD, 0.1)):
        with pytest.raises(ValueError, match="meta_pseudo_labels.AdamW"):
            Case(kind(weight_decay=0.1), freeze_steps=-1)


@pytest.mark.fast("adam epsilon", "nesterov", "sgd momentum")
@pytest.mark.parametrize(
    "name", [name for name in OPTIMIZERS if not name.startswith("lars")]
)
def test_keras_weight_decay_does_not_disturb_it(name):
    """It shrinks the weights before the update, whatever the gradient."""
    case = Case(OPTIMIZERS[name](weight_decay=0.1))
    assert_close(case.pulled_back(), case.differences(), rtol=1e-7)


@pytest.mark.parametrize(
    "name",
    [name for name in OPTIMIZERS if not name.startswith(("lars ", *ADAMS))],
)
def test_rates_make_the_part_of_the_step_that_the_gradient_makes(name):
    """What the slots and LARS's own decay add is the same without it."""
    case = Case(
        OPTIMIZERS[name](**({"weight_decay": 0.0} if name == "lars" else {}))
    )
    without, _ = case.step([tf.zeros_like(g) for g in case.gradients])
    case.step(case.gradients)
    for variable, value in case.state:
        variable.assign(value)
    rates = update_rates(case.optimizer, case.gradients, case.variables)
    case.optimizer.apply(case.gradients, case.variables)
    moved = [v - w for v, w in zip(case.variables, without, strict=True)]
    parts = [r * g for r, g in zip(rates(), case.gradients, strict=True)]
    assert_close(parts, moved, rtol=1e-12)


@pytest.mark.parametrize(
    "name", [name for name in OPTIMIZERS if name.startswith(ADAMS)]
)
def test_rates_of_adam_hold_its_divisor(name):
    """With the gradient's own mean square the step is linear in the mean.

    So twice the mean's share of a gradient moves by rate * gradient more.
    """
    case = Case(OPTIMIZERS[name]())
    moved, _ = case.step(case.gradients)
    for variable, value in case.state:
        variable.assign(value)
    for mean, gradient in zip(
        case.optimizer._momentums, case.gradients, strict=True
    ):  # beta_1 * mean grows by (1 - beta_1) * gradient.
        share = 1 / case.optimizer.beta_1 - 1
        mean.assign_add(share * gradient)
    rates = update_rates(case.optimizer, case.gradients, case.variables)
    case.optimizer.apply(case.gradients, case.variables)
    more = [v - w for v, w in zip(case.variables, moved, strict=True)]
    parts = [r * g for r, g in zip(rates(), case.gradients, strict=True)]
    assert_close(parts, more, rtol=1e-12)


def test_adam_takes_what_has_never_had_a_gradient_as_it_is():
    """A dead weight: the first step is a * g / (c * |g| + epsilon) there."""
    optimizer = Adam(0.5, epsilon=0.25)
    variable = keras.Variable([1.0, 2.0])
    optimizer.build([variable])
    pullback = update_pullback(optimizer, [tf.zeros([2])], [variable])
    (got,) = pullback([tf.constant([1.0, -2.0])])
    rate = 0.5 * np.sqrt(0.001) / 0.1 * 0.1 / 0.25
    np.testing.assert_allclose(got, [-rate, 2 * rate], rtol=1e-4)


@pytest.mark.fast("adam amsgrad", "lars", "nesterov", "sgd momentum")
@ALL
def test_is_the_same_within_a_tf_function(name):
    """Where the slots are read before the update that changes them."""
    case = Case(OPTIMIZERS[name]())
    want = case.pulled_back()
    case.step(case.gradients)
    for variable, value in case.state:
        variable.assign(value)

    @tf.function(autograph=False)
    def step(gradients, upstream):
        pullback = update_pullback(case.optimizer, gradients, case.variables)
        case.optimizer.apply(gradients, case.variables)
        return pullback(upstream)

    assert_close(step(case.gradients, case.upstream), want, rtol=1e-12)


@ALL
def test_float32_gives_float32(name):
    want = Case(OPTIMIZERS[name]()).pulled_back()
    got = Case(OPTIMIZERS[name](), dtype="float32").pulled_back()
    assert {g.dtype for g in got} == {tf.float32}
    assert_close(got, want, rtol=1e-5)


@ALL
def test_nothing_comes_back_at_rate_zero(name):
    """While the student waits."""
    optimizer = OPTIMIZERS[name]()
    optimizer.learning_rate = Rate(0.0)
    variable = keras.Variable([1.0, 2.0])
    optimizer.build([variable])
    pullback = update_pullback(optimizer, [tf.ones([2])], [variable])
    assert not np.any(pullback([tf.ones([2])]))


def test_lars_is_linear_where_a_norm_is_zero():
    """The ratio is 1 there, and Nesterov adds half: no NaN of 0 / 0."""
    for weights, gradient in (([0.0, 0.0], [3.0, 4.0]), ([3.0, 4.0], [0, 0])):
        optimizer = LARS(0.5, momentum=0.5)
        variable = keras.Variable(weights, name="kernel")
        optimizer.build([variable])
        pullback = update_pullback(
            optimizer, [tf.constant(gradient, tf.float32)], [variable]
        )
        (got,) = pullback([tf.constant([1.0, -2.0])])
        np.testing.assert_allclose(got, [-0.75, 1.5])


def refusal(optimizer, variable=None):
    """The message, which all three functions must give."""
    variable = keras.Variable([1.0]) if variable is None else variable
    optimizer.build([variable])
    with pytest.raises(ValueError) as early:
        check_differentiable(optimizer)
    update = optimizer, [tf.ones([1])], [variable]
    for late in (
        functools.partial(update_pullback(*update), [tf.ones([1])]),
        update_rates(*update),
    ):
        with pytest.raises(ValueError, match=re.escape(str(early.value))):
            late()
    return str(early.value)


def test_unknown_optimizers_are_refused():
    message = refusal(keras.optimizers.Nadam())
    assert "got Nadam" in message and "reinforce" in message

    class Own(AdamW):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(2 * gradient, variable, learning_rate)

    assert "got Own" in refusal(Own())
    assert "got RMSprop" in refusal(keras.optimizers.RMSprop())


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm", "clipvalue"])
@ALL
def test_clipping_inside_is_refused(name, clip):
    assert "grad_bound" in refusal(OPTIMIZERS[name](**{clip: 1.0}))


@pytest.mark.parametrize(
    "hidden",
    [
        dict(gradient_accumulation_steps=2),
        dict(loss_scale_factor=4.0),
        dict(use_ema=True, ema_overwrite_frequency=2),
    ],
)
@ALL
def test_other_hidden_work_is_refused(name, hidden):
    assert list(hidden)[-1] in refusal(OPTIMIZERS[name](**hidden))


def test_constraints_on_weights_are_refused():
    dense = keras.layers.Dense(1, kernel_constraint="non_neg", use_bias=False)
    dense.build([None, 1])
    message = refusal(Momentum(0.1), dense.kernel)
    assert dense.kernel.path in message


def test_averages_beside_the_weights_are_fine():
    case = Case(Momentum(RATE, momentum=0.5, use_ema=True))
    assert_close(case.pulled_back(), case.differences(), rtol=1e-7)
