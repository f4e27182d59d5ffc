"""The moving average of a student's weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.learners import Supervised
from meta_pseudo_labels.learners.ema import WeightAverages, ema_rate


def small_model():
    """Weights, batch-norm moments, and dropout's integer seed state."""
    inputs = keras.Input([3])
    x = keras.layers.Dense(4, name="dense")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))


def fill(model, value):
    """Sets all floating-point variables to `value`."""
    for variable in floats(model):
        variable.assign(keras.ops.full(variable.shape, value))


def floats(model):
    return [v for v in model.variables if v.dtype == "float32"]


def integers(model):
    return [v for v in model.variables if v.dtype != "float32"]


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.9),  # 1 - 1/10
        (1, 9 / 11),  # 1 - 2/11
        (8, 0.5),  # 1 - 9/18
        (100, 9 / 110),  # 1 - 101/110, ramp at 0.918 still below 0.95
        (170, 0.05),  # 171/180 is 0.95 exactly
        (171, 0.05),
        (10**6, 0.05),
    ],
)
def test_rate_ramps_down_to_the_decay(step, rate):
    got = ema_rate(tf.constant(step, tf.int64), decay=0.95)
    np.testing.assert_allclose(got, rate, rtol=1e-6)


def test_rate_counts_from_the_start_and_copies_before_it():
    rates = [
        float(ema_rate(tf.constant(step), decay=0.95, start=100))
        for step in (0, 99, 100, 101, 200)
    ]
    np.testing.assert_allclose(
        rates, [1.0, 1.0, 0.9, 9 / 11, 9 / 110], rtol=1e-6
    )


def test_rate_has_the_type_asked_for():
    rate = ema_rate(tf.constant(10**6), decay=0.9, dtype="float64")
    assert rate.dtype == "float64"
    assert float(rate) == 1.0 - 0.9


def test_rate_is_finite_where_the_ramp_divides_by_zero():
    """Ten steps before the start s + 10 is 0; the average is a copy there."""
    steps = tf.constant([89, 90, 91], tf.int64)
    np.testing.assert_array_equal(
        ema_rate(steps, decay=0.95, start=100), [1.0, 1.0, 1.0]
    )


def test_low_decays_have_no_ramp():
    """The ramp starts at 1 / 10, and the smaller of the two counts."""
    rates = ema_rate(tf.constant([0, 1, 50]), decay=0.05)
    np.testing.assert_allclose(rates, [0.95, 0.95, 0.95], rtol=1e-6)


def test_start_is_exact_beyond_what_float32_counts():
    """2**24 + 1 is 2**24 in float32."""
    steps = tf.constant([2**24, 2**24 + 1, 2**24 + 2], tf.int64)
    rates = ema_rate(steps, decay=0.95, start=2**24 + 1)
    np.testing.assert_allclose(rates, [1.0, 0.9, 9 / 11], rtol=1e-6)


def test_averages_start_at_the_weights():
    model = small_model()
    averages = WeightAverages(model, decay=0.9)
    for average, variable in zip(averages.averages, floats(model), strict=True):
        np.testing.assert_array_equal(average, variable)


def test_update_moves_every_average_by_the_rate():
    """From 1 towards 2: 0.9 of the way at step 0, then 9/11 of the rest."""
    model = small_model()
    fill(model, 1.0)
    averages = WeightAverages(model, decay=0.99)
    fill(model, 2.0)
    for step, want in ((0, 1.9), (1, 1.9 + 0.1 * 9 / 11)):
        averages.update(model, step=tf.constant(step, tf.int64))
        for average in averages.averages:
            np.testing.assert_allclose(average, want * np.ones(average.shape))


@pytest.mark.parametrize("value", [2.0, np.nan])
def test_update_moves_no_average_of_a_model_that_stood_still(value):
    """Nor one of Keras's batch norm, whose moments a bad batch ruins."""
    model = small_model()
    averages = WeightAverages(model, decay=0.99)
    before = [average.numpy().copy() for average in averages.averages]
    fill(model, value)
    averages.update(model, step=tf.constant(0), moved=tf.constant(False))
    for average, old in zip(averages.averages, before, strict=True):
        np.testing.assert_array_equal(average, old)


