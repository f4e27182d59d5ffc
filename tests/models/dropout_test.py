import keras
import numpy as np
import pytest

from meta_pseudo_labels.distribute import replicas
from meta_pseudo_labels.models import StochasticDepth


def ones(examples):
    return np.ones([examples, 2, 2, 3], "float32")


def test_keeps_and_scales_whole_examples_as_the_release_does():
    outputs = np.asarray(
        StochasticDepth(0.25, seed=7)(ones(500), training=True)
    )
    seed = keras.random.SeedGenerator(7).next()
    draws = replicas.uniform(seed, rows=500, width=1)[..., None, None]
    # The release: x / keep * floor(keep + u).
    kept = np.floor(0.75 + np.asarray(draws))
    np.testing.assert_allclose(outputs, ones(500) / 0.75 * kept, rtol=1e-6)
    # 375 are expected, give or take 10.
    assert 330 < kept.sum() < 420


def test_is_off_in_inference():
    layer = StochasticDepth(0.75)
    np.testing.assert_array_equal(layer(ones(8), training=False), ones(8))
    np.testing.assert_array_equal(layer(ones(8)), ones(8))


def test_draws_differ_from_call_to_call_and_between_layers():
    first = StochasticDepth(0.5)
    second = StochasticDepth(0.5)
    draws = [
        np.asarray(layer(ones(64), training=True)).tobytes()
        for layer in (first, first, second)
    ]
    assert len(set(draws)) == 3


def test_the_global_seed_repeats_the_draws():
    draws = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        draws.append(np.asarray(StochasticDepth(0.5)(ones(64), training=True)))
    np.testing.assert_array_equal(*draws)


def test_the_state_of_the_draws_is_an_integer_variable():
    """Checkpoints of a learner keep its integer variables."""
    layer = StochasticDepth(0.5)
    (state,) = layer.variables
    assert "float" not in state.dtype and not layer.weights
    before = state.numpy()
    drawn = np.asarray(layer(ones(64), training=True))
    assert not np.array_equal(before, state)
    state.assign(before)
    np.testing.assert_array_equal(layer(ones(64), training=True), drawn)


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_drops_at_the_rate_in_every_precision(dtype):
    # In bfloat16 itself 1 - 0.002 is 1: nothing would ever be dropped.
    layer = StochasticDepth(0.002, seed=1, dtype=dtype)
    outputs = layer(ones(20_000), training=True)
    assert outputs.dtype == layer.compute_dtype
    dropped = np.sum(np.asarray(outputs, "float32")[:, 0, 0, 0] == 0)
    assert 10 < dropped < 80  # 40 expected, give or take 6.


def test_keras_file_round_trip(tmp_path):
    inputs = keras.Input([2, 2, 3])
    outputs = StochasticDepth(0.25, seed=7, name="drop")(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    layer = loaded.get_layer("drop")
    assert (layer.rate, layer.seed) == (0.25, 7)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2])
def test_rejects_rates_out_of_range(rate):
    with pytest.raises(ValueError, match=rf"in \[0, 1\), got {rate}"):
        StochasticDepth(rate)
