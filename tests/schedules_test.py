"""Learning rates, by hand and against the release's curves."""

import json

import keras
import numpy as np
import pytest

from meta_pseudo_labels.schedules import WaitWarmupDecay, scale_by_batch


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_the_release(reference_dir, dtype):
    compared = 0
    for call, steps, want in curves(reference_dir):
        schedule = WaitWarmupDecay(
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
        np.testing.assert_allclose(
            rates(schedule, steps),
            want,
            rtol=1e-6,
            atol=1e-7 * want.max(),  # Cosines end in rounding, not in 0.
            err_msg=call["name"],
        )
        compared += 1
    assert compared == 7


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
        (
            dict(
                decay="cosine",
                num_train_steps=30,
                wait_steps=10,
                warmup_steps=20,
            ),
            r"wait_steps \+ warmup_steps = 30; got 30",
        ),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        WaitWarmupDecay(0.1, **settings)