def test_batch_norm_moments_are_averaged():
    """Two dense layers of two variables, a batch norm of four."""
    model = small_model()
    averages = WeightAverages(model, decay=0.9)
    assert len(averages.averages) == 8
    names = [average.name for average in averages.averages]
    assert "norm.moving_mean" in names
    assert "norm.moving_variance" in names


def test_seed_states_are_left_alone():
    model, other = small_model(), small_model()
    averages = WeightAverages(model, decay=0.9)
    (state,) = integers(model)
    (other_state,) = integers(other)
    before, other_before = state.numpy().copy(), other_state.numpy().copy()

    averages.update(model, step=tf.constant(0))
    averages.apply(model, tf.ones([2, 3]))
    averages.copy_to(model)
    averages.copy_to(other)

    np.testing.assert_array_equal(state, before)
    np.testing.assert_array_equal(other_state, other_before)


def test_apply_equals_a_model_that_holds_the_averages():
    model = small_model()
    averages = WeightAverages(model, decay=0.9)
    inputs = tf.random.stateless_normal([5, 3], seed=[0, 0])
    model(inputs + 3.0, training=True)  # Moves the moments.
    for variable in floats(model):
        variable.assign(variable * 0.5 + 0.1)
    averages.update(model, step=tf.constant(3))
    twin = small_model()
    averages.copy_to(twin)
    kept = [v.numpy().copy() for v in model.variables]

    got, _ = averages.apply(model, inputs)

    np.testing.assert_allclose(got, twin(inputs, training=False), rtol=1e-6)
    assert np.max(np.abs(got - model(inputs, training=False))) > 1e-3
    for variable, value in zip(model.variables, kept, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_copy_to_overwrites_weights_and_moments():
    model = small_model()
    fill(model, 1.0)
    averages = WeightAverages(model, decay=0.9)
    fill(model, 2.0)
    averages.copy_to(model)
    for variable in floats(model):
        np.testing.assert_array_equal(variable, np.ones(variable.shape))


def test_reset_starts_again_at_the_weights():
    model = small_model()
    averages = WeightAverages(model, decay=0.9)
    fill(model, 7.0)
    averages.reset(model)
    for average in averages.averages:
        np.testing.assert_array_equal(average, 7.0 * np.ones(average.shape))


def test_equals_the_release_to_the_last_bit():
    """Its formula (quirk 16), float32 by float32, across the start."""
    model = small_model()
    averages = WeightAverages(model, decay=0.55, start=3)
    averages.reset_as_release()
    want = [average.numpy() for average in averages.averages]
    random = np.random.default_rng(0)
    one = np.float32(1)
    for step in range(15):
        for variable in floats(model):
            variable.assign(random.normal(size=variable.shape))
        averages.update(model, step=tf.constant(step, tf.int64))
        s = np.float32(step - 3)
        rate = one
        if step >= 3:
            rate -= min(np.float32(0.55), (s + one) / (s + np.float32(10)))
        want = [
            w - rate * (w - variable.numpy())
            for w, variable in zip(want, floats(model), strict=True)
        ]
        for average, value in zip(averages.averages, want, strict=True):
            np.testing.assert_array_equal(average, value)


def test_before_the_start_the_average_is_a_copy():
    model = small_model()
    averages = WeightAverages(model, decay=0.9, start=2)
    for step, want in ((0, 2.0), (1, 4.0), (2, 7.6)):
        # At the start itself a tenth is kept: 0.1 * 4 + 0.9 * 8.
        fill(model, 2.0 ** (step + 1))
        averages.update(model, step=tf.constant(step, tf.int64))
        for average in averages.averages:
            np.testing.assert_allclose(
                average, want * np.ones(average.shape), rtol=1e-6
            )


def test_the_releases_constants():
    """Batch norm's gamma is 0 there, as kernels are; beta is 1."""
    averages = WeightAverages(small_model(), decay=0.9)
    averages.reset_as_release()
    got = {a.name: set(np.ravel(a)) for a in averages.averages}
    assert got == {
        "dense.kernel": {0.0},
        "dense.bias": {0.0},
        "norm.gamma": {0.0},
        "norm.beta": {1.0},
        "norm.moving_mean": {0.0},
        "norm.moving_variance": {1.0},
        "logits.kernel": {0.0},
        "logits.bias": {0.0},
    }


def test_checkpoints_hold_the_averages(tmp_path):
    model = small_model()
    averages = WeightAverages(model, decay=0.9)
    fill(model, 3.0)
    averages.update(model, step=tf.constant(5))
    path = tf.train.Checkpoint(ema=averages).save(tmp_path / "checkpoint")
    other = WeightAverages(small_model(), decay=0.9)
    tf.train.Checkpoint(ema=other).restore(path).assert_consumed()
    for one, two in zip(averages.averages, other.averages, strict=True):
        np.testing.assert_array_equal(one, two)


def test_float64_models_are_averaged_in_float64():
    inputs = keras.Input([1], dtype="float64")
    outputs = keras.layers.Dense(1, dtype="float64")(inputs)
    model = keras.Model(inputs, outputs)
    averages = WeightAverages(model, decay=0.9)
    model.variables[0].assign([[1.0 + 1e-12]])
    averages.update(model, step=tf.constant(0))
    assert {average.dtype for average in averages.averages} == {"float64"}
    averages.copy_to(model)
    assert model.variables[0].dtype == "float64"


def test_another_architecture_is_refused():
    averages = WeightAverages(small_model(), decay=0.9)
    other = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
    with pytest.raises(ValueError):
        averages.copy_to(other)


@pytest.mark.parametrize("decay", [-0.1, 1.5, 5.0, float("nan")])
def test_decay_out_of_range_is_named(decay):
    with pytest.raises(ValueError, match=rf"ema_decay.*got {decay}"):
        WeightAverages(small_model(), decay=decay)


def normalized():
    """Logits that hang on batch norm's moving variance."""
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(2),
        ]
    )


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.mark.fast("mixed_bfloat16")
@pytest.mark.parametrize(
    "policy",
    ["mixed_float16", "mixed_bfloat16", "bfloat16", "float16"],
    indirect=True,
)
def test_calls_read_averages_as_they_are_in_every_policy(policy):
    """In 16 bits a variance of 1e5 is infinite, and all logits are 0."""
    variance = 2e4 if policy == "float16" else 1e5
    student = normalized()
    student.layers[0].moving_variance.assign([variance, 1.0])
    learner = Supervised(student, ema_decay=0.9)
    learner.compile(metrics=["accuracy"])
    for average in learner.student_ema.averages:
        assert average.dtype == "float32"
    images = np.float32([[400.0, 1.0], [-800.0, 0.0], [300.0, -1.0]])
    labels = np.int32([0, 1, 1])
    got = learner.predict(images, verbose=0)
    loss, _ = learner.evaluate(images, labels, verbose=0)
    assert np.ptp(got, axis=0).min() > 0.1
    finished = learner.finished_student()
    want = finished.predict(images, verbose=0).astype("float32")
    np.testing.assert_allclose(got, want, rtol=1e-6)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert loss == pytest.approx(float(cross_entropy(labels, want)), rel=1e-6)


def test_an_average_of_16_bit_weights_moves():
    """By 0.1 % of the way a step, of which bfloat16 rounds off all."""
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2, dtype="bfloat16")]
    )
    kernel, bias = model.variables
    kernel.assign(keras.ops.ones([2, 2]))
    averages = WeightAverages(model, decay=0.999)
    kernel.assign(keras.ops.full([2, 2], 1.5))
    for step in range(20_000, 20_020):
        averages.update(model, step=tf.constant(step))
    want = 1.5 - 0.5 * 0.999**20
    np.testing.assert_allclose(averages.averages[0], want, rtol=1e-5)
    averages.copy_to(model)
    np.testing.assert_allclose(kernel.numpy().astype(float), want, rtol=4e-3)


def test_weights_are_lent_for_a_while():
    model = small_model()
    fill(model, 1.0)
    averages = WeightAverages(model, decay=0.9)
    fill(model, 2.0)
    with pytest.raises(ZeroDivisionError), averages.lent_to(model):
        assert all(np.all(v.numpy() == 1.0) for v in floats(model))
        raise ZeroDivisionError
    assert all(np.all(v.numpy() == 2.0) for v in floats(model))
