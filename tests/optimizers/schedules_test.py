"""Learning rates, by hand and against the release's curves."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.optimizers.schedules import (
    DECAYS,
    WaitWarmupDecay,
    scale_by_batch,
)


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_rates_are_given_for_256_images():
    assert scale_by_batch(0.1, 256) == 0.1
    assert scale_by_batch(0.1, 128) == 0.05
    assert scale_by_batch(0.1, 1024) == pytest.approx(0.4)


def test_waits_warms_up_then_stays_constant():
    schedule = WaitWarmupDecay(
        0.8, decay="constant", wait_steps=2, warmup_steps=4
    )
    np.testing.assert_allclose(
        rates(schedule, range(8)),
        [0, 0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8],
        rtol=1e-6,
    )


def test_exponential_falls_in_stairs_after_the_warmup():
    schedule = WaitWarmupDecay(
        1.0,
        decay="exponential",
        warmup_steps=2,
        decay_steps=3,
        decay_rate=0.5,
    )
    np.testing.assert_allclose(
        rates(schedule, range(10)),
        [0.5, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25],
        rtol=1e-6,
    )


def test_cosine_ends_with_the_run_and_stays_zero():
    """Steps 3, 5, 7, 11 are 0, 1/4, 1/2 and all of the remaining 8 steps."""
    schedule = WaitWarmupDecay(
        2.0, decay="cosine", num_train_steps=11, wait_steps=1, warmup_steps=2
    )
    np.testing.assert_allclose(
        rates(schedule, [0, 1, 2, 3, 5, 7, 11, 12, 1000]),
        [0, 1, 2, 2, 1 + np.sqrt(0.5), 1, 0, 0, 0],
        rtol=1e-6,
        atol=1e-7,
    )


def test_no_wait_and_no_warmup_start_at_the_peak():
    for settings in (
        dict(decay="constant"),
        dict(decay="exponential"),
        dict(decay="cosine", num_train_steps=10),
    ):
        assert rates(WaitWarmupDecay(0.5, **settings), [0]) == [0.5]


def curves(reference_dir):
    file = np.load(reference_dir / "lr_schedules.npz")
    for call in json.loads(str(file["settings_json"])):
        yield call, file["steps"], file[f"lr/{call['name']}"]


def first_given(*values):
    return next(value for value in values if value is not None)


def schedule_of(call, dtype="float32"):
    """What the release built for one call of its `get_learning_rate`."""
    return WaitWarmupDecay(
        scale_by_batch(
            first_given(call["initial_lr"], call["lr"]),
            call["train_batch_size"],
        ),
        decay=call["lr_decay_type"],
        num_train_steps=call["num_train_steps"],
        warmup_steps=first_given(call["warmup"], call["num_warmup_steps"]),
        wait_steps=first_given(call["wait"], 0),
        decay_steps=call["num_decay_steps"],
        decay_rate=call["lr_decay_rate"],
        dtype=dtype,
    )


def test_float32_equals_the_release(reference_dir):
    """All but the cosine's last bit, which is the mathematics library's."""
    names = set()
    for call, steps, want in curves(reference_dir):
        got = np.float32(rates(schedule_of(call), steps))
        if call["lr_decay_type"] == "cosine":
            np.testing.assert_allclose(
                got, want, rtol=0, atol=1e-7 * want.max(), err_msg=call["name"]
            )
        else:
            np.testing.assert_array_equal(got, want, err_msg=call["name"])
        names.add(call["lr_decay_type"])
    assert names == {"constant", "exponential", "cosine"}


def test_float64_and_compiled_rates_are_the_releases_rounded(reference_dir):
    for call, steps, want in curves(reference_dir):
        compiled = tf.function(schedule_of(call).__call__)
        for got in (
            rates(schedule_of(call, "float64"), steps),
            [float(compiled(tf.constant(step))) for step in steps],
        ):
            np.testing.assert_allclose(
                got,
                want,
                rtol=1e-6,
                atol=2e-7 * want.max(),  # Cosines end in rounding, not in 0.
                err_msg=call["name"],
            )


# Numbers that float32 rounds, so that another order of operations shows.
PEAK, WAIT, WARMUP, STEPS = 0.3 * 448 / 256, 7, 13, 151


def release_rate(step, *, decay, wait, v1=tf.compat.v1.train):
    """A rate from TensorFlow 1's own decays, and the release's warm-up."""
    step = step - wait
    after = step - WARMUP
    if step < 0:
        return np.float32(0)
    if step < WARMUP:
        return np.float32(PEAK) * (np.float32(step + 1) / np.float32(WARMUP))
    if decay == "constant":
        return np.float32(PEAK)
    if decay == "exponential":
        rate = v1.exponential_decay(
            PEAK, tf.constant(after, tf.int64), 17, 0.83, staircase=True
        )
    else:
        rate = v1.cosine_decay(
            PEAK, tf.constant(after, tf.int64), STEPS - WARMUP - wait
        )
    return np.float32(rate())


@pytest.mark.fast("constant-7", "exponential-0")
@pytest.mark.parametrize("wait", [0, WAIT])
@pytest.mark.parametrize("decay", DECAYS)
def test_equals_tensorflow_1_to_the_last_bit(decay, wait):
    schedule = WaitWarmupDecay(
        PEAK,
        decay=decay,
        num_train_steps=STEPS,
        warmup_steps=WARMUP,
        wait_steps=wait,
        decay_steps=17,
        decay_rate=0.83,
    )
    steps = range(STEPS + 10)
    np.testing.assert_array_equal(
        np.float32(rates(schedule, steps)),
        [release_rate(step, decay=decay, wait=wait) for step in steps],
    )


def test_steps_are_exact_beyond_what_float32_counts():
    """2**24 + 1 is 2**24 in float32, and the drop would come a step late."""
    far = 2**24
    schedule = WaitWarmupDecay(
        1.0,
        decay="exponential",
        wait_steps=far,
        decay_steps=1,
        decay_rate=0.5,
    )
    assert rates(schedule, [far - 1, far, far + 1, far + 2]) == [
        0,
        1,
        0.5,
        0.25,
    ]


def test_steep_decays_are_finite_throughout_the_warmup():
    """The decay of steps before its start is huge, and must not show."""
    schedule = WaitWarmupDecay(
        1.0,
        decay="exponential",
        warmup_steps=100,
        decay_steps=1,
        decay_rate=0.01,
    )
    np.testing.assert_allclose(
        rates(schedule, [0, 49, 99, 100, 101]),
        [0.01, 0.5, 1, 1, 0.01],
        rtol=1e-6,
    )


def test_computes_in_the_type_it_is_given():
    schedule = WaitWarmupDecay(0.1, decay="constant", dtype="float64")
    assert schedule(3).dtype == "float64"
    assert float(schedule(3)) == 0.1


def test_survives_saving():
    schedule = WaitWarmupDecay(
        0.7,
        decay="exponential",
        num_train_steps=50,
        warmup_steps=3,
        wait_steps=2,
        decay_steps=5,
        decay_rate=0.6,
        dtype="float64",
    )
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(schedule)
    )
    assert copy.get_config() == schedule.get_config()
    assert rates(copy, range(20)) == rates(schedule, range(20))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(decay="linear"), "Unknown learning-rate decay 'linear'"),
        (dict(decay="constant", wait_steps=-1), "wait_steps=-1"),
        (dict(decay="constant", warmup_steps=-2), "warmup_steps=-2"),
        (dict(decay="exponential", decay_steps=0), "positive; got 0"),
        (dict(decay="exponential", decay_rate=1.5), "decay_rate.*got 1.5"),
        (dict(decay="exponential", decay_rate=0.0), "decay_rate.*got 0.0"),
        (dict(decay="cosine"), "got None"),
        (dict(decay="cosine", num_train_steps=0), "got 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        WaitWarmupDecay(0.1, **settings)


def test_a_cosine_may_end_before_it_begins():
    schedule = WaitWarmupDecay(
        1.0, decay="cosine", num_train_steps=3, wait_steps=2, warmup_steps=4
    )
    rates = [float(schedule(step)) for step in range(9)]
    np.testing.assert_allclose(
        rates, [0, 0, 0.25, 0.5, 0.75, 1, 1, 0, 0], atol=1e-7
    )
